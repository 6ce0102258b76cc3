"""x[i], x[a:b], x[..., i]: what Tensor.__getitem__ takes, as views by the engine's slices."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np

from .errors import ModelError

if TYPE_CHECKING:
    from .tensor import Tensor


def index(x: Tensor, key: object) -> Tensor:
    """A view of part of x.

    Args:
        x: a tensor.
        key: integers, slices without a step and one `...`, alone or in a tuple.

    Raises:
        IndexError: out of range, or more of them than dimensions.
        ModelError: other kinds of indices.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    dots = [at for at, part in enumerate(keys) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can have one ... only")
    for at in dots:
        keys[at : at + 1] = [slice(None)] * (x.ndim - len(keys) + 1)
    if len(keys) > x.ndim:
        raise IndexError(f"{len(keys)} indices for a tensor of shape {list(x.shape)}")
    dim = 0
    for part in keys:
        size = x.shape[dim]
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step != 1:
                raise ModelError(f"index: a step of {step}; slices of tensors have none")
            if (start, stop) != (0, size):
                x = x.narrow(dim, start, max(0, stop - start))
            dim += 1
        else:
            place = _place(part, size, dim, x.shape)
            x = x.narrow(dim, place, 1).reshape(x.shape[:dim] + x.shape[dim + 1 :])
    return x


def _place(part: object, size: int, dim: int, shape: tuple[int, ...]) -> int:
    """An integer index, counted from the end where it is negative."""
    try:
        if isinstance(part, (bool, np.bool_)):
            raise TypeError("a mask, not a place")
        place = operator.index(part)
    except TypeError:
        raise ModelError(
            f"index: expected an integer, a slice or ..., got {type(part).__name__}"
        ) from None
    if not -size <= place < size:
        raise IndexError(f"index {place} is not in dimension {dim} of {list(shape)}")
    return place % size
