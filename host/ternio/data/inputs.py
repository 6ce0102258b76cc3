"""What a model expects at its input, and the integers in which windows travel to a board.

A window reaches a board as int16 steps of `input_scale` raw units; the board turns them into what
the network was trained on by one product and one sum (device/FORMAT.md, INPUT). Training uses the
very same integers, so a float32 input here is the board's to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .dataset import Dataset

HEADROOM = 1.5  # of the int16 range over the largest training value
_INT16_MAX = 32767


def quantize_window(x_raw: np.ndarray, input_scale: np.ndarray) -> np.ndarray:
    """round(x / input_scale), saturated to [-32767, 32767].

    Args:
        x_raw: [..., length, channels], raw units.
        input_scale: [channels], raw units per step.

    Returns:
        int16 of the same shape.
    """
    steps = np.rint(np.asarray(x_raw, dtype=np.float64) / np.asarray(input_scale, dtype=np.float64))
    return np.clip(steps, -_INT16_MAX, _INT16_MAX).astype(np.int16)


def to_int8(q16: np.ndarray) -> np.ndarray:
    """The upper byte of an int16 window, rounded: q8 = round(q16 / 256), in [-127, 127]."""
    return np.clip(np.rint(q16 / 256.0), -127, 127).astype(np.int8)


def from_int8(q8: np.ndarray) -> np.ndarray:
    """The int16 window that stands for an int8 one: 256 * q8."""
    return q8.astype(np.int16) * np.int16(256)


@dataclass(frozen=True, eq=False)
class InputDescription:
    """Channels, window and number range of a model's input.

    Attributes:
        channels: names, in order.
        length: samples per window.
        rate_hz: sampling rate, 0 when unknown.
        mean: float32 [channels], of the training set, raw units.
        std: float32 [channels], population deviation; 1 where a channel never changes.
        input_scale: float32 [channels], raw units per int16 step.
    """

    channels: tuple[str, ...]
    length: int
    rate_hz: float
    mean: np.ndarray
    std: np.ndarray
    input_scale: np.ndarray

    @classmethod
    def from_training(cls, data: Dataset) -> InputDescription:
        """Statistics of a training set; the int16 range holds HEADROOM times its largest value."""
        flat = data.x.reshape(-1, data.x.shape[2]).astype(np.float64)
        largest = np.abs(flat).max(axis=0)
        mean, std = flat.mean(axis=0), flat.std(axis=0)
        std[std <= 1e-7 * largest] = 1.0
        scale = np.where(largest > 0, largest, 1.0) * (HEADROOM / _INT16_MAX)
        for name, s in zip(data.channels, scale, strict=True):
            if s < np.finfo(np.float32).tiny:
                raise DataError(
                    f"channel {name}: all values are below {s * _INT16_MAX:.0e}, too small for "
                    "float32; use a larger unit"
                )
        arrays = (a.astype(np.float32) for a in (mean, std, scale))
        return cls(data.channels, data.length, data.rate_hz, *arrays)

    @property
    def gain(self) -> np.ndarray:
        """float32 [channels]: input = gain * integer + shift."""
        return self.input_scale / self.std

    @property
    def shift(self) -> np.ndarray:
        """float32 [channels]: input = gain * integer + shift."""
        return -self.mean / self.std

    def quantize(self, x_raw: np.ndarray) -> np.ndarray:
        """Windows [..., length, channels] in raw units -> int16."""
        x_raw = np.asarray(x_raw)
        if x_raw.shape[-2:] != (self.length, len(self.channels)):
            raise DataError(
                f"windows of shape {list(x_raw.shape)}; expected [..., {self.length}, "
                f"{len(self.channels)}]"
            )
        if not np.isfinite(x_raw).all():
            raise DataError("a window holds NaN or infinite values")
        return quantize_window(x_raw, self.input_scale)

    def normalize(self, q: np.ndarray) -> np.ndarray:
        """int16 windows -> float32 input of the network (mean 0, deviation 1)."""
        return q.astype(np.float32) * self.gain + self.shift

    def remarks(self, data: Dataset) -> list[str]:
        """One line for each kind of channel that will teach a model little."""
        spread = data.x.reshape(-1, len(self.channels)).astype(np.float64).std(axis=0)
        step = self.input_scale
        constant = [n for n, d, s in zip(self.channels, spread, step, strict=True) if d < s / 100]
        coarse = [
            n for n, d, s in zip(self.channels, spread, step, strict=True) if s / 100 <= d < 4 * s
        ]
        lines = []
        if constant:
            lines.append(f"constant in the training data: {', '.join(constant)}")
        if coarse:
            names = ", ".join(coarse)
            lines.append(f"nearly lost in int16 steps, subtract a constant from it first: {names}")
        return lines

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "channels": list(self.channels),
            "length": self.length,
            "rate_hz": self.rate_hz,
            "mean": [float(v) for v in self.mean],
            "std": [float(v) for v in self.std],
            "input_scale": [float(v) for v in self.input_scale],
        }

    @classmethod
    def from_dict(cls, values: dict) -> InputDescription:
        """The reverse of to_dict; DataError when a value is missing or impossible."""
        try:
            channels = tuple(str(name) for name in values["channels"])
            arrays = [np.array(values[k], dtype=np.float32) for k in ("mean", "std", "input_scale")]
            length, rate = int(values["length"]), float(values["rate_hz"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"input description: {error!r}") from error
        if any(a.shape != (len(channels),) or not np.isfinite(a).all() for a in arrays):
            raise DataError(f"input description: expected {len(channels)} finite numbers per entry")
        if (arrays[1] <= 0).any() or (arrays[2] <= 0).any():
            raise DataError("input description: deviations and scales must be above 0")
        if length < 1 or not math.isfinite(rate) or rate < 0:
            raise DataError(f"input description: length {length}, rate {rate}")
        return cls(channels, length, rate, *arrays)
