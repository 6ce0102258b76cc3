"""`ternio inspect`: what is in a blob, and what each board would need for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import JsonOption, emit, example, say
from .pack import facts, show_blob

if TYPE_CHECKING:
    from ternio.blob import Blob


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("inspect", epilog=example("ternio inspect motion.tern --programs"))(inspect)


def inspect(
    blob: Annotated[Path, typer.Argument(help="Blob, as `ternio pack` writes it.")],
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
        emit({**facts(model), **_details(model), "boards": _boards(model), "programs": listings})
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


def _boards(blob: Blob) -> dict[str, dict[str, int]]:
    """Per board the parts that are too large, with the bytes that are too many; empty: it fits."""
    from ternio.boards import board_names, load_board
    from ternio.compile import account

    accounts = {name: account(blob, load_board(name)) for name in board_names()}
    return {
        board: {p.name: p.missing for p in parts if p.missing} for board, parts in accounts.items()
    }


def _print_tables(blob: Blob) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    sections = Table("section", box=None, pad_edge=False)
    tensors = Table("tensor", "dtype", "shape", box=None, pad_edge=False)
    boards = Table("board", "fits (or bytes too many)", box=None, pad_edge=False)
    for table, titles in ((sections, ("bytes", "count")), (tensors, ("bytes",))):
        for title in titles:
            table.add_column(title, justify="right")
    for kind, content, count in blob.sections():
        sections.add_row(kind, str(len(content)), str(count))
    for t in blob.tensors:
        tensors.add_row(t.name, t.dtype, f"{t.rows} x {t.cols}", str(len(t.data)))
    for name, missing in _boards(blob).items():
        over = ", ".join(f"{part} +{size}" for part, size in missing.items())
        boards.add_row(name, f"no: {over}" if over else "yes")
    for table in (sections, tensors, boards):
        console.print()
        console.print(table)
