"""Data files as windows for a model that exists already: its channels, length, labels and integer
steps decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ternio.errors import DataError

if TYPE_CHECKING:
    from ternio.data import RawDataset

PARTS = ("train", "test")
REFERENCE = ("motion", "motion-other-wrist")


class ModelFacts(Protocol):
    """What a model's input and labels are: a BoardInfo or a runtime Model."""

    channels: int
    length: int
    labels: tuple[str, ...]
    input_scale: np.ndarray


@dataclass(frozen=True)
class Examples:
    """Windows int16 [n, length, channels], class indices (-1: unknown), where each came from."""

    windows: np.ndarray
    classes: np.ndarray
    places: list[str]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def labelled(self) -> bool:
        """True when every example has a label."""
        return bool((self.classes >= 0).all())


def load_examples(
    source: str,
    model: ModelFacts,
    channel_names: Callable[[], tuple[str, ...]] = tuple,
    *,
    part: str | None = None,
    usual_part: str = "test",
    gain: str | None = None,
    mirror: str | None = None,
    label: str | None = None,
    example_id: str | None = None,
    layout: str | None = None,
) -> Examples:
    """Reads labelled data (.csv, .npz, .ts, a folder, `motion`) or bare windows (.npy, a .csv with
    one column per channel).

    `part` is "train" or "test"; without it data that have parts give `usual_part`, others all.
    `channel_names` asks what the model's channels are called; columns with names go by them.
    `gain` and `mirror` are a factor per channel as text, e.g. "1,-1,-1": the one of the values,
    the other of their distance from the channel's mean in the training set. Longer series lose
    their end, shorter ones hold their last sample.
    """
    if part is not None and part not in PARTS:
        raise DataError(f"--part {part}: expected train or test")
    gains = parse_factors("--gain", gain, model.channels)
    mirrors = parse_factors("--mirror", mirror, model.channels)
    notes: list[str] = []
    bare = _bare_windows(Path(source), model, channel_names, notes)
    if bare is not None:
        _require_parts(source, part)
        if mirror is not None:
            raise DataError(f"--mirror: {source} has no training set; use labelled data, or --gain")
        series, classes = bare, [-1] * len(bare)
        places = [f"{source}#{i}" for i in range(len(bare))]
        means = np.zeros(model.channels)
    else:
        options = {"label": label, "example_id": example_id, "layout": layout}
        found = _labelled(source, model, channel_names, part, usual_part, options, notes)
        series, classes, places, means = found
    lengths = {len(values) for values in series} - {model.length}
    if lengths:
        found = f"{min(lengths)} to {max(lengths)} samples"
        notes.append(f"{source}: windows of {found} made {model.length} long")
    x = np.stack([_fit(values, model.length) for values in series])
    from ternio.data import quantize_window, scale_about

    if mirror is not None:
        x = scale_about(x, mirrors, means)
    windows = quantize_window(x * gains, model.input_scale)
    return Examples(windows, np.array(classes, np.int32), places, notes)


def parse_factors(option: str, text: str | None, channels: int) -> np.ndarray:
    """`1,-1,0.5` -> factors, one per channel; ones without a text."""
    if text is None:
        return np.ones(channels)
    try:
        factors = np.array([float(word) for word in text.split(",")])
    except ValueError:
        raise DataError(
            f"{option} {text}: expected numbers with commas between, one per channel"
        ) from None
    if not np.isfinite(factors).all():
        raise DataError(f"{option} {text}: expected finite numbers")
    if len(factors) != channels:
        raise DataError(
            f"{option} {text}: {len(factors)} factors, the model has {channels} channels"
        )
    return factors


def _fit(values: np.ndarray, length: int) -> np.ndarray:
    return values[np.minimum(np.arange(length), len(values) - 1)]


def _require_parts(source: str, part: str | None) -> None:
    """Raises DataError where a part was asked for; `source` has none."""
    if part is not None:
        raise DataError(f"--part {part}: {source} has no parts train and test; leave --part out")


