"""What the commands share: options, output for people and for scripts, a progress bar, the choice
of a board.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from ternio.link.client import BoardClient

FACT_COLUMNS = 8

BoardOption = Annotated[
    str | None,
    typer.Option("--board", "-b", help="A board's name (see `ternio boards`) or manifest file."),
]
PortOption = Annotated[
    str | None, typer.Option("--port", "-p", help="Serial port of the board, e.g. /dev/ttyACM0.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def whole_number(least: int, most: int) -> dict[str, Any]:
    """Settings of an option that takes a whole number: with typer's own, help would show the
    largest one in full and have no room left for words.
    """

    def parse(text: str | int) -> int:
        try:
            number = int(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no whole number") from None
        if not least <= number <= most:
            raise typer.BadParameter(f"{number} is not from {least} to {most}")
        return number

    return {"parser": parse, "metavar": "<int>"}


SEED = whole_number(0, 2**63 - 1)


def reflowed(function: Callable[..., Any]) -> str:
    """A command's description with each paragraph on a line: the help breaks lines itself."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(text.split()) for text in paragraphs)


def example(command: str) -> str:
    """The last paragraph of a command's help."""
    return f"Example: {command}"


def say(text: str = "") -> None:
    """A line for the person, on stdout."""
    typer.echo(shown(text))


def say_fact(name: str, text: str) -> None:
    """A line of a report, its text in a column of its own where the terminal is narrow."""
    text = shown(text)
    lines = [text]
    if sys.stdout.isatty():
        room = max(shutil.get_terminal_size().columns - FACT_COLUMNS, 20)
        lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    for line in lines or [""]:
        typer.echo(f"{name:<{FACT_COLUMNS}}{line}")
        name = ""


def visible(character: str) -> str:
    """A character that is safe to print.

    >>> visible("a"), visible("\\x1b")
    ('a', '\\\\x1b')
    """
    code = ord(character)
    if character in "\n\t" or not (code < 0x20 or 0x7F <= code < 0xA0):
        return character
    return f"\\x{code:02x}"


def shown(text: str) -> str:
    """Text of whatever origin, safe to print: a label or a board's words could move the cursor."""
    return "".join(map(visible, text))


def fail(text: str, status: int) -> NoReturn:
    """Prints `error: text` on stderr and ends with `status`."""
    typer.echo(f"error: {shown(text)}", err=True)
    raise typer.Exit(status)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    typer.echo(f"note: {shown(text)}", err=True)


def emit(data: dict[str, Any]) -> None:
    """One JSON object on one line."""
    typer.echo(json_text(data))


def json_text(data: dict[str, Any]) -> str:
    """JSON as every reader takes it, and safe to print: NaN and infinities, which it has no words
    for, are null, and control characters are escaped.

    >>> json_text({"loss": float("nan"), "label": "a\\x9b"})
    '{"loss": null, "label": "a\\\\u009b"}'
    """
    text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    """The value with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_table(table: Any) -> None:
    """A rich table: as wide as it likes where stdout is no terminal; cells are never cut, and those
    of the first column, names, stay on a line. What a cell holds is no markup.
    """
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(shown(text), **how)

    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    width = None if sys.stdout.isatty() else 200
    Plain(width=width, markup=False, emoji=False).print(table)


def command(start: str, *words: object) -> str:
    """A command line to copy: `start` as it is, the other words quoted where a shell needs it, and
    no path taken for an option.

    >>> command("ternio pack", Path("-my model.ckpt"))
    "ternio pack './-my model.ckpt'"
    """
    texts = (f"./{w}" if isinstance(w, Path) and str(w).startswith("-") else str(w) for w in words)
    return f"{start} {shlex.join(texts)}"


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    from ternio.files import write_whole

    write_whole(path, lambda file: file.write(data))


@contextmanager
def progress(title: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that is told (done, total) and begins with the first of them; nothing where
    stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=None)

    def tell(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        bar.stop()


def board_name(board: str | None) -> str | None:
    """`nucleo.json` or `nucleo` -> the name that the board's firmware gives."""
    return Path(board).stem if board and board.endswith(".json") else board


@contextmanager
def connect(board: str | None, port: str | None) -> Iterator[BoardClient]:
    """The board to talk to: the port given, the virtual board that runs, or the only one that
    answers.
    """
    from ternio.link.client import BoardClient
    from ternio.link.find import choose_port

    with BoardClient(choose_port(board_name(board), port)) as client:
        yield client
