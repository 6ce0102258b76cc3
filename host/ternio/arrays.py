"""Arrays on their way to the engine and back: numbers of its kinds, and views of its memory."""

from __future__ import annotations

import itertools

import numpy as np

from ._engine import ffi, lib
from .errors import ModelError

# NumPy arrays lent to the engine, until it hands them back.
_lent: dict[int, tuple[object, np.ndarray]] = {}
_lendings = itertools.count()


@ffi.def_extern(name="te_py_release")
def _release_lent(owner: object) -> None:
    _lent.pop(ffi.from_handle(owner), None)


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


def lend(context: object, array: np.ndarray) -> object:
    """The engine's tensor over the memory of an array of any strides; NULL where it fails."""
    if not isinstance(array, np.ndarray):
        raise ModelError(f"from_numpy: expected a NumPy array, got {type(array).__name__}")
    kinds = {"float32": lib.TE_DTYPE_FLOAT, "int32": lib.TE_DTYPE_INT32}
    kind = kinds.get(str(array.dtype))
    if kind is None or not array.flags.writeable or not array.flags.aligned:
        raise ModelError(
            f"from_numpy: expected a writable, aligned float32 or int32 array, got "
            f"{array.dtype}; copy it with Tensor(array)"
        )
    key = next(_lendings)
    handle = ffi.new_handle(key)
    _lent[key] = (handle, array)
    data = ffi.cast("void *", array.ctypes.data)
    shape, strides = list(array.shape), [step // array.itemsize for step in array.strides]
    tensor = lib.te_from_strided(
        context, kind, array.ndim, shape, strides, data, lib.te_py_release, handle
    )
    if tensor == ffi.NULL:
        del _lent[key]
    return tensor
