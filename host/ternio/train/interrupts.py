"""Ctrl-C in a training: noted while something must not be torn, acted upon where it can be."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator


class Interrupts:
    """What a block inside hold_interrupts() knows of Ctrl-C, and what it does about it.

    Attributes:
        count: how often it was pressed.
        tolerated: presses that are only counted; each one more raises KeyboardInterrupt.
    """

    def __init__(self, tolerated: float) -> None:
        self.count, self.tolerated = 0, tolerated

    def _press(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > self.tolerated:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def tolerating(self, presses: float) -> Iterator[None]:
        """Another number of presses for a while, those that were counted before included."""
        before, self.tolerated = self.tolerated, presses
        try:
            if self.count > presses:
                raise KeyboardInterrupt
            yield
        finally:
            self.tolerated = before


@contextlib.contextmanager
def hold_interrupts(tolerated: float = math.inf) -> Iterator[Interrupts]:
    """Takes Ctrl-C over, with what an enclosing block has counted; outside of the main thread,
    which alone gets it, this does nothing.
    """
    interrupts = Interrupts(tolerated)
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, interrupts._press)
    around = getattr(before, "__self__", None)
    if isinstance(around, Interrupts):
        interrupts.count += around.count
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
