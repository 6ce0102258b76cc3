"""`ternio pack`: from a checkpoint to the blob that boards run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import BoardOption, JsonOption, emit, example, say

if TYPE_CHECKING:
    from ternio.blob import Blob
    from ternio.compile import Part


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("pack", epilog=example("ternio pack motion.ckpt -o motion.tern -b microbit"))(pack)


def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, as `ternio train` writes it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Blob; by default NAME.tern.")
    ] = None,
    board: BoardOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the model; by default the checkpoint's.")
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt/--no-adapt", help="With a program to learn on the board.")
    ] = True,
    rank: Annotated[int, typer.Option("--rank", help="Rank of the LoRA slots, 1 to 64.")] = 4,
    scale: Annotated[float, typer.Option("--scale", help="Their alpha / rank.")] = 2.0,
    targets: Annotated[
        str, typer.Option("--targets", help="Layers with a slot: globs, by comma.")
    ] = "q,v,head",
    float_dtype: Annotated[
        str, typer.Option("--float", help="Weights that are not ternary: f16, f32 or i8.")
    ] = "f16",
    as_json: JsonOption = False,
) -> None:
    """Compiles a trained model into one file: weights, programs, labels and memory plan.

    With --board it is checked against the board's flash and RAM first; a model that does not fit
    ends with status 2 and says by how much.
    """
    from ternio.boards import load_board
    from ternio.checkpoint import load_checkpoint
    from ternio.compile import Options, account, pack_checkpoint, require_fit

    target = load_board(board) if board else None
    room = target.arena_bytes if target else None
    names = tuple(t.strip() for t in targets.split(",") if t.strip())
    options = Options(adapt, rank, scale, names, float_dtype, arena_limit=room)
    path = output or checkpoint.with_suffix(".tern")
    trained = load_checkpoint(checkpoint)
    trained.name = name or trained.name
    blob = pack_checkpoint(trained, options)
    parts = account(blob, target) if target else []
    if not as_json:
        show_blob(blob)
        show_account(parts, target.name if target else "")
    if target:
        require_fit(blob, target)
    _write(path, blob.encode())
    if as_json:
        emit({"file": str(path), **facts(blob), "board": target and target.name, **fit(parts)})
    else:
        say(f"wrote {path}: {path.stat().st_size} bytes")
        say(f"next: ternio flash {path} --board {target.name if target else 'netduinoplus2'}")


def _write(path: Path, data: bytes) -> None:
    from ternio.errors import BlobError

    try:
        path.write_bytes(data)
    except OSError as error:
        raise BlobError(f"cannot write {path}: {error.strerror}") from None


def facts(blob: Blob) -> dict[str, Any]:
    """What --json says of a blob."""
    from ternio.compile.fit import blob_parts

    parts = blob_parts(blob)
    return {
        "name": blob.name,
        "digest": blob.digest.hex(),
        "bytes": sum(parts.values()),
        "parts": parts,
        "channels": blob.io.channels,
        "length": blob.io.length,
        "labels": list(blob.labels),
        "ternary_weights": sum(t.rows * t.cols for t in blob.tensors if t.dtype == "T2"),
        "infer_arena": blob.infer_arena,
        "adapt_arena": blob.adapt_arena,
        "adapter_floats": blob.adapter_floats,
        "adapters": [x.name for x in blob.adapters],
    }


def fit(parts: list[Part]) -> dict[str, Any]:
    """What --json says of a board's account."""
    fields = ("memory", "name", "needs", "has", "missing")
    return {
        "account": [{name: getattr(p, name) for name in fields} for p in parts],
        "fits": not any(p.missing for p in parts),
    }


def show_blob(blob: Blob) -> None:
    """A blob in a few lines."""
    about = facts(blob)
    say(
        f"model   {blob.name}, {blob.io.channels} channels x {blob.io.length} samples -> "
        f"{len(blob.labels)} classes, {about['ternary_weights']} ternary weights"
    )
    sizes = ", ".join(f"{name} {size}" for name, size in about["parts"].items())
    say(f"blob    {about['bytes']} bytes: {sizes}")
    adapt = "no adapt program"
    if blob.adapt is not None:
        count = blob.adapter_floats
        adapt = f"{blob.adapt_arena} bytes to adapt {count} numbers in {len(blob.adapters)} layers"
    say(f"arena   {blob.infer_arena} bytes to infer, {adapt}")


def show_account(parts: list[Part], board: str) -> None:
    """The account of a board as a table."""
    if not parts:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("memory", f"part on {board}", box=None, pad_edge=False)
    for title in ("needs", "has", "too many"):
        table.add_column(title, justify="right")
    for p in parts:
        has, missing = ("" if n is None else str(n) for n in (p.has, p.missing or None))
        table.add_row(p.memory, p.name, str(p.needs), has, missing)
    Console().print(table)
