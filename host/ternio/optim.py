"""Optimisers of the engine, schedules of the learning rate, and a guard of steps.

>>> optimizer = AdamW(model.parameters(), lr=2e-3)
>>> loss.backward(); clip_grad_norm_(optimizer, 1.0); optimizer.step(); optimizer.zero_grad()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ._engine import ffi, lib
from .errors import ModelError
from .nn import Parameter
from .schedule import (
    SCHEDULES,
    CosineSchedule,
    LinearSchedule,
    Schedule,
    StepGuard,
    StepSchedule,
    cosine_lr,
)
from .state_dict import as_array, float32
from .tensor import Tensor

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "Chuck",
    "CosineSchedule",
    "LinearSchedule",
    "Optimizer",
    "Schedule",
    "StepGuard",
    "StepSchedule",
    "clip_grad_norm_",
    "cosine_lr",
    "is_matrix",
    "scale_grad_",
]

MOST_STEPS = 2**53  # that te_optim_set_steps() takes: the count is used as a double


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
        params = list(params)
        if not all(isinstance(p, Tensor) for p in params):
            raise ModelError("optimiser: expected parameters, e.g. model.parameters()")
        self.params, self.lr = [p for p in params if p.requires_grad], _rate("optimiser", lr)
        if not self.params:
            raise ModelError("optimiser: no parameter that requires a gradient")
        self.context = self.params[0].context
        made = pointer(self.context.pointer)
        self.context.check(made != ffi.NULL)
        self.pointer = ffi.gc(made, self.context.dropped.optimizers.append)
        for p in self.params:
            self.context.check(lib.te_optim_add(made, p.pointer, int(decays(p))) == lib.TE_OK)

    def step(self) -> None:
        """One update; parameters without a gradient stay as they are."""
        self.context.check(lib.te_optim_step(self.pointer, self.lr) == lib.TE_OK)

    def observe(self, loss: float) -> None:
        """Tells the loss of the step to come; Chuck looks at it, the others do not."""
        self.context.check(lib.te_optim_observe(self.pointer, loss) == lib.TE_OK)

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

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continues from a state_dict of an optimiser of the same kind over the same parameters.

        Raises:
            ModelError: the state does not fit, or is none that an optimiser can be in. Nothing is
                changed then.
        """
        self._continue(*self._checked(state))

    def _checked(self, state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int, float]:
        """Moments by name, steps and rate of a state."""
        views = self._moments()
        if set(state) != {*views, "steps", "lr"}:
            raise ModelError("optimiser state belongs to another optimiser or another model")
        moments = {}
        for name, view in views.items():
            what = f"optimiser state {name}"
            moments[name] = float32(what, state[name], view.shape, "fiu")
            if name.startswith("1.") and (moments[name] < 0).any():
                raise ModelError(f"{what}: expected a second moment, of values not below 0")
        steps = _number("steps", state["steps"])
        rate = _rate("optimiser state", _number("lr", state["lr"]))
        if steps != int(steps) or not 0 <= steps <= MOST_STEPS:
            raise ModelError(
                f"optimiser state: {steps} steps; expected a whole number from 0 to 2^53"
            )
        return moments, int(steps), rate

    def _continue(self, moments: dict[str, np.ndarray], steps: int, rate: float) -> None:
        for name, view in self._moments().items():
            view[...] = moments[name]
        lib.te_optim_set_steps(self.pointer, steps)
        self.lr = rate


def _rate(owner: str, value: float) -> float:
    """A learning rate that can be one: below 0 a step would climb."""
    rate = float(value)
    if not 0 <= rate < math.inf:
        raise ModelError(f"{owner}: lr {rate:g}; expected a finite learning rate, not below 0")
    return rate


def _number(name: str, value: object) -> float | int:
    """A finite number of an optimiser's state."""
    array = as_array(f"optimiser state {name}", value)
    if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
        raise ModelError(f"optimiser state {name}: expected a finite number, got {value}")
    return array.item()


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


