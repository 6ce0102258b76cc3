"""Reader of .ts files, the text format of the UEA/UCR archive (aeon, sktime)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import RawDataset
from .text import parse_number, read_text


def read_ts(path: Path) -> RawDataset:
    """Reads a classification problem; channels are separated by `:` and the label comes last.

    Raises:
        DataError: with file and line, for anything that is not a labelled series.
    """
    lines = enumerate(read_text(path).splitlines(), start=1)
    header = _read_header(path, lines)
    channels: int | None = header.channels
    series, labels, places = [], [], []
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        place = f"{path.name}:{number}"
        values, label = _parse_example(place, line)
        channels = channels or values.shape[1]
        _check_example(place, values, label, channels, header)
        series.append(values)
        labels.append(label)
        places.append(place)
    if not series:
        raise DataError(f"{path.name}: no examples after @data")
    names = tuple(f"ch{c}" for c in range(channels or 1))
    return RawDataset(path.name, series, labels, names, places, classes=header.classes)


@dataclass
class _Header:
    channels: int | None = None
    length: int | None = None
    classes: tuple[str, ...] | None = None


def _read_header(path: Path, lines: Iterator[tuple[int, str]]) -> _Header:
    """Reads up to and including @data."""
    header, labelled = _Header(), False
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        place = f"{path.name}:{number}"
        if not line.startswith("@"):
            raise DataError(
                f"{place}: expected a line starting with @ before @data, got {line[:40]!r}"
            )
        key, *words = line[1:].split() or [""]
        key = key.lower()
        if key == "data":
            if not labelled:
                raise DataError(
                    f"{path.name}: no '@classLabel true ...' line: not a labelled problem"
                )
            return header
        if key == "classlabel" and words and words[0].lower() == "true":
            labelled, header.classes = True, tuple(words[1:]) or None
        elif key == "timestamps" and words and words[0].lower() == "true":
            raise DataError(f"{place}: series with time stamps are not read; resample them evenly")
        elif key == "targetlabel" and words and words[0].lower() == "true":
            raise DataError(f"{place}: a regression target; only class labels are supported")
        elif key == "univariate" and words and words[0].lower() == "true":
            header.channels = 1
        elif key == "dimensions" or key == "dimension":
            header.channels = _positive(place, key, words)
        elif key == "serieslength":
            header.length = _positive(place, key, words)
    raise DataError(f"{path.name}: no @data line: not a .ts file, or an empty one")


def _positive(place: str, key: str, words: list[str]) -> int:
    if not words or not words[0].isdigit() or int(words[0]) == 0:
        raise DataError(f"{place}: @{key} needs a positive number, got {' '.join(words)!r}")
    return int(words[0])


def _parse_example(place: str, line: str) -> tuple[np.ndarray, str]:
    """One line -> values [length, channels], label."""
    *fields, label = line.split(":")
    if not fields:
        raise DataError(f"{place}: expected values, a colon and a label, got {line[:40]!r}")
    if "(" in fields[0]:
        raise DataError(f"{place}: series with time stamps are not read; resample them evenly")
    columns = []
    for c, field in enumerate(fields):
        cells = field.split(",")
        try:
            columns.append([float(cell) for cell in cells])
        except ValueError:
            columns.append(
                [
                    parse_number(v, f"{place}, channel {c + 1}, sample {t + 1}")
                    for t, v in enumerate(cells)
                ]
            )
        if len(columns[c]) != len(columns[0]):
            raise DataError(
                f"{place}: channel {c + 1} has {len(columns[c])} samples, channel 1 has "
                f"{len(columns[0])}"
            )
    return np.array(columns, dtype=np.float64).T, label.strip()


def _check_example(
    place: str, values: np.ndarray, label: str, channels: int, header: _Header
) -> None:
    if values.shape[1] != channels:
        raise DataError(f"{place}: {values.shape[1]} channels, expected {channels}")
    if header.length is not None and len(values) != header.length:
        raise DataError(f"{place}: {len(values)} samples, @seriesLength says {header.length}")
    if not label:
        raise DataError(f"{place}: the label after the last colon is empty")
    if header.classes is not None and label not in header.classes:
        raise DataError(
            f"{place}: label {label!r} is not among @classLabel {' '.join(header.classes)}"
        )
