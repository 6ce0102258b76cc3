"""Examples in memory: RawDataset as a file holds them, Dataset as a model is trained on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .channels import match_channels


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

    def line(self, example: int, sample: int) -> str | None:
        """`file:line` of a sample, where samples have lines of their own."""
        file, _, line = self.places[example].rpartition(":")
        return f"{file}:{int(line) + sample}" if self.rows_are_samples and line.isdigit() else None

    def place(self, example: int, sample: int, channel: int) -> str:
        """Text that leads a person to one value."""
        line, name = self.line(example, sample), self.channels[channel]
        if line is not None:
            return f"{line}, channel {name!r}"
        return f"{self.places[example]}, channel {name!r}, sample {sample + 1}"

    def aligned(self, channels: tuple[str, ...], others: str, notes: list[str]) -> RawDataset:
        """The same with its channels in the order of `channels`, the names that `others` has, where
        it has those names; see match_channels()."""
        order, text = match_channels(self.channels, channels, self.source, others)
        notes += [text] if text else []
        if order is None:
            return self
        series = [values[:, order] for values in self.series]
        return replace(self, series=series, channels=tuple(self.channels[i] for i in order))

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
