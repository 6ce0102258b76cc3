"""One door to all readers: a path or the name of the reference data -> training and test set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .csv_file import channel_columns, read_csv, read_table
from .dataset import Dataset, RawDataset
from .npz_file import read_npz
from .prepare import Prepared, prepare
from .ts_file import read_ts

REFERENCE = "motion"
PARTS = ("train", "test")
_SUFFIXES = (".csv", ".tsv", ".txt", ".npz", ".ts")
_OTHER_WRIST = np.array([1, -1, -1, 1, -1, -1], dtype=np.float32)


def basic_motions() -> tuple[Dataset, Dataset]:
    """BasicMotions (UEA archive): a smart watch's accelerometer and gyroscope, four activities.

    Returns:
        training and test set, 40 windows each of 100 samples (10 Hz) x 6 channels.
    """
    with np.load(Path(__file__).with_name("basic_motions.npz"), allow_pickle=False) as file:
        labels, channels = (tuple(str(v) for v in file[k]) for k in ("labels", "channels"))
        rate = float(file["rate_hz"])
        return tuple(  # type: ignore[return-value]
            Dataset(
                (file[f"x_{part}_micro"] / 1e6).astype(np.float32),
                file[f"y_{part}"].astype(np.int32),
                labels,
                channels,
                rate,
                "BasicMotions",
            )
            for part in PARTS
        )


def other_wrist(data: Dataset) -> Dataset:
    """BasicMotions as if the watch sat on the other wrist: y and z of both sensors are mirrored.

    They are mirrored about their means in the training set, which is to say that the standardised
    channels are multiplied by (1, -1, -1, 1, -1, -1). (Mirrored about 0, raw windows of someone
    who stands still would hardly change, and a model would keep about 0.7 of its accuracy.)
    """
    if data.x.shape[2] != len(_OTHER_WRIST):
        raise DataError(f"the other wrist has 6 channels, these data have {data.x.shape[2]}")
    mirrored = scale_about(data.x, _OTHER_WRIST, channel_means(basic_motions()[0].x))
    return replace(data, x=mirrored.astype(np.float32), name=f"{data.name}, other wrist")


def channel_means(series: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of each channel over all samples of series [length, channels]; NaN does not count."""
    return np.nanmean(np.concatenate(list(series)), axis=0, dtype=np.float64)


def scale_about(x: np.ndarray, factors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """centre + factors * (x - centre), float64; a factor of -1 mirrors a channel about its centre.

    x [..., channels], factors and centre [channels]
    """
    return centre + factors * (x.astype(np.float64) - centre)


def read(
    path: str | Path,
    *,
    label: str | None = None,
    example_id: str | None = None,
    layout: str | None = None,
    recording: bool = False,
    channels: int | None = None,
) -> tuple[RawDataset, RawDataset | None]:
    """Reads a file, or a folder that holds a training and a test file, or one folder per class.

    Args:
        path: .csv, .tsv, .txt, .npz, .ts, or a folder.
        label, example_id: column names for tables.
        layout: "nlc" or "ncl" for .npz.
        recording, channels: see read_csv().

    Returns:
        training series, and test series where the file or folder holds some.
    """
    path = Path(path)
    if path.is_dir():
        options = {"label": label, "example_id": example_id, "layout": layout}
        return _read_folder(path, recording=recording, channels=channels, **options)
    if not path.exists():
        raise DataError(f"{path}: no such file (the reference data set is called {REFERENCE!r})")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, layout)
    if suffix == ".ts":
        return read_ts(path), None
    if suffix in _SUFFIXES:
        return read_csv(path, label, example_id, recording, channels), None
    raise DataError(f"{path.name}: unknown kind of file; expected one of {', '.join(_SUFFIXES)}")


def load(
    source: str | Path,
    test: str | Path | None = None,
    *,
    label: str | None = None,
    example_id: str | None = None,
    layout: str | None = None,
    length: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    nan: str = "refuse",
    test_fraction: float = 0.25,
    seed: int = 0,
    rate_hz: float | None = None,
) -> Prepared:
    """Training and test set of a file, a folder or the reference data (`motion`).

    Args:
        source: what to train on.
        test: a file to test on; by default the one that belongs to `source`, else a part of it.
        rate_hz: sampling rate, where the file does not say it.
        label, example_id, layout: see read().
        length, window, stride, nan, test_fraction, seed: see prepare().
    """
    options: dict[str, Any] = {"label": label, "example_id": example_id, "layout": layout}
    options["recording"] = window is not None
    if str(source) == REFERENCE and not Path(source).exists():
        train, own_test = (_as_read(d, p) for d, p in zip(basic_motions(), PARTS, strict=True))
    else:
        train, own_test = read(source, **options)
    held_out = read(test, **options)[0] if test is not None else own_test
    sets = prepare(
        train,
        held_out,
        length=length,
        window=window,
        stride=stride,
        nan=nan,
        test_fraction=test_fraction,
        seed=seed,
    )
    if rate_hz is not None:
        if not 0 <= rate_hz < float("inf"):
            raise DataError(f"--rate {rate_hz:g}: expected a rate in Hz")
        sets.train, sets.test = (replace(d, rate_hz=rate_hz) for d in (sets.train, sets.test))
    return sets


def _as_read(data: Dataset, part: str) -> RawDataset:
    """The reference data as if they came from a file."""
    labels = [data.labels[y] for y in data.y]
    places = [f"{data.name}, {part} example {i + 1}" for i in range(len(data))]
    series = list(data.x.astype(np.float64))
    return RawDataset(
        data.name, series, labels, data.channels, places, classes=data.labels, rate_hz=data.rate_hz
    )


def _read_folder(folder: Path, **options: Any) -> tuple[RawDataset, RawDataset | None]:
    folder = folder.resolve()  # `.` has no name
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    parts = {}
    for part in PARTS:
        found = [p for p in files if p.stem.lower().endswith(part)]
        if len(found) > 1:
            raise DataError(
                f"{folder.name}: several {part} files: {', '.join(p.name for p in found)}"
            )
        parts[part] = found[0] if found else None
    if parts["train"]:
        test = read(parts["test"], **options)[0] if parts["test"] else None
        return read(parts["train"], **options)[0], test
    if len(files) == 1:
        return read(files[0], **options)
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if classes and not files:
        return _read_class_folders(folder, classes), None
    raise DataError(
        f"{folder.name}: expected one data file, files named ...train and ...test, or one "
        "folder of "
        f".csv files per class; found {len(files)} data files"
    )


def _read_class_folders(folder: Path, classes: list[Path]) -> RawDataset:
    """One folder per class, in it one table per example: a row per sample, a column per channel."""
    series, labels, places = [], [], []
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    for path in (p for c in classes for p in sorted(c.glob("*.csv"))):
        table = read_table(path)
        columns, found = channel_columns(table, list(range(len(table.rows[0][1]))))
        notes = notes or found
        names = tuple(table.header[c] if table.header else f"ch{c}" for c in columns)
        channels = channels or names
        if names != channels:
            raise DataError(
                f"{path.name}: columns {', '.join(names)}; the first file has {', '.join(channels)}"
            )
        series.append(np.array([table.numbers(r, columns) for r in range(len(table.rows))]))
        labels.append(path.parent.name)
        places.append(f"{path.parent.name}/{path.name}:{table.rows[0][0]}")
    if not series:
        raise DataError(f"{folder.name}: the class folders hold no .csv files")
    return RawDataset(
        folder.name, series, labels, channels, places, rows_are_samples=True, notes=notes
    )
