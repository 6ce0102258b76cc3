"""`ternio pack`: from a checkpoint to the blob that boards run."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BoardOption,
    JsonOption,
    command,
    emit,
    example,
    say,
    say_fact,
    show_table,
    write_file,
)

if TYPE_CHECKING:
    from ternio.blob import Blob
    from ternio.boards import Board
    from ternio.checkpoint import Checkpoint
    from ternio.compile import Options, Part


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("pack", epilog=example("ternio pack motion.ckpt -o motion.tern -b microbit"))(pack)


def pack(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint, as `ternio train` writes it.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Blob; by default NAME.tern.")
    ] = None,
    board: BoardOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the model; by default the checkpoint's.")
    ] = None,
    adapt: Annotated[
        bool | None,
        typer.Option(
            "--adapt/--no-adapt",
            help="With a program to learn on the board; by default where model and board can.",
        ),
    ] = None,
    rank: Annotated[int, typer.Option("--rank", help="Rank of the LoRA slots, 1 to 64.")] = 4,
    scale: Annotated[float, typer.Option("--scale", help="Their alpha / rank.")] = 2.0,
    targets: Annotated[
        str, typer.Option("--targets", help="Layers with a slot: globs, by comma.")
    ] = "q,v,head",
    float_dtype: Annotated[
        str,
        typer.Option(
            "--float",
            help="Weights that are not ternary: i8 (small and fast), f16 or f32 (exact).",
        ),
    ] = "i8",
    kv: Annotated[
        str,
        typer.Option(
            "--kv",
            help="Keys and values of attention: float, int8, or auto: int8 where it can be.",
        ),
    ] = "auto",
    float_rows: Annotated[
        bool,
        typer.Option(
            "--float-rows", help="Floats between ternary layers, not integers: exact, slow on M0."
        ),
    ] = False,
    array: Annotated[
        Path | None, typer.Option("--c-array", help="Write the blob as a C header, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compiles a trained model into one file: weights, programs, labels and memory plan.

    With --board it is checked against the board's flash and RAM first; a model that does not fit
    ends with status 2 and says by how much.
    """
    from ternio.blob.c_array import c_array
    from ternio.boards import load_board
    from ternio.checkpoint import load_checkpoint
    from ternio.compile import account, agreement, pack_checkpoint, require_fit
    from ternio.errors import DataError
    from ternio.files import require_apart

    target = load_board(board) if board else None
    path = output or checkpoint.with_suffix(".tern")
    trained = load_checkpoint(checkpoint)
    trained.name = name or trained.name
    if not 0 < abs(scale) <= 1e6:
        raise DataError(f"--scale {scale:g}: expected a number other than 0, at most 1e6")
    manifest = board if board and board.endswith(".json") else None
    require_apart(path, checkpoint=checkpoint, manifest=manifest)
    if array is not None:
        require_apart(array, checkpoint=checkpoint, manifest=manifest, blob=path)
    names = tuple(t.strip() for t in targets.split(",") if t.strip())
    options = _options(trained, target, adapt, rank, scale, names, float_dtype, kv)
    options = replace(options, integer_rows=not float_rows)
    blob = pack_checkpoint(trained, options)
    parts = account(blob, target) if target else []
    if not as_json:
        show_blob(blob)
        show_account(parts, target.name if target else "")
    if target:
        require_fit(blob, target)
    agreed = agreement(blob, trained, options)
    write_file(path, blob.encode())
    if array is not None:
        write_file(array, c_array(blob).encode())
    if as_json:
        about = {"file": str(path), **facts(blob), "board": target and target.name, **fit(parts)}
        emit({**about, "agreement": agreed and asdict(agreed)})
        return
    if agreed is not None:
        unit = "tokens" if blob.io.is_stream else "windows"
        say_fact(
            "agrees",
            f"with a packing in floats on {agreed.same} of {agreed.count} {unit} of "
            f"{agreed.data}; logits differ by {agreed.difference:.3g} of {agreed.largest:.3g}",
        )
    say(f"wrote {path}: {path.stat().st_size} bytes")
    if array is not None:
        say(f"wrote {array}: {array.stat().st_size} bytes")
    say(f"next: {command('ternio flash', path, '--board', board or 'netduinoplus2')}")


def _options(
    trained: Checkpoint,
    board: Board | None,
    adapt: bool | None,
    rank: int,
    scale: float,
    targets: tuple[str, ...],
    float_dtype: str,
    kv: str,
) -> Options:
    """What was asked for; what was left open, as it suits model and board."""
    from ternio.compile import Options
    from ternio.compile.fit import input_room
    from ternio.errors import CompileError

    if adapt and trained.kind == "lm":
        raise CompileError(f"{trained.name} is a language model; boards adapt classifiers only")
    if adapt is None:
        adapt = trained.kind != "lm" and (board is None or board.adapts)
    room = input_room(trained.config, board) if board else None
    merge = bool(board) and board.merges_rows
    return Options(adapt, rank, scale, targets, float_dtype, room, kv, merge_rows=merge)


def facts(blob: Blob) -> dict[str, Any]:
    """What --json says of a blob."""
    from ternio.compile.fit import blob_parts, key_bytes

    parts = blob_parts(blob)
    return {
        "name": blob.name,
        "digest": blob.digest.hex(),
        "bytes": sum(parts.values()),
        "parts": parts,
        "kind": "tokens" if blob.io.is_stream else "windows",
        "channels": blob.io.channels,
        "length": blob.io.length,
        "outputs": blob.io.outputs,
        "labels": list(blob.labels),
        "ternary_weights": sum(t.rows * t.cols for t in blob.tensors if t.is_ternary),
        "infer_arena": blob.infer_arena,
        "key_bytes": key_bytes(blob),
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
    what = f"{blob.io.channels} channels x {blob.io.length} samples -> {len(blob.labels)} classes"
    if blob.vocabulary is not None:
        unit = "bytes" if blob.vocabulary.is_bytes else "characters"
        what = f"context of {blob.io.length} {unit}, vocabulary of {blob.io.outputs}"
    say_fact("model", f"{blob.name}, {what}, {about['ternary_weights']} ternary weights")
    sizes = ", ".join(f"{name} {size}" for name, size in about["parts"].items())
    say_fact("blob", f"{about['bytes']} bytes: {sizes}")
    adapt = "no adapt program"
    if blob.adapt is not None:
        count = blob.adapter_floats
        adapt = f"{blob.adapt_arena} bytes to adapt {count} numbers in {len(blob.adapters)} layers"
    keys = f" ({about['key_bytes']} for keys and values)" if about["key_bytes"] else ""
    say_fact("arena", f"{blob.infer_arena} bytes to infer{keys}, {adapt}")


def show_account(parts: list[Part], board: str) -> None:
    """The account of a board as a table."""
    if not parts:
        return
    from rich.table import Table

    table = Table("memory", f"part on {board}", box=None, pad_edge=False)
    for title in ("needs", "has", "too many"):
        table.add_column(title, justify="right")
    for p in parts:
        has, missing = ("" if n is None else str(n) for n in (p.has, p.missing or None))
        table.add_row(p.memory, p.name, str(p.needs), has, missing)
    show_table(table)
