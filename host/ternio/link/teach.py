"""Adapting a board, or the runtime on this computer, from labelled windows: which examples, in
which order, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ternio.errors import DataError
from ternio.link.client import Step


class Learner(Protocol):
    """What `teach` needs of a BoardClient."""

    def adapt_begin(self, **config: object) -> tuple[int, int]: ...

    def adapt_step(self, window: np.ndarray, label: int) -> Step: ...


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
