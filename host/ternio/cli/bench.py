"""`ternio bench`: what a model costs on a board: instructions, time, arena, stack."""

from __future__ import annotations

import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import JsonOption, PortOption, emit, example, say

if TYPE_CHECKING:
    from ternio.blob import Blob
    from ternio.boards import Board
    from ternio.link.client import BoardClient

INSTRUCTIONS_A_MICROSECOND = 1000
"""With `-icount shift=0` QEMU's clock moves by a nanosecond an instruction."""


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("bench", epilog=example("ternio bench motion.tern --board netduinoplus2"))(bench)


def bench(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Blob, as `ternio pack` writes it.")
    ],
    board: Annotated[str, typer.Option("--board", "-b", help="The board's name or manifest file.")],
    port: PortOption = None,
    runs: Annotated[
        int, typer.Option("--runs", help="Inferences, or tokens at the end of a context.")
    ] = 10,
    as_json: JsonOption = False,
) -> None:
    """Measures a model: in the emulator exact counts of instructions, on the board at --port (which
    has the model already) time and cycles of its clock.
    """
    from ternio.boards import load_board
    from ternio.errors import DataError
    from ternio.link.flash import checked_blob

    if runs < 1:
        raise DataError("--runs is at least 1")
    target = load_board(board)
    from ternio.blob import Blob

    blob = Blob.decode(checked_blob(target, model))
    counted = port is None and not target.is_native
    with _board(target, model, port) as client:
        _require_same(client, blob, target)
        times, again = (_tokens if blob.io.is_stream else _windows)(client, blob, runs)
        stats = client.command("stats")
    result = {"board": target.name, "model": blob.name, "runs": runs}
    result |= _costs(times, again, counted, target)
    result |= {"arena_bytes": blob.infer_arena, "arena_has": target.arena_bytes}
    free = re.search(r"stack_free=(\d+)", stats)
    if free and not target.is_native:
        result |= {"stack_bytes": target.stack_bytes - int(free[1]), "stack_free": int(free[1])}
    if as_json:
        emit(result)
    else:
        _show(result, "token" if blob.io.is_stream else "inference", counted, target)


@contextmanager
def _board(board: Board, model: Path, port: str | None) -> Iterator[BoardClient]:
    """The board at a port, or an emulated one of our own that counts instructions."""
    from ternio.firmware import pio
    from ternio.link.client import BoardClient
    from ternio.link.virtual import VirtualBoards

    if port is not None:
        with BoardClient(port) as client:
            yield client
        return
    with tempfile.TemporaryDirectory(prefix="ternio-bench-") as folder:
        virtual = VirtualBoards(Path(folder))
        try:
            if board.is_native:
                running = virtual.start(board, pio.build_native())
            else:
                count = ("-icount", "shift=0")
                running = virtual.start(board, pio.build(board, model).elf, extra_args=count)
            with BoardClient(running.port) as client:
                if board.is_native:
                    client.upload_model(model.read_bytes())
                yield client
        finally:
            virtual.stop_all()


def _require_same(client: BoardClient, blob: Blob, board: Board) -> None:
    from ternio.errors import LinkError

    info = client.info()
    if info.board != board.name:
        raise LinkError(f"the board that answers is {info.board}, not {board.name}")
    if info.digest != blob.digest.hex():
        has = f"{info.model} {info.digest[:16]}" if info.model else f"no model ({info.reason})"
        raise LinkError(f"{info.board} has {has}: send it {blob.name} with `ternio flash` first")


def _windows(client: BoardClient, blob: Blob, runs: int) -> tuple[list[int], list[int]]:
    """Microseconds of inferences over random windows, and of none that are apart."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (blob.io.length, blob.io.channels)
    windows = random.integers(-12000, 12000, (runs, *shape)).astype(np.int16)
    return [client.infer(window).us for window in windows], []


def _tokens(client: BoardClient, blob: Blob, runs: int) -> tuple[list[int], list[int]]:
    """Microseconds of each token at the end of a full context, where attention costs most; and
    apart from them of those before which a full context is read again from its last half.
    """
    import json

    points = blob.vocabulary.code_points if blob.vocabulary else ()
    client.prompt(chr(points[0]) if points else "\n")
    length = blob.io.length
    held = max(length - 2 - runs, 1)  # tokens that the stream holds: its first, all but the last
    for _ in client.generate(held, temperature=1.0):
        pass
    client.telemetry(True)
    for _ in range(runs):  # one by one, as an answer has the time of all its tokens together
        for _ in client.generate(1, temperature=1.0):
            pass
    found: list[int] = []
    while len(found) < runs:
        lines = list(client.lines(timeout_s=2.0))
        events = [json.loads(line) for line in lines if line.startswith("{")]
        if not events:
            break
        found += [e["us"] for e in events if e.get("event") == "generate"]
    client.telemetry(False)
    times, again = [], []
    for us in found:
        full = held == length
        held = max(length // 2, 1) + 1 if full else held + 1
        (again if full else times).append(us)
    return times or again, again


def _costs(times: list[int], again: list[int], counted: bool, board: Board) -> dict[str, Any]:
    median = statistics.median(times)
    if counted:
        count = INSTRUCTIONS_A_MICROSECOND
        reading = {"again": max(again) * count} if again else {}
        return {"instructions": int(median * count), "most": max(times) * count, **reading}
    clock = str(board.manifest.get("build", {}).get("f_cpu", "")).rstrip("L")
    cycles = int(median * int(clock) / 1e6) if clock and not board.is_native else None
    reading = {"again_us": max(again)} if again else {}
    return {"us": median, "most_us": max(times), "cycles": cycles, **reading}


def _show(result: dict[str, Any], unit: str, counted: bool, board: Board) -> None:
    what = "the last {} tokens of a full context" if unit == "token" else "{} inferences"
    say(f"{result['model']} on {board.name}, {what.format(result['runs'])}")
    if counted:
        millions = result["instructions"] / 1e6
        say(f"{unit:<10}{millions:.3f} million instructions (most {result['most'] / 1e6:.3f})")
    else:
        cycles = f", {result['cycles']} cycles" if result["cycles"] else ""
        say(f"{unit:<10}{result['us']:g} us (most {result['most_us']}){cycles}")
    if again := result.get("again", result.get("again_us")):
        cost = f"{again / 1e6:.3f} million instructions" if counted else f"{again} us"
        say(f"{'again':<10}{cost}: a token for which a full context's last half is read again")
    say(f"{'arena':<10}{result['arena_bytes']} of {result['arena_has']} bytes")
    if "stack_bytes" in result:
        say(f"{'stack':<10}{result['stack_bytes']} of {board.stack_bytes} bytes at most")
