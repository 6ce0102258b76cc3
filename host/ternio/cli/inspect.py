"""`ternio inspect`: what is in a blob, and what each board would need for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import JsonOption, emit, example, say, show_table
from .pack import facts, fit, show_blob

if TYPE_CHECKING:
    from ternio.blob import Blob
    from ternio.compile import Part


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("inspect", epilog=example("ternio inspect motion.tern --programs"))(inspect)


def inspect(
    blob: Annotated[Path, typer.Argument(metavar="BLOB", help="Blob, as `ternio pack` writes it.")],
    programs: Annotated[
        bool, typer.Option("--programs", help="The programs, an instruction a line.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Shows a blob's sections, tensors, memory, programs, and which boards it fits."""
    from ternio.blob import disassemble, read_blob

    model = read_blob(blob)
    listings = {"infer": disassemble(model, model.infer)} if programs else {}
    if programs and model.adapt is not None:
        listings["adapt"] = disassemble(model, model.adapt)
    if as_json:
        boards = {name: fit(parts) for name, parts in _accounts(model).items()}
        emit({**facts(model), **_details(model), "boards": boards, "programs": listings})
        return
    show_blob(model)
    say(f"digest  {model.digest.hex()}")
    _print_tables(model)
    for name, lines in listings.items():
        first = ", after infer" if name == "adapt" and model.adapt.after_infer else ""
        say(f"\nprogram {name}{first} ({len(lines)} instructions; @: arena byte, [t]: row t)")
        for line in lines:
            say(line)


def _details(blob: Blob) -> dict[str, Any]:
    tensors = [
        {"name": t.name, "dtype": t.dtype, "shape": [t.rows, t.cols], "bytes": len(t.data)}
        for t in blob.tensors
    ]
    sections = {kind: [len(content), count] for kind, content, count in blob.sections()}
    return {"sections": sections, "tensors": tensors, "meta": blob.meta}


def _accounts(blob: Blob) -> dict[str, list[Part]]:
    """The account of each known board."""
    from ternio.boards import board_names, load_board
    from ternio.compile import account

    return {name: account(blob, load_board(name)) for name in board_names()}


def _print_tables(blob: Blob) -> None:
    from rich.table import Table

    sections = Table("section", box=None, pad_edge=False)
    tensors = Table("tensor", "dtype", "shape", box=None, pad_edge=False)
    boards = Table("board", "fits", box=None, pad_edge=False)
    for table, titles in ((sections, ("bytes", "count")), (tensors, ("bytes",))):
        for title in titles:
            table.add_column(title, justify="right")
    for kind, content, count in blob.sections():
        sections.add_row(kind, str(len(content)), str(count))
    for t in blob.tensors:
        tensors.add_row(t.name, t.dtype, f"{t.rows} x {t.cols}", str(len(t.data)))
    limited: dict[str, None] = {}
    accounts = _accounts(blob)
    for parts in accounts.values():
        limited |= dict.fromkeys(p.name for p in parts if p.has is not None)
    for name in limited:
        boards.add_column(name, justify="right")
    for board, parts in accounts.items():
        sizes = {p.name: f"{-(-100 * p.needs // p.has)} %" for p in parts if p.has}
        fits = "no" if any(p.missing for p in parts) else "yes"
        boards.add_row(board, fits, *(sizes.get(name, "-") for name in limited))
    for table in (sections, tensors, boards):
        say()
        show_table(table)
    say("\npercent of what the board has; in bytes: `ternio pack --board BOARD`, or --json here")
