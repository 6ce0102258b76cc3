"""`ternio demo`: the whole road on reference data, checked and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import SEED, JsonOption, emit, example, fail


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("demo", epilog=example("ternio demo motion"))(demo)


def demo(
    what: Annotated[
        str, typer.Argument(metavar="NAME", help="Which demonstration: motion.")
    ] = "motion",
    board: Annotated[
        str, typer.Option("--board", "-b", help="The emulated board to use.")
    ] = "netduinoplus2",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is made.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Of training and adaptation.", **SEED)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Trains, packs, flashes, classifies, adapts and reports; fails when a promise is not kept."""
    from ternio.errors import DataError

    if what != "motion":
        raise DataError(f"there is no demonstration {what!r}: there is motion")
    from ternio.demo import run_motion

    summary = run_motion(board, output, seed, lambda text: typer.echo(text, err=as_json), as_json)
    if as_json:
        emit(summary)
    if not summary["kept"]:
        fail("the demonstration did not keep every promise, see the table", 1)
