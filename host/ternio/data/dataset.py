"""Examples in memory: RawDataset as a file holds them, Dataset as a model is trained on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass
class RawDataset:
    """Labelled series as read: lengths may differ, NaN stands for a missing value.

    Attributes:
        source: the file or folder, for messages.
        series: one float64 array [length, channels] per example.
        labels: one text per example.
        channels: channel names.
        places: where each example starts, e.g. ``data.csv:12``.
        rows_are_samples: consecutive lines of the file are consecutive samples of an example.
        classes: order of the labels where the file declares one.
        rate_hz: sampling rate, 0 when unknown.
        notes: lines for a person about how the file was read.
        recording: the series are stretches of one label in a recording, not examples yet.
        spans: of windows cut from series: the series of each and its first sample.
    """

    source: str
    series: list[np.ndarray]
    labels: list[str]
    channels: tuple[str, ...]
    places: list[str]
    rows_are_samples: bool = False
    classes: tuple[str, ...] | None = None
    rate_hz: float = 0.0
    notes: tuple[str, ...] = ()
    recording: bool = False
    spans: list[tuple[int, int]] | None = None

    def __len__(self) -> int:
        return len(self.series)

    def place(self, example: int, sample: int, channel: int) -> str:
        """Text that leads a person to one value."""
        place, name = self.places[example], self.channels[channel]
        file, _, line = place.rpartition(":")
        if self.rows_are_samples and line.isdigit():
            return f"{file}:{int(line) + sample}, channel {name!r}"
        return f"{place}, channel {name!r}, sample {sample + 1}"

    def select(self, indices: list[int]) -> RawDataset:
        """The examples at `indices`, in that order."""
        return replace(
            self,
            series=[self.series[i] for i in indices],
            labels=[self.labels[i] for i in indices],
            places=[self.places[i] for i in indices],
            spans=[self.spans[i] for i in indices] if self.spans is not None else None,
        )


@dataclass(frozen=True)
class Dataset:
    """Windows of one length with class indices.

    Attributes:
        x: float32 [examples, length, channels], in raw units.
        y: int32 [examples], indices into `labels`.
        labels: class names.
        channels: channel names.
        rate_hz: sampling rate, 0 when unknown.
        name: what to call the data in a report.
    """

    x: np.ndarray
    y: np.ndarray
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    rate_hz: float = 0.0
    name: str = ""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def length(self) -> int:
        """Samples per window."""
        return self.x.shape[1]
