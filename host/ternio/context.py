"""The engine's context in Python: tape, generator, errors; a current one per thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._engine import ffi, lib
from .dropped import adopt_context
from .errors import ModelError, OutOfMemory

if TYPE_CHECKING:
    from .tensor import Tensor


def _checked(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ModelError(f"seed {seed!r}: expected an integer from 0 to 2^64 - 1")
    return int(seed)


@dataclass(frozen=True)
class Node:
    """One recorded operation.

    Attributes:
        op: its name in the engine, e.g. "bitlinear".
        inputs: tensors, None where an optional one was left out.
        output: the result.
        ints, floats: attributes, in the order that host/engine/te.h lists for the operation.
    """

    op: str
    inputs: tuple[Tensor | None, ...]
    output: Tensor
    ints: tuple[int, ...]
    floats: tuple[float, ...]


class Context:
    """Owner of a tape and a generator. Use one per thread; tensors of two contexts do not mix.

    Operations stay on the tape, and what they need in memory, until backward() or reset(): infer
    within no_grad().

    Args:
        seed: of the generator that initialises parameters.
        threads: see threads.

    Example:
        >>> with Context(seed=1) as context:
        ...     model = nn.Linear(4, 2)
    """

    def __init__(self, seed: int = 0, threads: int = 1) -> None:
        pointer = lib.te_ctx_new(_checked(seed))
        if pointer == ffi.NULL:
            raise OutOfMemory("the engine could not allocate a context")
        self._pointer, self.dropped, self.drop = adopt_context(pointer)
        lib.te_set_own_results(self.pointer, 1)
        self.threads = threads

    @property
    def pointer(self) -> object:
        """The engine's own context, for a call of the engine by the thread that uses this one."""
        if self.dropped.tensors or self.dropped.optimizers:
            self.dropped.free()
        return self._pointer

    def __enter__(self) -> Context:
        _stack().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _stack().remove(self)

    def seed(self, seed: int) -> None:
        """Restarts the generator."""
        lib.te_seed(self.pointer, _checked(seed))

    @property
    def generator_state(self) -> np.ndarray:
        """uint64 [4]; set it to draw the same numbers again."""
        state = np.empty(4, dtype=np.uint64)
        lib.te_rng_state(self.pointer, ffi.from_buffer("uint64_t[]", state))
        return state

    @generator_state.setter
    def generator_state(self, state: np.ndarray) -> None:
        copy = np.array(state, dtype=np.uint64)
        if copy.shape != (4,) or not copy.any():
            raise ModelError("generator state: expected 4 numbers, not all of them 0")
        lib.te_rng_set_state(self.pointer, ffi.from_buffer("uint64_t[]", copy))

    def reset(self) -> None:
        """Forgets the recorded operations; tensors that Python still holds keep their values."""
        lib.te_tape_reset(self.pointer)

    @property
    def recording(self) -> bool:
        """Whether operations are written to the tape."""
        return bool(lib.te_recording(self.pointer))

    @recording.setter
    def recording(self, on: bool) -> None:
        lib.te_set_recording(self.pointer, int(on))

    @property
    def threads(self) -> int:
        """How many threads share the work of large operations, 1 to 64; results do not depend on
        it. The child of a fork goes on with one until it sets them again.
        """
        return lib.te_threads(self.pointer)

    @threads.setter
    def threads(self, count: int) -> None:
        if not isinstance(count, (int, np.integer)) or not 1 <= count <= 64:
            raise ModelError(f"threads {count!r}: expected a whole number from 1 to 64")
        self.check(lib.te_set_threads(self.pointer, int(count)) == lib.TE_OK)

    @property
    def simd(self) -> str:
        """Name of the matrix kernels in use."""
        return ffi.string(lib.te_simd(self.pointer)).decode()

    def tape(self) -> list[Node]:
        """The recorded operations, in the order of execution."""
        return [self._node(i) for i in range(lib.te_tape_length(self.pointer))]

    def check(self, ok: bool) -> None:
        """Raises what the engine has to say, if it failed.

        Raises:
            ModelError: shapes, types or values that do not fit.
            OutOfMemory: memory ran out.
        """
        if ok:
            return
        status = lib.te_last_status(self.pointer)
        text = ffi.string(lib.te_last_error(self.pointer)).decode()
        text = text or ffi.string(lib.te_status_text(status)).decode()
        lib.te_clear_error(self.pointer)
        raise (OutOfMemory if status == lib.TE_ERR_MEMORY else ModelError)(text)

    def _node(self, i: int) -> Node:
        from .tensor import Tensor

        c = self.pointer
        inputs = (lib.te_node_input(c, i, k) for k in range(lib.te_node_input_count(c, i)))
        return Node(
            ffi.string(lib.te_op_name(lib.te_node_op(c, i))).decode(),
            tuple(None if t == ffi.NULL else Tensor.borrow(t, self) for t in inputs),
            Tensor.borrow(lib.te_node_output(c, i), self),
            tuple(lib.te_node_int(c, i, k) for k in range(lib.te_node_int_count(c, i))),
            tuple(lib.te_node_float(c, i, k) for k in range(lib.te_node_float_count(c, i))),
        )


_threads = threading.local()


def _stack() -> list[Context]:
    if not hasattr(_threads, "stack"):
        _threads.stack = []
    return _threads.stack


def current_context() -> Context:
    """The innermost `with Context()` of this thread, else the thread's own default one."""
    stack = _stack()
    if stack:
        return stack[-1]
    if not hasattr(_threads, "default"):
        _threads.default = Context()
    return _threads.default


def manual_seed(seed: int) -> None:
    """Restarts the generator of the current context: same seed, same parameters."""
    current_context().seed(seed)


def set_num_threads(count: int) -> None:
    """How many threads share the work of large operations of the current context, 1 at the start;
    results do not depend on it.
    """
    current_context().threads = count


@contextlib.contextmanager
def no_grad(context: Context | None = None) -> Iterator[None]:
    """Operations inside are computed, not recorded; for inference.

    Args:
        context: whose recording to pause; by default the current one's.
    """
    context = context or current_context()
    before = context.recording
    context.recording = False
    try:
        yield
    finally:
        context.recording = before
