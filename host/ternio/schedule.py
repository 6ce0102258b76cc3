"""What changes from step to step: the learning rate, by a schedule, and the scale of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._engine import lib

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
        if step < self.warmup:
            return self.base * (step + 1) / self.warmup
        return self.falling(step, min(1.0, (step - self.warmup) / max(1, self.total - self.warmup)))

    def falling(self, step: int, part: float) -> float:
        """The rate after the warm-up; `part` of the way from there to `total` is done."""
        return self.base

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

    def falling(self, step: int, part: float) -> float:
        return self.base + (self.floor - self.base) * part


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

    def falling(self, step: int, part: float) -> float:
        done = min(int(part * self.parts), self.parts - 1)
        return max(self.floor, self.base * self.gamma**done)


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "step": StepSchedule,
    "constant": Schedule,
}


class LossScale:
    """A factor of the loss that keeps gradients within float32; powers of two change no result.

    Args:
        value: at the start, and the highest.
        patience: updates without an overflow after which a lowered scale doubles.
    """

    LOWEST = 2.0**-24

    def __init__(self, value: float = 1.0, patience: int = 200) -> None:
        self.value = self.highest = value
        self.patience, self.good = patience, 0

    def update(self, finite: bool) -> None:
        """Takes note of one update: halves after an overflow, doubles after `patience` without."""
        if not finite:
            self.value, self.good = max(self.LOWEST, self.value / 2), 0
            return
        self.good += 1
        if self.good >= self.patience and self.value < self.highest:
            self.value, self.good = min(self.highest, self.value * 2), 0

    def state(self) -> tuple[float, int]:
        """The value, and the updates since it changed."""
        return self.value, self.good

    def restore(self, state: tuple[float, int]) -> None:
        """The reverse of state()."""
        self.value, self.good = state
