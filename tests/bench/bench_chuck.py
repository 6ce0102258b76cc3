"""Chuck against Adam at the same base rate: steps that each needs to reach given losses.

    python tests/bench/bench_chuck.py [--tasks motion,text] [--seeds 5] [--steps N] [--lr X]
                                      [--schedule constant] [--trace levels.svg]

Both train the same models from the same weights on the same batches, without weight decay, at a
constant rate unless --schedule names another. A loss counts as reached when the mean of the last
ten steps' losses falls to it; "-" where it does not within the steps. What comes out is printed as
it is. --trace draws Chuck's five levels over the steps of its first run.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ternio import data, manual_seed, optim
from ternio import functional as F
from ternio.models import Classifier, ClassifierConfig, LanguageModel, LanguageModelConfig
from ternio.tensor import Tensor
from ternio.train import TextConfig, TrainConfig, network_input
from ternio.train.batches import Batches, TextWindows
from ternio.train.classify import augment
from ternio.train.loop import Loop, LoopConfig

MEAN_OF = 10


class Task(NamedTuple):
    """A model to train: the losses to reach, the default budget, and what makes a run."""

    losses: tuple[float, ...]
    steps: int
    lr: float
    make: Callable[[LoopConfig], Loop]


def motion(config: LoopConfig) -> Loop:
    sets = data.load("motion")
    x = network_input(data.InputDescription.from_training(sets.train), sets.train)
    y, settings = sets.train.y, TrainConfig.from_dict(config.to_dict())
    manual_seed(config.seed)
    model = Classifier(ClassifierConfig(x.shape[2], x.shape[1], len(sets.train.labels), patch=4))
    batches = Batches(len(x), config.batch)

    def draw(rng: np.random.Generator) -> Tensor:
        chosen = batches.draw(rng)
        rows = augment(x[chosen], settings, rng)
        return F.cross_entropy(model(rows), Tensor(y[chosen], context=model.context))

    return Loop(model, config, draw, order=batches.state)


def text(config: LoopConfig) -> Loop:
    """Half the width and half the context of the model `text`, to be done sooner."""
    context = 64
    corpus = data.load_corpus("text", context)
    manual_seed(config.seed)
    shape = {"context": context, "width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 176}
    model = LanguageModel(LanguageModelConfig(len(corpus.vocabulary), **shape))
    windows = TextWindows(len(corpus.train), context, config.batch)

    def draw(rng: np.random.Generator) -> Tensor:
        rows = corpus.train[windows.draw(rng)[:, None] + np.arange(context + 1)]
        ids, targets = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
        return F.cross_entropy(model(ids), Tensor(targets, context=model.context))

    return Loop(model, config, draw, order=windows.state)


TASKS = {
    "motion": Task((1.0, 0.5, 0.2, 0.1, 0.05), 300, 2e-3, motion),
    "text": Task((3.0, 2.5, 2.25, 2.0, 1.9), 300, TextConfig.lr / 2, text),
}


def run(task: Task, name: str, options, seed: int, trace: list | None) -> np.ndarray:
    """Losses of one training."""
    config = LoopConfig(
        steps=options.steps or task.steps,
        batch=16,
        lr=options.lr or task.lr,
        weight_decay=0.0,
        seed=seed,
        schedule=options.schedule,
        optimizer=name,
    )
    loop = task.make(config)
    chuck = loop.optimizer
    if isinstance(chuck, optim.Chuck) and trace is not None:
        own = range(len(chuck.params))
        loop.progress = lambda *_: trace.append((chuck.trace(), [chuck.trace(i) for i in own]))
    return np.array(loop.run().loss)


def steps_to(losses: np.ndarray, goal: float) -> float:
    """The first step whose mean of the last MEAN_OF losses is at most `goal`; infinite if none."""
    means = np.convolve(losses, np.ones(MEAN_OF) / MEAN_OF, "valid")
    reached = np.flatnonzero(means <= goal)
    return float(reached[0] + MEAN_OF) if len(reached) else math.inf


def shown(steps: float) -> str:
    return f"{steps:.0f}" if math.isfinite(steps) else "-"


def compare(name: str, options, trace: list) -> None:
    """Trains and prints the table of one task."""
    task = TASKS[name]
    curves: dict[str, list[np.ndarray]] = {"adam": [], "chuck": []}
    for seed in range(options.seeds):
        for optimizer, runs in curves.items():
            runs.append(run(task, optimizer, options, seed, None if trace else trace))
    steps, lr = options.steps or task.steps, options.lr or task.lr
    print(f"{name}: {steps} steps, {options.schedule} rate {lr:g}, {options.seeds} seeds")
    print("  loss   adam: median (each seed)             chuck: median (each seed)      sooner")
    for goal in task.losses:
        found = {k: [steps_to(losses, goal) for losses in runs] for k, runs in curves.items()}
        cells = [
            f"{shown(statistics.median_low(v)):>4} ({' '.join(map(shown, v))})"
            for v in found.values()
        ]
        wins = [a - c for a, c in zip(*found.values(), strict=True) if math.isfinite(min(a, c))]
        sooner = f"{sum(d >= 0 for d in wins)} of {len(wins)}" if wins else "neither"
        print(f"  {goal:<5}  {cells[0]:<36} {cells[1]:<30} {sooner}")
    ends = {k: statistics.median(r[-MEAN_OF:].mean() for r in runs) for k, runs in curves.items()}
    print("  at the end " + ", ".join(f"{k} {v:.3f}" for k, v in ends.items()), flush=True)


def draw_levels(trace: list, path: Path) -> None:
    """The five levels over the steps, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    loss, own = [t for t, _ in trace], [p for _, p in trace]
    panels = {
        "1 lambda": [[t["lambda"] for t in loss]],
        "2 lambda of each parameter": np.array([[p["lambda"] for p in ps] for ps in own]).T,
        "3 noise": [[t["noise"] for t in loss]],
        "4 parameters frozen": [[sum(p["frozen"] for p in ps) for ps in own]],
        "5 scale": [[t["scale"] for t in loss]],
        "mean of the loss, slow mean": [[t[k] for t in loss] for k in ("mean", "slow_mean")],
    }
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 10), sharex=True)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for line in lines:
            axis.plot(line, linewidth=1)
        axis.set_title(title, loc="left", fontsize=9)
    axes[-1].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="motion,text")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="0: the task's own")
    parser.add_argument("--lr", type=float, default=0.0, help="0: the task's own")
    parser.add_argument("--schedule", default="constant", choices=optim.SCHEDULES)
    parser.add_argument("--trace", type=Path, help="a figure of Chuck's levels (.png, .svg)")
    options = parser.parse_args()
    trace: list = []
    for name in options.tasks.split(","):
        compare(name, options, trace)
    if options.trace:
        draw_levels(trace, options.trace)


if __name__ == "__main__":
    main()
