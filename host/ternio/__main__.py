"""Where the program `ternio` begins, also as `python -m ternio`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, imported here so that Ctrl-C while it loads is one line, too."""
    try:
        from ternio.cli import app

        app()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
