"""`ternio flash`: a model onto a board, with the firmware where the board is bare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, PortOption, emit, example, note, progress, say, shown


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("flash", epilog=example("ternio flash motion.tern --board netduinoplus2"))(flash)


def flash(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Blob, as `ternio pack` writes it.")
    ],
    board: Annotated[
        str | None,
        typer.Option(
            "--board", "-b", help="The board's name or manifest file; else who answers on --port."
        ),
    ] = None,
    port: PortOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Build and upload the firmware even when one answers.")
    ] = False,
    hardware: Annotated[
        bool, typer.Option("--hardware", help="The real board, not the emulated one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sends a model to a board, or builds and uploads the firmware with the model inside when the
    board is bare.
    """
    from ternio.blob.adapter import HEADER_BYTES
    from ternio.boards import load_board
    from ternio.link.flash import flash as flash_board

    target = load_board(board or _board_at(port))
    tell = (
        (lambda text: None)
        if as_json
        else (lambda text: typer.echo(f"{shown(text)} ...", err=True))
    )
    with progress("sending") as bar:
        done = flash_board(
            target, model, port=port, full=full, hardware=hardware, progress=bar, tell=tell
        )
    info = done.info
    if not target.merges_rows and not target.is_native and _is_merged(model):
        note(
            f"{model} was packed for another kind of core and is slow on a {target.core}: "
            f"`ternio pack --board {target.name}` makes a faster one"
        )
    if info.storage == "none":
        note(
            f"{info.board} has no place for another model or an adapter: no flash that can be "
            "written, and no memory answers at its ram_slots"
        )
    elif info.adapter_floats:
        need, room = HEADER_BYTES + 4 * info.adapter_floats, target.adapter_room(info.storage)
        if need > room:
            note(
                f"{info.board} cannot store an adapter of this model in its {info.storage}: it "
                f"takes {need} bytes of {room}; `ternio adapt --no-save` goes without"
            )
    if as_json:
        emit(
            {
                "how": done.how,
                "board": info.board,
                "port": done.port,
                "model": info.model,
                "digest": info.digest,
                "slot": info.slot,
                "storage": info.storage,
                "blob_bytes": done.blob_bytes,
                "seconds": round(done.seconds, 3),
                "sizes": done.sizes,
            }
        )
        return
    what = {
        "sent": f"sent {model} ({done.blob_bytes} bytes)",
        "built": f"built the firmware with {model} ({done.blob_bytes} bytes) inside and started it",
        "kept": f"{info.board} had {model} already, nothing sent",
    }[done.how]
    say(f"{what} in {done.seconds:.1f} s")
    if done.sizes:
        totals = {
            kind: sum(part.get(kind, 0) for part in done.sizes.values())
            for kind in ("flash", "ram")
        }
        say(
            f"firmware: {totals['flash']} of {target.flash.bytes} bytes of flash, "
            f"{totals['ram']} of {target.ram.bytes} bytes of RAM"
        )
    say(f"{info.board} on {done.port} runs {info.model}, slot {info.slot}, storage {info.storage}")
    verb = "generate" if info.is_stream else "infer DATA"
    say(f"next: ternio {verb} --port {done.port}")


def _is_merged(model: Path) -> bool:
    """Whether ternary rows lie in pairs, as cores with DSP like them."""
    from ternio.blob import read_blob

    return any(tensor.dtype == "T2D" for tensor in read_blob(model).tensors)


def _board_at(port: str | None) -> str:
    """The name of the board that answers on a port."""
    from ternio.errors import BoardError
    from ternio.link.find import ask

    if port is None:
        raise typer.BadParameter(
            "which board? give --board NAME (see `ternio boards`) or --port PORT",
            param_hint="--board",
        )
    info = ask(port)
    if info is None:
        raise BoardError(f"no ternio firmware answers on {port}: give --board as well")
    return info.board
