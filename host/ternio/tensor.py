"""Tensor: a NumPy-friendly handle on a tensor of the C engine.

A handle owns one reference of the engine's count, and so does every NumPy view that is taken of it;
memory goes with the context's next call after the last of them, whatever became of the tape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ._engine import ffi, lib
from .arrays import Memory, as_numbers, lend
from .context import Context, current_context, manual_seed, no_grad, set_num_threads
from .errors import ModelError
from .indexing import index

__all__ = [
    "Context",
    "Tensor",
    "current_context",
    "manual_seed",
    "no_grad",
    "set_num_threads",
]


class Tensor:
    """An array of float32 or int32 with reverse-mode differentiation.

    Args:
        data: numbers, nested sequences or an array; copied. Integers become int32.
        requires_grad: whether backward() computes its gradient.
        context: where it lives; by default the current context.

    Example:
        >>> x = Tensor([[1.0, 2.0]], requires_grad=True)
        >>> (x * x).mean().backward()
        >>> x.grad
        array([[1., 2.]], dtype=float32)
    """

    __slots__ = ("__weakref__", "context", "pointer")
    __array_ufunc__ = None  # array * Tensor asks the Tensor

    def __init__(
        self, data: object, requires_grad: bool = False, context: Context | None = None
    ) -> None:
        array = as_numbers(data)
        self.context = context or current_context()
        dtype = lib.TE_DTYPE_INT32 if array.dtype == np.int32 else lib.TE_DTYPE_FLOAT
        pointer = lib.te_zeros(self.context.pointer, dtype, array.ndim, list(array.shape))
        self._adopt(pointer)
        self.numpy()[...] = array
        if requires_grad:
            self.requires_grad = True

    @classmethod
    def wrap(cls, pointer: object, context: Context) -> Tensor:
        """A handle that takes over one reference; raises the engine's error when NULL."""
        self = object.__new__(cls)
        self.context = context
        self._adopt(pointer)
        return self

    @classmethod
    def borrow(cls, pointer: object, context: Context) -> Tensor:
        """A handle on a tensor that someone else owns too."""
        return cls.wrap(lib.te_retain(pointer), context)

    @classmethod
    def from_numpy(cls, array: np.ndarray, context: Context | None = None) -> Tensor:
        """A tensor over the memory of a float32 or int32 array, of any strides, without a copy."""
        context = context or current_context()
        return cls.wrap(lend(context.pointer, array), context)

    def _adopt(self, pointer: object) -> None:
        self.context.check(pointer != ffi.NULL)
        self.pointer = ffi.gc(pointer, self.context.drop)

    # ---- What it is ----

    @property
    def id(self) -> int:
        """Number that is unique within the context and never used again."""
        return lib.te_tensor_id(self.pointer)

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions; () for a scalar."""
        return tuple(ffi.unpack(lib.te_shape(self.pointer), self.ndim)) if self.ndim else ()

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return lib.te_ndim(self.pointer)

    @property
    def dtype(self) -> np.dtype:
        """float32 or int32."""
        is_int = lib.te_tensor_dtype(self.pointer) == lib.TE_DTYPE_INT32
        return np.dtype(np.int32 if is_int else np.float32)

    def numel(self) -> int:
        """Number of elements."""
        return lib.te_numel(self.pointer)

    def stride(self) -> tuple[int, ...]:
        """Elements from one index to the next, for each dimension."""
        return tuple(ffi.unpack(lib.te_stride(self.pointer), self.ndim)) if self.ndim else ()

    def is_contiguous(self) -> bool:
        """Whether its elements follow each other in row-major order."""
        return bool(lib.te_is_contiguous(self.pointer))

    def numpy(self) -> np.ndarray:
        """A view of the values, without a copy; writing to it changes the tensor."""
        is_int = self.dtype == np.int32
        data = lib.te_data_i32(self.pointer) if is_int else lib.te_data(self.pointer)
        strides = None if self.is_contiguous() else tuple(4 * step for step in self.stride())
        return np.asarray(Memory(data, self.shape, self.dtype.str, self.pointer, strides))

    def item(self) -> float:
        """The value of a tensor of one element."""
        if self.numel() != 1:
            raise ModelError(f"item(): expected one element, the shape is {list(self.shape)}")
        return lib.te_item(self.pointer)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        twin = object.__new__(type(self))
        twin.context = self.context
        kind, shape = lib.te_tensor_dtype(self.pointer), list(self.shape)
        twin._adopt(lib.te_zeros(self.context.pointer, kind, len(shape), shape))
        twin.numpy()[...] = self.numpy()
        if self.requires_grad:
            twin.requires_grad = True
        return twin

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        values = np.array2string(self.numpy(), threshold=20, precision=4, separator=", ")
        return f"Tensor({values}, shape={list(self.shape)}{grad})"

    # ---- Gradients ----

    @property
    def requires_grad(self) -> bool:
        """Whether backward() computes a gradient for it."""
        return bool(lib.te_requires_grad(self.pointer))

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self.context.check(lib.te_set_requires_grad(self.pointer, int(on)) == lib.TE_OK)

    @property
    def grad(self) -> np.ndarray | None:
        """The gradient: a view for parameters and inputs, a copy for results; None without one."""
        data = lib.te_grad(self.pointer)
        if data == ffi.NULL:
            return None
        view = np.asarray(Memory(data, self.shape, "<f4", self.pointer))
        return view if lib.te_is_leaf(self.pointer) else view.copy()

    def zero_grad(self) -> None:
        """Makes the gradient absent; views of it that were taken keep their memory."""
        lib.te_zero_grad(self.pointer)

    def retain_grad(self) -> None:
        """Keeps the gradient of an intermediate result through backward()."""
        lib.te_retain_grad(self.pointer)

    def backward(self, retain_tape: bool = False) -> None:
        """Adds the gradients of this scalar to `.grad` of what it was computed from.

        Args:
            retain_tape: keep the recorded operations, to read them; else the tape starts anew,
                what only it held is given up, and what was computed before counts as a constant
                from here on.
        """
        if not self.requires_grad:
            raise ModelError(
                "backward() of a tensor that no parameter took part in, so that there is nothing "
                "to differentiate by"
            )
        context = self.context.pointer
        lib.te_set_single_use(context, int(not retain_tape))
        try:
            self.context.check(lib.te_backward(context, self.pointer) == lib.TE_OK)
        finally:
            lib.te_set_single_use(context, 0)
            if not retain_tape:
                self.context.reset()

    def detach(self) -> Tensor:
        """The same memory as a tensor without history."""
        return Tensor.from_numpy(self.numpy(), self.context)

    # ---- Operations ----

    def _constant(self, value: object) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return Tensor(as_numbers(value).astype(np.float32), context=self.context)

    def _pair(self, function: object, other: object) -> Tensor:
        """A function of two tensors that repeats them along dimensions of 1 where needed."""
        other = self._constant(other)
        own, its = self.shape, other.shape
        if len(its) <= len(own) and own[len(own) - len(its) :] == its:
            return apply(function, self, other)
        try:
            shape = np.broadcast_shapes(own, its)
        except ValueError:
            return apply(function, self, other)  # the engine says what does not fit
        return apply(function, self.broadcast_to(*shape), other.broadcast_to(*shape))

    def __add__(self, other: Tensor | float) -> Tensor:
        return self._pair(lib.te_add, other)

    def __mul__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor) or np.ndim(other):
            return self._pair(lib.te_mul, other)
        return apply(lib.te_scale, self, float(other))

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Tensor:
        return self * -1.0

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self + -other

    def __rsub__(self, other: float) -> Tensor:
        return -self + other

    def __truediv__(self, other: float) -> Tensor:
        return self * (1.0 / other)

    def __rtruediv__(self, other: object) -> Tensor:
        raise ModelError("division by a Tensor: the engine has none; above 0, x * (-y.log()).exp()")

    def __matmul__(self, other: object) -> Tensor:
        from .functional import matmul

        return matmul(self, self._constant(other))

    def __rmatmul__(self, other: object) -> Tensor:
        return self._constant(other) @ self

    def __getitem__(self, key: object) -> Tensor:
        return index(self, key)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same values under other dimensions, one of which may be -1.

        A view; a copy where strides cannot express it (a transposed matrix made flat).
        """
        dims = _dimensions(shape)
        return apply(lib.te_reshape, self, len(dims), dims)

    def broadcast_to(self, *shape: int | Sequence[int]) -> Tensor:
        """Repeated along dimensions of 1 and new ones in front, by NumPy's rules; a view."""
        dims = _dimensions(shape)
        return self if dims == self.shape else apply(lib.te_broadcast, self, len(dims), dims)

    def relu(self) -> Tensor:
        """max(x, 0)"""
        return apply(lib.te_relu, self)

    def silu(self) -> Tensor:
        """x * sigmoid(x)"""
        return apply(lib.te_silu, self)

    def gelu(self) -> Tensor:
        """The tanh form of x * Phi(x)."""
        return apply(lib.te_gelu, self)

    def softmax(self) -> Tensor:
        """Over the last dimension."""
        return apply(lib.te_softmax, self)

    def log_softmax(self) -> Tensor:
        """Over the last dimension."""
        return apply(lib.te_log_softmax, self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))"""
        return apply(lib.te_sigmoid, self)

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return apply(lib.te_tanh, self)

    def exp(self) -> Tensor:
        """e^x"""
        return apply(lib.te_exp, self)

    def log(self) -> Tensor:
        """Natural logarithm."""
        return apply(lib.te_log, self)

    def clamp(self, low: float = -math.inf, high: float = math.inf) -> Tensor:
        """Values below `low` become `low`, those above `high` become `high`."""
        return apply(lib.te_clip, self, float(low), float(high))

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """`length` elements of a dimension, from `start`; a view."""
        return apply(lib.te_slice, self, dim, start, length)

    def transpose(self, first: int, second: int) -> Tensor:
        """Two dimensions exchanged; a view."""
        return apply(lib.te_transpose, self, first, second)

    @property
    def T(self) -> Tensor:
        """A matrix transposed; a view."""
        return self.transpose(0, 1)

    def contiguous(self) -> Tensor:
        """Itself where its elements lie in row-major order, else a copy in which they do."""
        return apply(lib.te_contiguous, self)

    def mean(self) -> Tensor:
        """The mean of all elements, a scalar."""
        return apply(lib.te_mean_pool, self.reshape(-1, 1)).reshape([])

    def sum(self) -> Tensor:
        """The sum of all elements, a scalar."""
        return apply(lib.te_sum_pool, self.reshape(-1, 1)).reshape([])


def apply(function: object, *args: object) -> Tensor:
    """Calls an operation of the engine; Tensors and None stand for its tensor arguments.

    Raises:
        ModelError: what does not fit, in the engine's words; or tensors of two contexts.
    """
    context = None
    values = []
    for arg in args:
        if isinstance(arg, Tensor):
            context = context or arg.context
            if arg.context is not context:
                raise ModelError("tensors of two contexts in one operation; create them in one")
            values.append(arg.pointer)
        else:
            values.append(ffi.NULL if arg is None else arg)
    if context is None:
        raise ModelError("an operation needs at least one Tensor")
    try:
        return Tensor.wrap(function(context.pointer, *values), context)
    except (TypeError, OverflowError) as error:
        raise ModelError(_misfit(function, args, error)) from None


def _dimensions(shape: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """Of f(2, 3) as of f((2, 3))."""
    return tuple(shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)


def _misfit(function: object, args: tuple[object, ...], error: Exception) -> str:
    """Why the engine's function does not take these arguments."""
    name = function.__name__.removeprefix("te_")
    for arg in args:
        if isinstance(arg, np.ndarray):
            return f"{name}: expected a Tensor, got an array; wrap it: Tensor(array)"
    kinds = ", ".join("Tensor" if isinstance(a, Tensor) else repr(a) for a in args)
    return f"{name}({kinds}): {error}"
