"""Optimisers of the engine and the learning-rate schedule.

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


def cosine_lr(step: int, total: int, lr: float, warmup: int = 0, floor: float = 0.0) -> float:
    """Rate at a step (from 0): up in a line over `warmup` steps, then half a cosine to `floor`."""
    return lib.te_lr_cosine(step, warmup, total, lr, floor)


class CosineSchedule:
    """Sets an optimiser's rate by cosine_lr, one step() per update.

    Args:
        optimizer: whose `lr` it sets, at once and after every step().
        total: number of updates.
        warmup: updates with a rising rate.
        floor: rate at the end.
    """

    def __init__(
        self, optimizer: Optimizer, total: int, warmup: int = 0, floor: float = 0.0
    ) -> None:
        self.optimizer, self.total, self.warmup, self.floor = optimizer, total, warmup, floor
        self.base, self.count = optimizer.lr, 0
        self._set()

    def _set(self) -> None:
        rate = cosine_lr(self.count, self.total, self.base, self.warmup, self.floor)
        self.optimizer.lr = rate

    def step(self) -> None:
        """Goes on to the rate of the next update."""
        self.count += 1
        self._set()
