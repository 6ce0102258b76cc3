"""The training loop of all tasks: updates, schedule, guard against NaN, validation, early stop, and
a state that goes on to the bit where an interrupt left it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np

from .. import optim
from ..errors import ModelError
from ..models import Transformer
from ..tensor import Tensor
from ..train_state import TrainState
from .interrupts import Interrupts, hold_interrupts

Progress = Callable[[int, int, float], None]
"""Called after each step with the steps done, their total and the loss."""

MOST_SKIPPED = 8  # updates in a row, before training gives up

_Config = TypeVar("_Config", bound="LoopConfig")


@dataclass(frozen=True)
class LoopConfig:
    """How to train, whatever the task.

    Attributes:
        steps: updates.
        batch: examples per update and pass.
        lr: highest rate.
        warmup: updates with a rising rate.
        weight_decay: for matrices.
        clip: largest gradient norm.
        seed: of parameters, batches and augmentation.
        schedule: of the rate after the warm-up: one of optim.SCHEDULES.
        floor: lowest rate, as a part of `lr`.
        optimizer: one of optim.OPTIMIZERS.
        betas: decay of the optimiser's moments.
        accumulate: passes whose gradients make one update.
        loss_scale: factor of the loss, undone before the update; halved when a gradient overflows.
        evaluate_every: steps between two validations, where there is something to validate on.
        patience: validations without a better one before training stops; 0: it does not.
    """

    steps: int = 300
    batch: int = 20
    lr: float = 2e-3
    warmup: int = 0
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 0
    schedule: str = "cosine"
    floor: float = 0.0
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    accumulate: int = 1
    loss_scale: float = 1.0
    evaluate_every: int = 50
    patience: int = 0

    def __post_init__(self) -> None:
        counts = {"steps": 1, "batch": 1, "warmup": 0, "seed": 0, "accumulate": 1}
        for name, low in {**counts, "evaluate_every": 1, "patience": 0}.items():
            if getattr(self, name) < low:
                raise ModelError(f"{name} is {getattr(self, name)}; expected at least {low}")
        for name in ("lr", "clip", "loss_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelError(f"{name} is {getattr(self, name)}; expected a number above 0")
        for name in ("weight_decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"{name} is {getattr(self, name)}; expected a number in 0..1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ModelError(f"betas are {self.betas}; expected two numbers in 0..1")
        choices = {"schedule": optim.SCHEDULES, "optimizer": optim.OPTIMIZERS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ModelError(
                    f"{name} {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any], **changes: Any) -> _Config:
        """The reverse of to_dict, with some entries changed."""
        known = {f.name for f in fields(cls)}
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ModelError(f"training setting {unknown[0]!r} is unknown to this version")
        try:
            config = cls(**{**values, "betas": tuple(values.get("betas", cls.betas))})
            return replace(config, **changes)
        except TypeError as error:
            raise ModelError(f"training settings: {error}") from error


@dataclass
class FitResult:
    """What a training did.

    Attributes:
        loss: of every step, those before an interrupt included; NaN where a step was skipped.
        seconds: it took, this time.
        interrupted: stopped by Ctrl-C before the last step.
        skipped: updates that were left out because loss or gradient was not finite.
        validation: (step, loss) of every validation.
        best_step: after which the model is the one that validated best; 0 without patience.
        stopped: the patience ran out before the last step.
        state: to go on from.
    """

    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    skipped: int = 0
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    stopped: bool = False
    state: TrainState | None = None


class Loop:
    """One training of one model.

    Args:
        model: changed in place.
        config: how to train.
        draw: gives the loss of the next batch; all chance in it comes from the generator.
        validate: the validation loss, lower is better.
        order: arrays that `draw` changes and a continued training needs, e.g. the order of a pass.
        state: where an earlier training stopped; the model has to be the one that stopped there.
        progress: called after each step.
    """

    def __init__(
        self,
        model: Transformer,
        config: LoopConfig,
        draw: Callable[[np.random.Generator], Tensor],
        *,
        validate: Callable[[], float] | None = None,
        order: dict[str, np.ndarray] | None = None,
        state: TrainState | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.config, self.draw = model, config, draw
        self.validate, self.progress = validate, progress
        self.order = {} if order is None else order
        self.rng = np.random.default_rng(config.seed)
        self.optimizer = optim.OPTIMIZERS[config.optimizer](
            model.parameters(), config.lr, config.betas, weight_decay=config.weight_decay
        )
        self.schedule = optim.SCHEDULES[config.schedule](
            self.optimizer, config.steps, config.warmup, config.floor * config.lr
        )
        self.guard = optim.StepGuard(config.loss_scale)
        self.result = FitResult()
        self.best: dict[str, np.ndarray] | None = None
        self.best_loss = math.inf
        self.followed_from = 0  # the step from which on validations count for the patience
        if state is not None:
            self._restore(state)
        self.last = self._snapshot()
        self.interrupts = Interrupts(math.inf)

    def run(self) -> FitResult:
        """Trains to the end, to Ctrl-C, or until the patience has run out.

        Raises:
            ModelError: loss, validation or weights are no longer finite.
        """
        result, start = self.result, time.monotonic()
        with hold_interrupts():  # what was reached is not lost on the way out
            self.model.train()
            try:
                with hold_interrupts() as self.interrupts:
                    self._steps()
            except KeyboardInterrupt:
                result.interrupted = len(result.loss) < self.config.steps or self._due()
                self.model.context.reset()
                self.optimizer.zero_grad()
            finally:
                self.model.eval()
            result.seconds = time.monotonic() - start
            result.stopped = len(result.loss) < self.config.steps and not result.interrupted
            self._require_finite()
            result.state = self._state()
            if self.best is not None:
                self.model.load_state_dict(self.best)
        return result

    def _steps(self) -> None:
        """All steps that are left. Ctrl-C ends a validation at once, a step when it is done; a
        second one also ends the passes of a step. An update is always made whole.
        """
        while True:
            self._validate()
            if len(self.result.loss) >= self.config.steps or self._out_of_patience():
                return
            self._step()
            if self.progress is not None:
                self.progress(len(self.result.loss), self.config.steps, self.result.loss[-1])
            if self.interrupts.count:
                raise KeyboardInterrupt

    # ---- One step -------------------------------------------------------------------------------

    def _step(self) -> None:
        """One update, or none where loss or gradient is not finite."""
        result = self.result
        with self.interrupts.tolerating(1):
            value = self._accumulate()
        finite = self.guard.update(self.optimizer, value, self.config.clip)
        if not finite:
            self.model.context.reset()
        result.skipped = self.guard.skipped
        self.schedule.step()
        result.loss.append(value if finite else math.nan)
        if self.guard.in_a_row > MOST_SKIPPED:
            what = "gradient became infinite" if math.isfinite(value) else f"loss became {value}"
            raise self._diverged(f"the {what}")
        self.last = self._snapshot()

    def _accumulate(self) -> float:
        """Gradients of one update; the mean loss, or the first that is not finite."""
        parts = self.config.accumulate
        factor, total = self.guard.scale / parts, 0.0
        for _ in range(parts):
            loss = self.draw(self.rng)
            value = loss.item()
            total += value / parts
            if not math.isfinite(value):
                return value
            (loss if factor == 1.0 else loss * factor).backward()
        return total

    def _due(self) -> bool:
        """Whether the steps so far call for a validation that has not been made."""
        steps = len(self.result.loss)
        due = steps > 0 and (steps % self.config.evaluate_every == 0 or steps == self.config.steps)
        return self.validate is not None and due and steps not in dict(self.result.validation)

    def _validate(self) -> None:
        """Where it is due."""
        result, steps = self.result, len(self.result.loss)
        if self.validate is None or not self._due():
            return
        self.model.eval()
        with self.interrupts.tolerating(0):
            loss = self.validate()
        self.model.train()
        if not math.isfinite(loss):
            raise self._diverged(f"the validation loss became {loss}")
        result.validation.append((steps, loss))
        if self.config.patience and loss < self.best_loss:
            self.best_loss, self.best = loss, self.model.state_dict()
            result.best_step = steps

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self._misses()

    def _misses(self) -> int:
        """Validations since the best one."""
        since = max(self.result.best_step, self.followed_from)
        return sum(step > since for step, _ in self.result.validation)

    def _require_finite(self) -> None:
        """Raises ModelError for weights that nobody can use."""
        for name, value in self.model.state_dict().items():
            if not np.isfinite(value).all():
                raise self._diverged(f"{name} is not finite")

    def _diverged(self, what: str) -> ModelError:
        return ModelError(f"diverged: {what} at step {len(self.result.loss)}; try a lower --lr")

    # ---- State ----------------------------------------------------------------------------------

    def _snapshot(self) -> dict[str, Any]:
        """What chance and order were between two steps: an interrupt may come amid the next."""
        return {
            "generator": self.rng.bit_generator.state,
            "engine_generator": self.model.context.generator_state,
            "order": {name: value.copy() for name, value in self.order.items()},
        }

    def _state(self) -> TrainState:
        result, last = self.result, self.last
        return TrainState(
            optimizer=self.optimizer.state_dict(),
            generator=last["generator"],
            engine_generator=last["engine_generator"],
            order=last["order"],
            loss=list(result.loss),
            validation=list(result.validation),
            skipped=result.skipped,
            loss_scale=self.guard.state(),
            best_step=result.best_step,
            parameters=None if self.best is None else self.model.state_dict(),
        )

    def _restore(self, state: TrainState) -> None:
        """Goes back to where `state` was taken."""
        self.result = FitResult(
            loss=list(state.loss),
            validation=list(state.validation),
            skipped=state.skipped,
            best_step=state.best_step,
        )
        if len(state.loss) >= self.config.steps and not self._due():
            raise ModelError(
                f"{len(state.loss)} of {self.config.steps} steps are done; "
                "a higher --steps trains on"
            )
        if state.order.keys() != self.order.keys():
            raise ModelError("the training state belongs to another kind of data")
        for name, value in state.order.items():
            if value.shape != self.order[name].shape:
                raise ModelError("the training state belongs to other data")
            self.order[name][...] = value
        self._restore_best(state)
        self.optimizer.load_state_dict(state.optimizer)
        self.schedule.go_to(len(state.loss))
        try:
            self.rng.bit_generator.state = state.generator
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the training state's generator is garbled ({error})") from error
        self.model.context.generator_state = state.engine_generator
        self.guard.restore(state.loss_scale, state.skipped)

    def _restore_best(self, state: TrainState) -> None:
        """Takes up the parameters of the last step, and with patience those of the best."""
        result, patience = self.result, self.config.patience
        if not patience:
            result.best_step = 0  # the last model is the one to keep
        elif state.parameters is not None:
            self.best = self.model.state_dict()
            self.best_loss = dict(state.validation)[state.best_step]
        else:  # nobody followed the validations so far: the first to compare with is the last one
            self.followed_from = len(state.loss)
            last, loss = max(state.validation, default=(0, math.inf))
            if last == len(state.loss) and math.isfinite(loss):
                self.best, self.best_loss = self.model.state_dict(), loss
                result.best_step = last
        if not self._due() and self._out_of_patience():
            raise ModelError(
                f"training stopped early at step {len(state.loss)}: a patience of {patience} has "
                f"run out, no validation was better than that at step {result.best_step}; "
                f"a --patience above {self._misses()}, or --patience 0, trains on"
            )
        if state.parameters is not None:
            self.model.load_state_dict(state.parameters)
