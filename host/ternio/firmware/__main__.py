"""`python -m ternio.firmware start BOARD IMAGE`: what `pio run -t upload` calls in the emulator."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ternio.boards import load_board
from ternio.errors import TernioError
from ternio.link.virtual import VirtualBoards


def main() -> int:
    """Starts the virtual board with an image and prints its port."""
    parser = argparse.ArgumentParser(prog="python -m ternio.firmware")
    parser.add_argument("command", choices=["start"])
    parser.add_argument("board")
    parser.add_argument("image", type=Path)
    arguments = parser.parse_args()
    try:
        running = VirtualBoards().start(load_board(arguments.board), arguments.image)
    except TernioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{running.name} runs on {running.port}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