class Chuck(Optimizer):
    """Adam that watches its own loss and gradients, on five levels.

    The update is ``-lr * scale * lambda * lambda_p * m / (sqrt(v) + eps) + noise``: (1) lambda
    follows the trend of the loss, (2) lambda_p that of the parameter's gradient norm, (3) noise is
    added when the loss stands still, (4) a parameter whose gradient stays small is frozen, (5)
    every 1000 steps `scale` follows a slow mean of the loss. Tell it the loss before each step().

    Args:
        params, lr, betas, eps, weight_decay, decays: see AdamW.
        settings: constants of the levels, by their names in te_chuck_settings (host/engine/te.h):
            window=16, damp=0.97, push=1.03, freeze_steps=8, slow_interval=1000, ...

    Example:
        >>> optimizer = Chuck(model.parameters(), lr=1e-3)
        >>> optimizer.observe(loss.item()); optimizer.step()
        >>> optimizer.trace()["lambda"]
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decays: Callable[[Parameter], bool] = is_matrix,
        **settings: float,
    ) -> None:
        values = ffi.new("te_chuck_settings *")
        lib.te_chuck_defaults(values)
        given = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}
        for name, value in {**given, **settings}.items():
            if not hasattr(values, name):
                raise ModelError(f"chuck: there is no setting {name!r}")
            try:
                setattr(values, name, value)
            except (TypeError, OverflowError):
                kind = "whole number" if isinstance(getattr(values, name), int) else "number"
                raise ModelError(f"chuck: {name} = {value!r}: expected a {kind}") from None
            if name not in given and not math.isfinite(value):
                raise ModelError(f"chuck: {name} = {value}: expected a finite number")
        super().__init__(lambda c: lib.te_chuck(c, values), params, lr, decays)

    def trace(self, parameter: int | None = None) -> dict[str, float]:
        """What the levels hold after the last step.

        Args:
            parameter: index into `params` for its own, from the end when below 0; else those of
                the loss.

        Raises:
            ModelError: there is no such parameter.
        """
        names = {"mean": lib.TE_CHUCK_MEAN, "trend": lib.TE_CHUCK_TREND}
        names["lambda"] = lib.TE_CHUCK_LAMBDA
        if parameter is None:
            names |= {"noise": lib.TE_CHUCK_NOISE, "scale": lib.TE_CHUCK_SCALE}
            names["slow_mean"] = lib.TE_CHUCK_SLOW_MEAN
        else:
            names["frozen"] = lib.TE_CHUCK_FROZEN
        i = -1 if parameter is None else parameter
        if parameter is not None:
            count = len(self.params)
            if not -count <= i < count:
                raise ModelError(f"chuck: trace of parameter {i}; there are {count}, from 0")
            i %= count
        return {name: lib.te_chuck_read(self.pointer, i, what) for name, what in names.items()}

    def state_dict(self) -> dict[str, np.ndarray]:
        """As of other optimisers, and what the levels remember."""
        words = np.zeros(lib.te_chuck_words(self.pointer), dtype=np.uint64)
        lib.te_chuck_save(self.pointer, ffi.from_buffer("uint64_t[]", words))
        return {**super().state_dict(), "levels": words}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continues from a state_dict of a Chuck over the same parameters."""
        state = dict(state)
        words = np.asarray(state.pop("levels", ()))
        if words.shape != (lib.te_chuck_words(self.pointer),) or words.dtype != np.uint64:
            raise ModelError("optimiser state belongs to another optimiser or another model")
        checked = self._checked(state)
        buffer = ffi.from_buffer("uint64_t[]", np.ascontiguousarray(words))
        ok = lib.te_chuck_load(self.pointer, buffer, len(words)) == lib.TE_OK
        self.context.check(ok)
        self._continue(*checked)


OPTIMIZERS: dict[str, type[AdamW | Adam | Chuck]] = {"adamw": AdamW, "adam": Adam, "chuck": Chuck}
"""Those that a training can choose by name."""


def clip_grad_norm_(optimizer: Optimizer, max_norm: float) -> float:
    """Scales the gradients down to a norm of `max_norm` together where they exceed it.

    Returns:
        the norm before; when it is not finite the gradients are left alone, and the step should
        be skipped.
    """
    _expect_optimizer("clip_grad_norm_", optimizer)
    if not max_norm > 0:
        raise ModelError(f"clip_grad_norm_: a norm of {max_norm}; expected one above 0")
    return lib.te_clip_grad_norm(optimizer.pointer, max_norm)


def scale_grad_(optimizer: Optimizer, factor: float) -> None:
    """Multiplies all gradients; undoes the scale of a loss, exactly where it is a power of two."""
    _expect_optimizer("scale_grad_", optimizer)
    lib.te_scale_grad(optimizer.pointer, factor)


def _expect_optimizer(function: str, value: object) -> None:
    if not isinstance(value, Optimizer):
        raise ModelError(
            f"{function}: expected the optimiser of the parameters, got {type(value).__name__}"
        )
