"""What the readers of text files share: decoding and numbers, with errors that name the place."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError

_MISSING = frozenset(("", "?", "na", "n/a", "nan", "null", "none"))


def read_bytes(path: Path) -> bytes:
    """The content of a file that is not empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise DataError(f"{path.name}: the file is empty{' but for white space' * bool(data)}")
    return data


def read_text(path: Path, otherwise: str = "") -> str:
    """The text of a UTF-8 file (a byte-order mark is dropped).

    Args:
        path: of the file.
        otherwise: what else to do with a file that is none, for the message.
    """
    data = read_bytes(path)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path.name}: UTF-16 text; save it as UTF-8{otherwise}")
    if b"\0" in data:
        raise DataError(f"{path.name}: contains NUL bytes: not a text file{otherwise}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"{path.name}:{line}: not UTF-8 text; save the file as UTF-8{otherwise}"
        raise DataError(text) from error


def is_number(cell: str) -> bool:
    """Whether a cell is a number or stands for a missing one."""
    cell = cell.strip()
    if cell.lower() in _MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def parse_number(cell: str, place: str, decimal_comma: bool = False) -> float:
    """A cell as a number; empty, `?`, `NA` and `NaN` are NaN.

    Args:
        cell: the text.
        place: where it stands, for the message.
        decimal_comma: read `1,5` as 1.5.
    """
    cell = cell.strip()
    if cell.lower() in _MISSING:
        return float("nan")
    try:
        return float(cell.replace(",", ".", 1) if decimal_comma else cell)
    except ValueError:
        raise DataError(f"{place}: expected a number, got {cell[:40]!r}") from None
