"""Adapting a board, or the runtime on this computer, from labelled windows: which examples, in
which order, step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ternio.errors import DataError
from ternio.link.client import Inference, Step

# What single-example steps may do to a mean loss (factor and nats) and to how many are right (a
# part of all) without harm.
LOSS_FACTOR, LOSS_NATS, FEWER = 1.25, 0.1, 0.1
SCORED = 40  # examples at most: each takes the way over the port, twice
_LEAST_P = 1e-12


class Learner(Protocol):
    """What `teach` needs of a BoardClient."""

    def adapt_begin(self, **config: object) -> tuple[int, int]: ...

    def adapt_step(self, window: np.ndarray, label: int) -> Step: ...


class Classifier(Protocol):
    """What `score` needs of a BoardClient."""

    def infer(self, window: np.ndarray) -> Inference: ...


@dataclass(frozen=True)
class Score:
    """How well examples are answered: how many rightly, out of how many, mean loss in nats."""

    right: int
    count: int
    loss: float

    def is_worse_than(self, before: Score) -> bool:
        """Whether what was learnt in between did harm: the loss grew, or fewer are right, by more
        than chance does.

        >>> Score(10, 40, 3.0).is_worse_than(Score(30, 40, 0.4))
        True
        """
        if self.right < before.right - FEWER * self.count:
            return True
        bound = LOSS_FACTOR * before.loss + LOSS_NATS
        return self.right < self.count and not self.loss <= bound


def score(
    machine: Classifier,
    windows: np.ndarray,
    classes: np.ndarray,
    most: int = SCORED,
    progress: Callable[[int, int], None] | None = None,
) -> Score:
    """Has up to `most` of the windows [n, length, channels] classified, evenly spread; `progress`
    is told (windows done, all of them).
    """
    picked = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), most)).round())
    answers = []
    for i in picked.astype(int):
        answers.append((machine.infer(windows[i]), int(classes[i])))
        if progress:
            progress(len(answers), len(picked))
    right = sum(answer.index == true for answer, true in answers)
    losses = [-math.log(max(answer.probability_of(true), _LEAST_P)) for answer, true in answers]
    return Score(right, len(answers), sum(losses) / len(losses))


def choose_examples(classes: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of up to `per_class` examples of each class, drawn by `seed`, in ascending order."""
    classes = np.asarray(classes)
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(classes == c))[:per_class] for c in np.unique(classes)]
    if not chosen:
        raise DataError("no examples to adapt with")
    return np.sort(np.concatenate(chosen))


def step_order(count: int, steps: int, seed: int) -> np.ndarray:
    """Which of `count` examples each step takes: one seeded shuffle after the other."""
    rng = np.random.default_rng([seed, 1])
    rounds = -(-steps // count)
    return np.concatenate([rng.permutation(count) for _ in range(rounds)])[:steps]


def teach(
    learner: Learner,
    windows: np.ndarray,
    classes: np.ndarray,
    steps: int,
    lr: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Step]:
    """Begins (or goes on with) an adaptation and does `steps` single-example steps.

    Args:
        windows: int16 [n, length, channels].
        classes: class index of each window.
        lr: Adam's rate.
        seed: of the order and of fresh factors.
        progress: told (steps done, all steps).
    """
    learner.adapt_begin(lr=float(lr), seed=int(seed))
    log = []
    for i in step_order(len(windows), steps, seed):
        log.append(learner.adapt_step(windows[i], int(classes[i])))
        if progress:
            progress(len(log), steps)
    return log
