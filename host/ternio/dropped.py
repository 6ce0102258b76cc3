"""What Python has let go of and the engine has yet to free.

Python's collector runs finalisers in whichever thread happens to trip it, also while another thread
is inside the engine, which releases the interpreter's lock. So finalisers only append to deques,
which is atomic and, being C, cannot swallow a Ctrl-C; the next call of the context frees.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat, starmap

from ._engine import ffi, lib


class Dropped:
    """The pointers of one context that were dropped, and that nothing but free() may take out.

    Attributes:
        tensors, optimizers, contexts: by kind; what appends to them is a finaliser.
        drop: gives that of the tensors while a tensor or the context holds it, else None.
    """

    def __init__(self) -> None:
        self.tensors: deque[object] = deque()
        self.optimizers: deque[object] = deque()
        self.contexts: deque[object] = deque()
        self.drop: Callable[[], object] = lambda: None
        self._tensors = _freeing(lib.te_release, self.tensors)
        self._optimizers = _freeing(lib.te_optim_free, self.optimizers)
        self._contexts = _freeing(lib.te_ctx_free, self.contexts)

    def free(self) -> None:
        """Frees what has come; for the thread that uses the context."""
        while self.tensors:
            next(self._tensors)
        while self.optimizers:
            next(self._optimizers)

    def free_context(self) -> bool:
        """Frees what has come, for a context that nothing calls any more, and it too when all has;
        views of its tensors may be there yet.
        """
        whole = self.drop() is None
        self.free()
        if whole:
            next(self._contexts)
        return whole


def _freeing(function: Callable[[object], None], pointers: deque[object]) -> Iterator[None]:
    """Each next() takes a pointer out and calls the function with it.

    No bytecode runs between the two: a Ctrl-C cannot come there and lose the pointer.
    """
    return map(function, starmap(pointers.popleft, repeat(())))


_all: list[Dropped] = []
_sweeping = threading.Lock()


def adopt_context(pointer: object) -> tuple[object, Dropped, Callable[[object], None]]:
    """A handle of a new context, where what belongs to it goes when dropped, and the finaliser of
    its tensors.

    Frees the contexts that are gone on this occasion: nothing calls them any more.
    """
    if _sweeping.acquire(blocking=False):
        try:
            for dropped in [d for d in _all if d.contexts]:
                if dropped.free_context():
                    _all.remove(dropped)
        finally:
            _sweeping.release()
    dropped = Dropped()
    drop = dropped.tensors.append
    dropped.drop = weakref.ref(drop)
    _all.append(dropped)
    return ffi.gc(pointer, dropped.contexts.append), dropped, drop
