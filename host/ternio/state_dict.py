"""Values that are to be taken over, checked before anything changes: names, shapes, float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from .errors import ModelError
from .tensor import Tensor

_Tensor = TypeVar("_Tensor", bound=Tensor)


def as_array(name: str, value: object) -> np.ndarray:
    """A value, which may be a list, as an array."""
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ModelError(f"{name}: expected an array of numbers ({error})") from error


def float32(name: str, value: object, shape: tuple[int, ...], kinds: str = "f") -> np.ndarray:
    """A value as float32, or ModelError where its shape, its kind (as in `dtype.kind`) or a number
    of it is not as expected.
    """
    array = as_array(name, value)
    if array.shape != shape:
        raise ModelError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
    if array.dtype.kind in kinds:
        with np.errstate(over="ignore"):  # infinite then
            array = array.astype(np.float32)
        if np.isfinite(array).all():
            return array
    raise ModelError(f"{name}: expected finite floating-point values of float32")


def matched(
    named: Iterable[tuple[str, _Tensor]], state: Mapping[str, np.ndarray], owner: str
) -> list[tuple[_Tensor, np.ndarray]]:
    """Tensors with the values that a state has for them.

    Args:
        named: tensors by name; one that is shared under each of its names.
        state: values by name, of a shared tensor under one or more of its names.
        owner: what the state is for, in messages.

    Raises:
        ModelError: a tensor without a value, a value without a tensor, values of a shared tensor
            that differ, or one that is not fit for float32.
    """
    names: dict[int, list[str]] = {}
    tensors: dict[int, _Tensor] = {}
    for name, tensor in named:
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    given = {key: [name for name in known if name in state] for key, known in names.items()}
    known = {name for several in names.values() for name in several}
    wrong = {
        "missing": [names[key][0] for key, found in given.items() if not found],
        "not in the model": [name for name in state if name not in known],
    }
    parts = [
        f"{what}: {', '.join(which[:4])}{', ...' if len(which) > 4 else ''}"
        for what, which in wrong.items()
        if which
    ]
    if parts:
        raise ModelError(f"state_dict does not fit {owner}; {'; '.join(parts)}")
    pairs = []
    for key, (first, *others) in given.items():
        tensor = tensors[key]
        value = float32(first, state[first], tensor.shape)
        for other in others:
            if not np.array_equal(float32(other, state[other], tensor.shape), value):
                raise ModelError(f"{first} and {other} are one parameter here; their values differ")
        pairs.append((tensor, value))
    return pairs
