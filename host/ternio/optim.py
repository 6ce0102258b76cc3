"""Optimisers of the engine, schedules of the learning rate, and a dynamic loss scale.

>>> optimizer = AdamW(model.parameters(), lr=2e-3)
>>> loss.backward(); clip_grad_norm_(optimizer, 1.0); optimizer.step(); optimizer.zero_grad()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ._engine import ffi, lib
from .errors import ModelError
from .nn import Parameter


def is_matrix(parameter: Parameter) -> bool:
    """The usual choice of what weight decay shrinks: matrices, not gains and biases."""
    return parameter.ndim > 1


class Optimizer:
    """Base: parameters, a rate `lr` that may be changed between steps, and the engine's state."""

    def __init__(
        self,
        pointer: Callable[[object], object],
        params: Iterable[Parameter],
        lr: float,
        decays: Callable[[Parameter], bool],
    ) -> None:
        self.params, self.lr = [p for p in params if p.requires_grad], float(lr)
        if not self.params:
            raise ModelError("optimiser: no parameter that requires a gradient")
        self.context = self.params[0].context
        made = pointer(self.context.pointer)
        self.context.check(made != ffi.NULL)
        self.pointer = ffi.gc(made, lib.te_optim_free)
        for p in self.params:
            self.context.check(lib.te_optim_add(made, p.pointer, int(decays(p))) == lib.TE_OK)

    def step(self) -> None:
        """One update; parameters without a gradient stay as they are."""
        self.context.check(lib.te_optim_step(self.pointer, self.lr) == lib.TE_OK)

    def zero_grad(self) -> None:
        """Makes the gradients of its parameters absent."""
        lib.te_optim_zero_grad(self.pointer)

    def _moments(self) -> dict[str, np.ndarray]:
        """Views of the engine's state, by `slot.parameter`."""
        views = {}
        for i, p in enumerate(self.params):
            for slot in (0, 1):
                data = lib.te_optim_state(self.pointer, i, slot)
                if data != ffi.NULL:
                    buffer = ffi.buffer(data, p.numel() * 4)
                    views[f"{slot}.{i}"] = np.frombuffer(buffer, np.float32).reshape(p.shape)
        return views

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the moments, the count of steps and the rate."""
        state = {name: view.copy() for name, view in self._moments().items()}
        steps = np.array(lib.te_optim_steps(self.pointer))
        return {**state, "steps": steps, "lr": np.array(self.lr)}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Continues from a state_dict of an optimiser of the same kind over the same parameters."""
        views = self._moments()
        if set(state) != {*views, "steps", "lr"}:
            raise ModelError("optimiser state belongs to another optimiser or another model")
        for name, view in views.items():
            if state[name].shape != view.shape:
                raise ModelError(f"optimiser state {name}: expected shape {list(view.shape)}")
        for name, view in views.items():
            view[...] = state[name]
        lib.te_optim_set_steps(self.pointer, int(state["steps"]))
        self.lr = float(state["lr"])


class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101).

    Args:
        params: parameters; those that require no gradient are left out.
        lr: rate.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: shrinks a parameter by lr * weight_decay a step.
        decays: which parameters that concerns; matrices by default.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decays: Callable[[Parameter], bool] = is_matrix,
    ) -> None:
        super().__init__(lambda c: lib.te_adamw(c, *betas, eps, weight_decay), params, lr, decays)


class Adam(Optimizer):
    """Adam (arXiv 1412.6980); weight decay, if any, is added to the gradient."""

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decays: Callable[[Parameter], bool] = is_matrix,
    ) -> None:
        super().__init__(lambda c: lib.te_adam(c, *betas, eps, weight_decay), params, lr, decays)


class SGD(Optimizer):
    """Gradient descent with momentum."""

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        decays: Callable[[Parameter], bool] = is_matrix,
    ) -> None:
        super().__init__(lambda c: lib.te_sgd(c, momentum, weight_decay), params, lr, decays)


def clip_grad_norm_(optimizer: Optimizer, max_norm: float) -> float:
    """Scales the gradients down to a norm of `max_norm` together where they exceed it.

    Returns:
        the norm before; when it is not finite the gradients are left alone, and the step should
        be skipped.
    """
    return lib.te_clip_grad_norm(optimizer.pointer, max_norm)


def scale_grad_(optimizer: Optimizer, factor: float) -> None:
    """Multiplies all gradients; undoes the scale of a loss, exactly where it is a power of two."""
    for parameter in optimizer.params:
        grad = parameter.grad
        if grad is not None:
            np.multiply(grad, np.float32(factor), out=grad)


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