def _labelled(
    source: str,
    model: ModelFacts,
    channel_names: Callable[[], tuple[str, ...]],
    part: str | None,
    usual_part: str,
    options: dict[str, str | None],
    notes: list[str],
) -> tuple[list[np.ndarray], list[int], list[str], np.ndarray]:
    """Series, classes, places, and the training set's mean of each channel."""
    from ternio import data

    wanted_part = part or usual_part
    if source in REFERENCE and not Path(source).exists():
        sets = data.basic_motions()
        chosen, means = sets[PARTS.index(wanted_part)], data.channel_means(sets[0].x)
        chosen = data.other_wrist(chosen) if source != "motion" else chosen
        names = [chosen.labels[y] for y in chosen.y]
        series = [x.astype(np.float64) for x in chosen.x]
        places = [f"{source} {wanted_part} #{i}" for i in range(len(series))]
    else:
        train, test = data.read(source, channels=model.channels, **options)
        if test is None:
            _require_parts(source, part)
        wanted = channel_names()
        train = train.aligned(wanted, "the model", notes)
        raw = train
        if test is not None and wanted_part == "test":
            raw = test.aligned(wanted, "the model", notes)
        if raw.recording:
            raw = data.cut(raw, model.length, model.length, notes)
        for i, values in enumerate(raw.series):
            _check_values(raw, i, values, model.channels)
        series, names, places = raw.series, raw.labels, raw.places
        means = data.channel_means(train.series)
    known = list(model.labels)
    for place, name in zip(places, names, strict=True):
        if name not in known:
            raise DataError(
                f"{place}: the model has no class {name!r}; its classes are {', '.join(known)}"
            )
    return series, [known.index(name) for name in names], places, means


def _check_values(raw, i: int, values: np.ndarray, channels: int) -> None:
    if values.ndim != 2 or values.shape[1] != channels:
        raise DataError(f"{raw.source}: {values.shape[-1]} channels, the model has {channels}")
    if not len(values):
        raise DataError(f"{raw.places[i]}: an example without samples")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        what = "missing" if np.isnan(values[tuple(bad[0])]) else "infinite"
        raise DataError(f"{raw.place(i, int(bad[0][0]), int(bad[0][1]))}: {what} value")


def _bare_windows(
    path: Path,
    model: ModelFacts,
    channel_names: Callable[[], tuple[str, ...]],
    notes: list[str],
) -> list[np.ndarray] | None:
    """Windows from a file without labels, or None when it is not one."""
    suffix = path.suffix.lower()
    if suffix == ".npy" and path.is_file():
        try:
            x = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            raise DataError(f"{path.name}: not a .npy file of numbers") from None
    elif suffix in (".csv", ".tsv") and path.is_file():
        raw = _bare_table(path, model.channels)
        if raw is None:
            return None
        x = raw.aligned(channel_names(), "the model", notes).series[0]
        if len(x) > model.length and len(x) % model.length == 0:
            x = x.reshape(-1, model.length, model.channels)
    else:
        return None
    if (
        x.ndim not in (2, 3)
        or x.shape[-1] != model.channels
        or not x.size
        or x.dtype.kind not in "iuf"
    ):
        raise DataError(
            f"{path.name}: numbers of shape {list(x.shape)}; expected [{model.length}, "
            f"{model.channels}] or [examples, {model.length}, {model.channels}]"
        )
    if not np.isfinite(x).all():
        raise DataError(f"{path.name}: missing or infinite values")
    x = x.astype(np.float64)
    return [x] if x.ndim == 2 else list(x)


def _bare_table(path: Path, channels: int) -> RawDataset | None:
    """A table with one row per sample and one column per channel, without a label column."""
    from ternio.data import RawDataset
    from ternio.data.csv_file import ID_COLUMNS, LABEL_COLUMNS, TIME_COLUMNS, read_table

    table = read_table(path)
    width = len(table.rows[0][1])
    header = [name.lower() for name in table.header or []]
    if any(name in (*LABEL_COLUMNS, *ID_COLUMNS) for name in header):
        return None
    columns = [c for c in range(width) if not header or header[c] not in TIME_COLUMNS]
    if len(columns) != channels:
        return None
    values = np.array([table.numbers(row, columns) for row in range(len(table.rows))])
    names = tuple(table.header[c] if table.header else f"ch{c}" for c in columns)
    return RawDataset(path.name, [values], [""], names, [path.name])
