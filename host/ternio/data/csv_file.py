"""Reader of .csv, .tsv and .txt tables, in the three forms in which people keep labelled series.

Long: one row per sample, with a column that says which example the row belongs to.

    id,label,ax,ay,az
    0,walk,0.1,0.2,9.8
    0,walk,0.2,0.1,9.7
    1,run,...

Wide: one row per example; the columns of a channel are numbered. Without a header the label is the
first column (as in the UCR archive), or the last where only that is text.

    label,ax_0,ax_1,ax_2,ay_0,ay_1,ay_2
    walk,0.1,0.2,...

Recording: one row per sample, a label on every row and no examples yet; a stretch of rows with one
label is a series, from which windows are cut later.

    time,label,ax,ay,az
    0.00,walk,0.1,0.2,9.8
    0.01,walk,0.2,0.1,9.7

The delimiter (comma, semicolon, tab, bar) is found out, and so is a decimal comma where the
delimiter is another character. Empty cells, `?`, `NA` and `NaN` are missing values.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import RawDataset
from .text import is_number, parse_number, read_text

LABEL_COLUMNS = ("label", "class", "target", "activity")
ID_COLUMNS = ("id", "series", "series_id", "example", "example_id", "case", "case_id", "window")
TIME_COLUMNS = ("time", "t", "timestamp", "time_s", "time_ms", "date", "datetime", "sample")
_DELIMITERS = ",;\t|"
_NUMBERED = re.compile(r"^(?P<name>.*?)[ _.\-\[]*(?P<index>\d+)\]?$")
_DECIMAL_COMMA = re.compile(r"^\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*$")


@dataclass
class Table:
    """Cells of a delimited file: rows are (line number, cells); no header: None."""

    name: str
    header: list[str] | None
    rows: list[tuple[int, list[str]]]
    decimal_comma: bool

    def number(self, row: int, column: int) -> float:
        """The number in a cell; DataError names file, line and column."""
        line, cells = self.rows[row]
        try:
            return float(cells[column])
        except ValueError:
            title = self.header[column] if self.header else str(column + 1)
            place = f"{self.name}:{line}, column {title!r}"
            return parse_number(cells[column], place, self.decimal_comma)

    def numbers(self, row: int, columns: list[int]) -> list[float]:
        """The numbers of several columns of a row."""
        return [self.number(row, c) for c in columns]


def read_csv(
    path: Path,
    label: str | None = None,
    example_id: str | None = None,
    recording: bool = False,
    channels: int | None = None,
) -> RawDataset:
    """Reads a labelled table in the long, the wide or the recording form.

    Args:
        path: the file.
        label: name of the label column; by default one of LABEL_COLUMNS.
        example_id: name of the column that numbers the examples; by default one of ID_COLUMNS.
        recording: without examples' numbers, take the table for a recording even if its columns are
            numbered.
        channels: do so where it has that many of them.

    Raises:
        DataError: with file and line.
    """
    table = read_table(path, *(name for name in (label, example_id) if name))
    if table.header is None:
        if label or example_id:
            raise DataError(f"{path.name}: the first line is no header, so no column has a name")
        if recording:
            raise DataError(
                f"{path.name}: the first line is no header; name the columns there, e.g. "
                "label,ax,ay,az"
            )
        return _read_headerless(table)
    label_column = _find_column(table, label, LABEL_COLUMNS)
    if label_column is None:
        wanted = " or ".join(repr(n) for n in LABEL_COLUMNS)
        found = ", ".join(table.header[:8]) + (", ..." if len(table.header) > 8 else "")
        raise DataError(
            f"{path.name}: no label column: expected {wanted}, found {found}; name it with --label"
        )
    id_column = _find_column(table, example_id, ID_COLUMNS)
    if id_column is None:
        others = [c for c in range(len(table.header)) if c != label_column]
        values = [c for c in others if table.header[c].lower() not in TIME_COLUMNS]
        numbered = [c for c in values if _NUMBERED.match(table.header[c])]
        timed = len(values) < len(others)
        if timed or not numbered or recording or channels == len(values):
            return _read_recording(table, label_column, others)
        return _read_wide(table, label_column)
    return _read_long(table, label_column, id_column)


def read_table(path: Path, *names: str) -> Table:
    """Splits a delimited text file into cells of one width; blank lines are skipped.

    Args:
        path: the file.
        names: columns that make the first line a header, beside the usual ones.
    """
    lines = read_text(path).splitlines()
    first = next(line for line in lines if line.strip())
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise DataError(f"{path.name}:{reader.line_num}: {error}") from error
    width = len(rows[0][1])
    if width < 2:
        raise DataError(f"{path.name}:{rows[0][0]}: one column only; expected a label and values")
    for line, cells in rows:
        if len(cells) != width:
            raise DataError(
                f"{path.name}:{line}: {len(cells)} cells, expected {width} as in the first line"
            )
    comma = delimiter != "," and any(
        _DECIMAL_COMMA.match(c) for _, cells in rows[:50] for c in cells
    )
    header = _header(rows[0][1], names)
    if header is None:
        return Table(path.name, None, rows, comma)
    if len(rows) == 1:
        raise DataError(f"{path.name}: a header and no rows")
    return Table(path.name, header, rows[1:], comma)


def _header(cells: list[str], names: tuple[str, ...]) -> list[str] | None:
    """The cells as column names, unless all but at most one (the label) are numbers."""
    known = (*LABEL_COLUMNS, *ID_COLUMNS, *TIME_COLUMNS, *(name.lower() for name in names))
    if any(cell.lower() in known for cell in cells):
        return cells
    words = sum(not is_number(cell.replace(",", ".")) for cell in cells)
    return None if words <= 1 and len(cells) > 2 else cells


def _find_column(table: Table, wanted: str | None, names: tuple[str, ...]) -> int | None:
    header = [name.lower() for name in table.header or []]
    if wanted is not None:
        if wanted.lower() not in header:
            raise DataError(
                f"{table.name}: no column {wanted!r}; found {', '.join(table.header or [])}"
            )
        return header.index(wanted.lower())
    return next((header.index(name) for name in names if name in header), None)


def _read_long(table: Table, label_column: int, id_column: int) -> RawDataset:
    """One row per sample; the rows of an example follow each other."""
    header = table.header or []
    others = [c for c in range(len(header)) if c not in (label_column, id_column)]
    columns, notes = channel_columns(table, others)
    samples: list[list[list[float]]] = []
    ids: dict[str, int] = {}
    labels: list[str] = []
    places: list[str] = []
    previous = None
    for row, (line, cells) in enumerate(table.rows):
        key, label = cells[id_column], _label(table, row, label_column)
        if key != previous:
            if key in ids:
                raise DataError(
                    f"{table.name}:{line}: {header[id_column]} {key!r} began in line "
                    f"{ids[key]} and comes back; "
                    "the rows of one example must follow each other"
                )
            ids[key] = line
            samples.append([])
            labels.append(label)
            places.append(f"{table.name}:{line}")
            previous = key
        if label != labels[-1]:
            raise DataError(
                f"{table.name}:{line}: label {label!r}, but {header[id_column]} {key!r} began "
                f"as {labels[-1]!r}"
            )
        samples[-1].append(table.numbers(row, columns))
    series = [np.array(s, dtype=np.float64) for s in samples]
    names = tuple(header[c] for c in columns)
    return RawDataset(table.name, series, labels, names, places, rows_are_samples=True, notes=notes)


def _read_recording(table: Table, label_column: int, others: list[int]) -> RawDataset:
    """One row per sample and no examples: each stretch of rows with one label is a series."""
    columns, notes = channel_columns(table, others)
    starts = [
        row
        for row in range(len(table.rows))
        if row == 0 or _label(table, row, label_column) != _label(table, row - 1, label_column)
    ]
    values = np.array([table.numbers(row, columns) for row in range(len(table.rows))])
    return RawDataset(
        table.name,
        np.split(values, starts[1:]),
        [_label(table, row, label_column) for row in starts],
        tuple(table.header[c] for c in columns),
        [f"{table.name}:{table.rows[row][0]}" for row in starts],
        rows_are_samples=True,
        notes=notes,
        recording=True,
    )


def channel_columns(table: Table, columns: list[int]) -> tuple[list[int], tuple[str, ...]]:
    """Those of some columns that are not the time, and a note where one is."""
    header = table.header or []
    time = [c for c in columns if header and header[c].lower() in TIME_COLUMNS]
    names = ", ".join(repr(header[c]) for c in time)
    notes = (f"{table.name}: {names} is taken for the time, not for a channel",) if time else ()
    channels = [c for c in columns if c not in time]
    if not channels:
        raise DataError(f"{table.name}: no channel columns")
    return channels, notes


def _read_wide(table: Table, label_column: int) -> RawDataset:
    """One row per example; numbered columns are the samples of a channel."""
    header = table.header or []
    groups: dict[str, list[int]] = {}
    for column, title in enumerate(header):
        if column == label_column:
            continue
        match = _NUMBERED.match(title)
        if match is None:
            raise DataError(
                f"{table.name}: column {title!r} is not numbered and there is no id column; "
                "use one row per sample "
                "with an 'id' column or --window, or one row per example with columns like 'ax_0', "
                "'ax_1', ..."
            )
        groups.setdefault(match["name"] or "value", []).append(column)
    for name, columns in groups.items():
        numbers = [int(_NUMBERED.match(header[c])["index"]) for c in columns]  # type: ignore[index]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise DataError(
                f"{table.name}: the columns of {name!r} are not numbered in one ascending run; "
                "where each row is one sample of a recording, use --window"
            )
    return _rows_as_examples(table, label_column, groups)


def _read_headerless(table: Table) -> RawDataset:
    first = table.rows[0][1]
    label_column = len(first) - 1 if is_number(first[0]) and not is_number(first[-1]) else 0
    columns = [c for c in range(len(first)) if c != label_column]
    return _rows_as_examples(table, label_column, {"value": columns})


def _rows_as_examples(table: Table, label_column: int, groups: dict[str, list[int]]) -> RawDataset:
    """Cells that are missing at the end of all channels shorten an example."""
    sizes = {len(columns) for columns in groups.values()}
    if len(sizes) != 1:
        counts = ", ".join(f"{name!r} {len(columns)}" for name, columns in groups.items())
        raise DataError(f"{table.name}: the channels have unequal numbers of columns: {counts}")
    series, labels, places = [], [], []
    for row, (line, _) in enumerate(table.rows):
        values = np.array([table.numbers(row, columns) for columns in groups.values()]).T
        present = np.flatnonzero(~np.isnan(values).all(axis=1))
        series.append(values[: present[-1] + 1] if present.size else values[:0])
        labels.append(_label(table, row, label_column))
        places.append(f"{table.name}:{line}")
    notes = _doubt(table.name, labels, max(sizes))
    return RawDataset(table.name, series, labels, tuple(groups), places, notes=notes)


def _doubt(name: str, labels: list[str], length: int) -> tuple[str, ...]:
    """A note where short examples in long stretches of one label look like samples."""
    stretches = 1 + sum(a != b for a, b in pairwise(labels))
    if length >= 16 or len(labels) < 20 * stretches:
        return ()
    return (
        f"{name}: taken for a row per example of {length} samples; where each row is one sample of "
        "a recording, use --window",
    )


def _label(table: Table, row: int, column: int) -> str:
    line, cells = table.rows[row]
    if not cells[column]:
        raise DataError(f"{table.name}:{line}: the label is empty")
    return cells[column]
