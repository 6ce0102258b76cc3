"""From what files hold to what a model is trained on: missing values, lengths, labels, the split.

Whatever cannot be used raises DataError with the place in the file; whatever was decided on the way
is returned as notes for the person who asked.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError
from .dataset import Dataset, RawDataset
from .windows import cut, split_in_time

NAN_POLICIES = ("refuse", "interpolate", "drop")
_LARGEST = 1e18  # the square still fits float32


@dataclass
class Prepared:
    """Training and test set, and one line for each decision that was taken."""

    train: Dataset
    test: Dataset
    notes: list[str] = field(default_factory=list)


def prepare(
    train: RawDataset,
    test: RawDataset | None = None,
    *,
    length: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    nan: str = "refuse",
    test_fraction: float = 0.25,
    seed: int = 0,
) -> Prepared:
    """Makes windows of one length with class indices.

    Args:
        train: labelled series.
        test: labelled series to test on; without them a stratified part of `train` is set aside.
        length: samples per window; longer series lose their end, shorter ones repeat their last
            sample. Needed only where lengths differ.
        window, stride: cut the series into windows of `window` samples, one every `stride` (half a
            window by default); the test is then split off in time (windows.py).
        nan: what to do with missing values: "refuse", "interpolate" (linearly over time, the ends
            are held) or "drop" (the whole example).
        test_fraction: part of each class that is set aside when there is no test set.
        seed: of the split.

    Raises:
        DataError: with the place in the file and what to do.
    """
    if nan not in NAN_POLICIES:
        raise DataError(f"--nan {nan}: expected one of {', '.join(NAN_POLICIES)}")
    if length is not None and length < 1:
        raise DataError(f"--length {length}: expected at least 1")
    _check_windowing(window, stride, length)
    notes = list(dict.fromkeys((*train.notes, *(test.notes if test else ()))))
    stride = stride or max(1, (window or 0) // 2)
    train = _fill_missing(_cut(train, window, stride, notes), nan, notes)
    classes = _class_names(train, notes)
    if test is None and window is not None:
        _check_fraction(test_fraction)
        train, test = split_in_time(train, classes, test_fraction, window)
        notes.append(f"the last {len(test)} windows in time set aside, {len(train)} to train on")
    elif test is None:
        train, test = _split(train, classes, test_fraction, seed)
        notes.append(
            f"{len(test)} of {len(train) + len(test)} examples set aside for the test (seed {seed})"
        )
    else:
        test = test.aligned(train.channels, train.source, notes)
        test = _fill_missing(_cut(test, window, window or 0, notes), nan, notes)
        _check_test(train, test, classes, notes)
    length = _common_length([train, test], length, notes)
    return Prepared(_windows(train, classes, length), _windows(test, classes, length), notes)


def _check_windowing(window: int | None, stride: int | None, length: int | None) -> None:
    if window is None and stride is not None:
        raise DataError(f"--stride {stride}: only with --window")
    if window is not None and length is not None:
        raise DataError("--window cuts recordings into windows, --length makes examples equal: one")
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and value < 1:
            raise DataError(f"--{name} {value}: expected at least 1")


def _cut(raw: RawDataset, window: int | None, stride: int, notes: list[str]) -> RawDataset:
    if window is not None:
        return cut(raw, window, stride, notes)
    if raw.recording:
        raise DataError(
            f"{raw.source}: a label on every row and no column that numbers the examples: cut it "
            "into windows with --window SAMPLES, or add an 'id' column"
        )
    return raw


def _fill_missing(raw: RawDataset, policy: str, notes: list[str]) -> RawDataset:
    """Applies the policy for NaN; infinite and absurdly large values are always refused."""
    if not len(raw):
        raise DataError(f"{raw.source}: no examples")
    bad: list[int] = []
    for i, values in enumerate(raw.series):
        if not len(values):
            raise DataError(f"{raw.places[i]}: an example without a single value")
        wild = np.argwhere(np.abs(values) > _LARGEST)
        if len(wild):
            t, c = wild[0]
            raise DataError(
                f"{raw.place(i, t, c)}: {values[t, c]:g} is infinite or above {_LARGEST:g}"
            )
        if np.isnan(values).any():
            bad.append(i)
    if not bad:
        return raw
    if policy == "refuse":
        t, c = np.argwhere(np.isnan(raw.series[bad[0]]))[0]
        raise DataError(
            f"{raw.place(bad[0], t, c)}: missing value (in {len(bad)} of {len(raw)} examples); "
            "use --nan interpolate or --nan drop"
        )
    if policy == "drop":
        gone = set(bad)
        if len(gone) == len(raw):
            raise DataError(
                f"{raw.source}: every example has missing values; use --nan interpolate"
            )
        notes.append(f"{raw.source}: dropped {len(bad)} of {len(raw)} examples for missing values")
        return raw.select([i for i in range(len(raw)) if i not in gone])
    filled = raw.select(list(range(len(raw))))
    for i in bad:
        filled.series[i] = _interpolate(raw, i)
    notes.append(f"{raw.source}: interpolated missing values in {len(bad)} of {len(raw)} examples")
    return filled


def _interpolate(raw: RawDataset, i: int) -> np.ndarray:
    values = raw.series[i].copy()
    time = np.arange(len(values))
    for c in range(values.shape[1]):
        known = ~np.isnan(values[:, c])
        if not known.any():
            raise DataError(
                f"{raw.place(i, 0, c)}: the whole channel is missing, nothing to interpolate; "
                "use --nan drop"
            )
        values[:, c] = np.interp(time, time[known], values[known, c])
    return values


def _class_names(train: RawDataset, notes: list[str]) -> tuple[str, ...]:
    """Labels in the declared order, or sorted (whole numbers by value)."""
    seen = set(train.labels)
    if train.classes is not None:
        absent = [name for name in train.classes if name not in seen]
        if absent:
            notes.append(
                f"{train.source}: declared but without an example, left out: {', '.join(absent)}"
            )
        names = tuple(name for name in dict.fromkeys(train.classes) if name in seen)
    else:
        numeric = all(name.lstrip("+-").isdigit() for name in seen)
        names = tuple(sorted(seen, key=int) if numeric else sorted(seen))
    for name in names:
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            raise DataError(
                f"{train.source}: the label {name!r} holds a control character, which no console "
                "can show; rename it"
            )
    if len(names) < 2:
        raise DataError(
            f"{train.source}: every example has the label {names[0]!r}; a classifier needs two"
        )
    if len(names) == len(train):
        raise DataError(
            f"{train.source}: {len(train)} examples and as many different labels; "
            "is the label column an id or a measurement?"
        )
    return names


def _split(
    raw: RawDataset, classes: tuple[str, ...], fraction: float, seed: int
) -> tuple[RawDataset, RawDataset]:
    """Sets aside `fraction` of each class, at least one example of it."""
    _check_fraction(fraction)
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    for name in classes:
        members = np.array([i for i, label in enumerate(raw.labels) if label == name])
        if len(members) < 2:
            raise DataError(
                f"{raw.source}: class {name!r} has one example, too few to set one aside; "
                "give --test FILE"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen.update(int(i) for i in rng.permutation(members)[:count])
    everyone = range(len(raw))
    return raw.select([i for i in everyone if i not in chosen]), raw.select(sorted(chosen))


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise DataError(f"--test-fraction {fraction:g}: expected a number between 0 and 1")


def _check_test(
    train: RawDataset, test: RawDataset, classes: tuple[str, ...], notes: list[str]
) -> None:
    if len(test.channels) != len(train.channels):
        raise DataError(
            f"{test.source}: {len(test.channels)} channels, the training data has "
            f"{len(train.channels)}"
        )
    for place, label in zip(test.places, test.labels, strict=True):
        if label not in classes:
            raise DataError(
                f"{place}: label {label!r} does not occur in the training data "
                f"({', '.join(classes)})"
            )
    absent = [name for name in classes if name not in set(test.labels)]
    if absent:
        notes.append(f"{test.source}: no test example of {', '.join(absent)}")


def _common_length(parts: list[RawDataset], length: int | None, notes: list[str]) -> int:
    lengths = np.array([len(values) for raw in parts for values in raw.series])
    shortest, longest = int(lengths.min()), int(lengths.max())
    if length is None:
        if shortest != longest:
            raise DataError(
                f"{parts[0].source}: examples have {shortest} to {longest} samples; choose "
                "one length with "
                f"--length, e.g. --length {int(np.median(lengths))} (longer ones are cut, "
                "shorter ones hold "
                "their last value)"
            )
        return shortest
    cut, held = int((lengths > length).sum()), int((lengths < length).sum())
    if cut or held:
        notes.append(f"windows of {length} samples: {cut} examples cut, {held} filled up")
    return length


def _windows(raw: RawDataset, classes: tuple[str, ...], length: int) -> Dataset:
    x = np.empty((len(raw), length, len(raw.channels)), dtype=np.float32)
    for window, values in zip(x, raw.series, strict=True):
        count = min(length, len(values))
        window[:count] = values[:count]
        window[count:] = values[count - 1]
    y = np.array([classes.index(label) for label in raw.labels], dtype=np.int32)
    return Dataset(x, y, classes, raw.channels, raw.rate_hz, raw.source)
