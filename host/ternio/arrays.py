"""Arrays on their way to the engine and back: numbers of its kinds, and views of its memory."""

from __future__ import annotations

import numpy as np

from ._engine import ffi
from .errors import ModelError


class Memory:
    """Describes memory to NumPy and holds the reference that keeps it there."""

    def __init__(
        self,
        pointer: object,
        shape: tuple[int, ...],
        dtype: str,
        owner: object,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        address = int(ffi.cast("uintptr_t", pointer))
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype,
            "data": (address, False),
            "strides": strides,
        }


def as_numbers(data: object) -> np.ndarray:
    """Numbers as float32 or int32; ModelError for what holds neither."""
    try:
        array = np.asarray(data)
    except (TypeError, ValueError) as error:
        raise ModelError(f"Tensor: not an array of numbers ({error})") from error
    if array.dtype.kind in "iu":
        limits = np.iinfo(np.int32)
        if not array.size or (limits.min <= array.min() and array.max() <= limits.max):
            return array.astype(np.int32)
    if array.dtype.kind in "fb":
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
        if not np.array_equal(np.isinf(values), np.isinf(array)):
            raise ModelError("Tensor: values beyond the range of float32")
        return values
    raise ModelError(f"Tensor: expected float or 32-bit int values, got {array.dtype}")
