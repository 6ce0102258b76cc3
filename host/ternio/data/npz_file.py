"""Reader of .npz files: arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`.

x is [examples, length, channels] (or [examples, channels, length], said by layout "ncl", in the
file as the entry `layout` or by the caller) or [examples, length] for one channel; y holds labels,
text or whole numbers. Optional: `channels` (names), `labels` (names that numbers in y index),
`rate_hz`.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import RawDataset

LAYOUTS = ("nlc", "ncl")


def read_npz(path: Path, layout: str | None = None) -> tuple[RawDataset, RawDataset | None]:
    """Reads a file of arrays; the second result is its test set where it holds one.

    Raises:
        DataError: the file is damaged, holds Python objects, or lacks arrays that fit.
    """
    arrays = _load(path)
    layout = layout or str(arrays.get("layout", "nlc"))
    if layout not in LAYOUTS:
        raise DataError(f"{path.name}: layout {layout!r}; expected 'nlc' or 'ncl'")
    if "x_train" in arrays:
        train = _examples(path, arrays, "x_train", "y_train", layout)
        has_test = "x_test" in arrays
        return train, _examples(path, arrays, "x_test", "y_test", layout) if has_test else None
    return _examples(path, arrays, "x", "y", layout), None


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if not magic:
            raise DataError(f"{path.name}: the file is empty")
        if magic != b"PK\x03\x04":
            raise DataError(f"{path.name}: not an .npz file; save arrays x and y with numpy.savez")
        with np.load(path, allow_pickle=False) as archive:
            return {name.lower(): archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        what = "holds Python objects" if "pickle" in str(error) else "is damaged"
        raise DataError(
            f"{path.name}: the file {what}; save plain arrays with numpy.savez"
        ) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        MemoryError,
        NotImplementedError,
    ) as error:
        raise DataError(f"{path.name}: the file is damaged ({error})") from error


def _examples(
    path: Path, arrays: dict[str, np.ndarray], xname: str, yname: str, layout: str
) -> RawDataset:
    for name in (xname, yname):
        if name not in arrays:
            found = ", ".join(arrays) or "nothing"
            raise DataError(f"{path.name}: no array {name!r}; found {found}")
    x, y = arrays[xname], arrays[yname].reshape(-1)
    if x.dtype.kind not in "fiub":
        raise DataError(f"{path.name}: {xname} has type {x.dtype}; expected numbers")
    if x.ndim == 2:
        x = x[:, :, None]
    elif x.ndim == 3 and layout == "ncl":
        x = x.transpose(0, 2, 1)
    if x.ndim != 3 or 0 in x.shape:
        raise DataError(
            f"{path.name}: {xname} has shape {list(arrays[xname].shape)}; expected [examples, "
            "length, channels]"
        )
    if len(y) != len(x):
        raise DataError(f"{path.name}: {len(x)} examples in {xname} and {len(y)} labels in {yname}")
    if y.dtype.kind == "f" and not np.array_equal(y, np.rint(y)):
        raise DataError(f"{path.name}: {yname} holds fractions; expected class labels")
    names = _names(path, arrays, x.shape[2])
    labels, classes = _labels(path, arrays, y, yname)
    rate = float(arrays["rate_hz"]) if arrays.get("rate_hz", np.zeros(2)).size == 1 else 0.0
    places = [f"{path.name}, {xname}[{i}]" for i in range(len(x))]
    series = list(x.astype(np.float64))
    return RawDataset(path.name, series, labels, names, places, classes=classes, rate_hz=rate)


def _names(path: Path, arrays: dict[str, np.ndarray], channels: int) -> tuple[str, ...]:
    if "channels" not in arrays:
        return tuple(f"ch{c}" for c in range(channels))
    names = tuple(str(name) for name in arrays["channels"].reshape(-1))
    if len(names) != channels:
        raise DataError(
            f"{path.name}: {len(names)} channel names for {channels} channels; is layout "
            "'ncl' meant?"
        )
    return names


def _labels(
    path: Path, arrays: dict[str, np.ndarray], y: np.ndarray, yname: str
) -> tuple[list[str], tuple[str, ...] | None]:
    if y.dtype.kind in "fiub":
        y = y.astype(np.int64)
        if "labels" in arrays:
            classes = tuple(str(name) for name in arrays["labels"].reshape(-1))
            if y.size and (y.min() < 0 or y.max() >= len(classes)):
                raise DataError(
                    f"{path.name}: {yname} reaches {y.max()}, labels has {len(classes)} names"
                )
            return [classes[i] for i in y], classes
    return [str(label) for label in y], None
