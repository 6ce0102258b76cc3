"""What changes from step to step: the learning rate, by a schedule, and the scale of the loss.

The numbers are the engine's (te_lr_* and te_guard in host/engine/te.h).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ._engine import ffi, lib
from .errors import ModelError

if TYPE_CHECKING:
    from .optim import Optimizer


def cosine_lr(step: int, total: int, lr: float, warmup: int = 0, floor: float = 0.0) -> float:
    """Rate at a step (from 0): up in a line over `warmup` steps, then half a cosine to `floor`."""
    return lib.te_lr_cosine(step, warmup, total, lr, floor)


class Schedule:
    """Sets an optimiser's rate, one step() per update. This one holds it after the warm-up.

    Args:
        optimizer: whose `lr`, as it is now, is the highest; set at once and after every step().
        total: number of updates.
        warmup: updates with a rising rate; the last of them has the full one.
        floor: rate at the end, where a schedule comes down.
    """

    def __init__(
        self, optimizer: Optimizer, total: int, warmup: int = 0, floor: float = 0.0
    ) -> None:
        self.optimizer, self.total, self.warmup, self.floor = optimizer, total, warmup, floor
        self.base, self.count = optimizer.lr, 0
        self.go_to(0)

    def rate(self, step: int) -> float:
        """Of the update `step`, from 0."""
        return lib.te_lr_constant(step, self.warmup, self.base)

    def step(self) -> None:
        """Goes on to the rate of the next update."""
        self.go_to(self.count + 1)

    def go_to(self, step: int) -> None:
        """Sets the rate of the update `step`; for a training that goes on."""
        self.count = step
        self.optimizer.lr = self.rate(step)


class CosineSchedule(Schedule):
    """Half a cosine from the full rate to `floor`."""

    def rate(self, step: int) -> float:
        return cosine_lr(step, self.total, self.base, self.warmup, self.floor)


class LinearSchedule(Schedule):
    """A line from the full rate to `floor`."""

    def rate(self, step: int) -> float:
        return lib.te_lr_linear(step, self.warmup, self.total, self.base, self.floor)


class StepSchedule(Schedule):
    """The rate times `gamma` after each of `parts` equal parts of the way, never below `floor`.

    Args:
        gamma: factor.
        parts: of the way; with 3, the rate changes at one and at two thirds of it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total: int,
        warmup: int = 0,
        floor: float = 0.0,
        gamma: float = 0.1,
        parts: int = 3,
    ) -> None:
        self.gamma, self.parts = gamma, parts
        super().__init__(optimizer, total, warmup, floor)

    def rate(self, step: int) -> float:
        return lib.te_lr_step(
            step, self.warmup, self.total, self.base, self.floor, self.gamma, self.parts
        )


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "step": StepSchedule,
    "constant": Schedule,
}


class StepGuard:
    """Makes updates, but for those whose loss or gradient is not finite, and keeps a scale of the
    loss that halves after each of these; powers of two change no result.

    Args:
        scale: factor of the loss at the start, and the highest.
        patience: updates in a row after which a lowered scale doubles.

    Example:
        >>> guard = StepGuard(1024.0)
        >>> (loss * guard.scale).backward()
        >>> guard.update(optimizer, loss.item(), clip=1.0)
        True
    """

    LOWEST = 2.0**-24

    def __init__(self, scale: float = 1.0, patience: int = 200) -> None:
        if not 0 < scale < math.inf:
            raise ModelError(f"loss scale {scale}: expected a number above 0")
        self.pointer = ffi.new("te_guard *")
        lib.te_guard_start(self.pointer, scale)
        self.pointer.patience = patience

    @property
    def scale(self) -> float:
        """By which to multiply the next loss before backward()."""
        return self.pointer.scale

    @property
    def skipped(self) -> int:
        """Updates that were left out."""
        return self.pointer.skipped

    @property
    def in_a_row(self) -> int:
        """Those left out last, without one made since, at a scale of 1 or less."""
        return self.pointer.in_a_row

    def update(self, optimizer: Optimizer, loss: float, clip: float = math.inf) -> bool:
        """One update from the gradients of the scaled loss; they are absent afterwards.

        Args:
            optimizer: whose parameters have the gradients; it also observes the loss.
            loss: without the scale.
            clip: largest norm of the unscaled gradients.

        Returns:
            False where the update was left out.
        """
        rate = optimizer.lr
        made = lib.te_guard_update(self.pointer, optimizer.pointer, loss, clip, rate)
        optimizer.context.check(made >= 0)
        return bool(made)

    def state(self) -> tuple[float, int]:
        """The scale, and the updates since it changed."""
        return self.pointer.scale, self.pointer.good

    def restore(self, state: tuple[float, int], skipped: int = 0) -> None:
        """The reverse of state(), and the count of updates left out."""
        self.pointer.scale, self.pointer.good = state
        self.pointer.skipped = skipped
