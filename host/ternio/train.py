"""Training of classifiers: fit(), evaluate(), and the progress bar that terminals get.

>>> sets = data.load("motion")
>>> result = fit(model, inputs, sets.train, TrainConfig(steps=300))
>>> evaluate(model, inputs, sets.test).accuracy
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from . import functional as F
from .checkpoint import Checkpoint
from .data import Dataset, InputDescription, Prepared
from .errors import DataError, ModelError
from .models import Classifier, ClassifierConfig
from .optim import AdamW, CosineSchedule, clip_grad_norm_
from .tensor import Tensor, manual_seed

Progress = Callable[[int, int, float], None]
"""Called after each step with the steps done, their total and the loss."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are those of the reference model.

    Attributes:
        steps: updates.
        batch: examples per update.
        lr: highest rate; it follows a cosine to 0.
        warmup: updates with a rising rate.
        weight_decay: for matrices.
        clip: largest gradient norm.
        noise: deviation of noise added to inputs (of deviation 1).
        gain: relative deviation of a random factor per example.
        shift: largest circular shift, as a part of the window.
        seed: of batches and augmentation.
    """

    steps: int = 300
    batch: int = 20
    lr: float = 2e-3
    warmup: int = 0
    weight_decay: float = 0.05
    clip: float = 1.0
    noise: float = 0.05
    gain: float = 0.1
    shift: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 1), ("warmup", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ModelError(f"{name} is {getattr(self, name)}; expected at least {low}")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelError(f"{name} is {getattr(self, name)}; expected a number above 0")
        for name in ("weight_decay", "noise", "gain", "shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"{name} is {getattr(self, name)}; expected a number in 0..1")


@dataclass
class FitResult:
    """What fit() did.

    Attributes:
        loss: of every step.
        seconds: it took.
        interrupted: stopped by Ctrl-C before the last step; the model is what it was then.
    """

    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Predictions on a data set.

    Attributes:
        logits: float32 [n, classes].
        confusion: int [classes, classes], rows are true classes.
    """

    logits: np.ndarray
    confusion: np.ndarray

    @property
    def correct(self) -> int:
        """Number of right answers."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """Part of right answers."""
        return self.correct / max(1, int(self.confusion.sum()))


def network_input(inputs: InputDescription, data: Dataset) -> np.ndarray:
    """Windows as a board's network sees them: quantised to int16, then normalised."""
    return inputs.normalize(inputs.quantize(data.x))


def fit(
    model: Classifier,
    inputs: InputDescription,
    train: Dataset,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Trains with AdamW, a cosine schedule and augmentation. Ctrl-C ends it early.

    Args:
        model: changed in place.
        inputs: how windows are normalised.
        train: the training set.
        config: how to train.
        progress: called after each step.

    Raises:
        DataError: labels or shapes that do not fit the model.
        ModelError: the loss is no longer finite.
    """
    config = config or TrainConfig()
    if len(train.labels) != model.config.classes:
        raise DataError(f"{len(train.labels)} labels, the model has {model.config.classes} outputs")
    rng = np.random.default_rng(config.seed)
    x = network_input(inputs, train)
    optimizer = AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = CosineSchedule(optimizer, config.steps, config.warmup)
    batches = _batches(len(train), config.batch, rng)
    result, start = FitResult(), time.monotonic()
    model.train()
    try:
        for step in range(config.steps):
            chosen = next(batches)
            rows = _augment(x[chosen], config, rng)
            loss = _step(model, optimizer, rows, train.y[chosen], config.clip, step)
            schedule.step()
            result.loss.append(loss)
            if progress is not None:
                progress(step + 1, config.steps, loss)
    except KeyboardInterrupt:
        result.interrupted = True
        model.context.reset()
        optimizer.zero_grad()
    finally:
        model.eval()
    result.seconds = time.monotonic() - start
    return result


def _step(
    model: Classifier, optimizer: AdamW, x: np.ndarray, y: np.ndarray, clip: float, step: int
) -> float:
    """One update; returns the loss before it."""
    context = model.context
    loss = F.cross_entropy(model(x), Tensor(y, context=context))
    value = loss.item()
    if not math.isfinite(value):
        context.reset()
        raise ModelError(f"the loss became {value} at step {step + 1}; try a lower --lr")
    loss.backward()
    if not math.isfinite(clip_grad_norm_(optimizer, clip)):
        optimizer.zero_grad()
        raise ModelError(f"the gradient became infinite at step {step + 1}; try a lower --lr")
    optimizer.step()
    optimizer.zero_grad()
    return value


def _batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices, each example once per pass; less than half a batch at its end is left out."""
    batch = min(batch, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count, batch):
            if count - start >= batch or 2 * (count - start) >= batch:
                yield order[start : start + batch]


def _augment(x: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> np.ndarray:
    """Windows [n, length, channels] with random gain, noise and circular shift per example."""
    count, length, _ = x.shape
    gains = 1 + config.gain * rng.standard_normal((count, 1, 1))
    out = x * gains + config.noise * rng.standard_normal(x.shape)
    most = int(config.shift * length)
    if most:
        shifts = rng.integers(-most, most + 1, size=count)
        out = np.stack([np.roll(w, s, axis=0) for w, s in zip(out, shifts, strict=True)])
    return out.astype(np.float32)


def evaluate(model: Classifier, inputs: InputDescription, data: Dataset) -> Evaluation:
    """Logits and confusion matrix on a data set, in evaluation mode."""
    training = model.training
    logits = model.eval().predict(network_input(inputs, data))
    model.train(training)
    classes = model.config.classes
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (data.y, logits.argmax(axis=1)), 1)
    return Evaluation(logits, confusion)


@dataclass(frozen=True)
class Trained:
    """A trained classifier and how it came about.

    Attributes:
        checkpoint: the model with all that belongs to it, ready to be saved or compiled.
        fit: losses and time.
        evaluation: on the test set.
        notes: lines for a person about decisions on the data.
    """

    checkpoint: Checkpoint
    fit: FitResult
    evaluation: Evaluation
    notes: list[str]


def train_classifier(
    sets: Prepared,
    name: str,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
    **shape: Any,
) -> Trained:
    """Describes the inputs, builds a model to fit the data, trains and tests it.

    Args:
        sets: from data.load().
        name: of the model.
        config: how to train; its seed also initialises the model.
        progress: called after each step.
        shape: entries of ClassifierConfig: patch, width, layers, heads, kv_heads, ffn, ternary, ...
            By default the patch is 4 samples, or the window where that is shorter.

    Raises:
        DataError, ModelError: see fit() and ClassifierConfig.
    """
    config = config or TrainConfig()
    inputs = InputDescription.from_training(sets.train)
    manual_seed(config.seed)
    labels = sets.train.labels
    data_shape = {"channels": len(inputs.channels), "length": inputs.length, "classes": len(labels)}
    shape.setdefault("patch", min(4, inputs.length))
    model = Classifier(ClassifierConfig(**data_shape, **shape))
    result = fit(model, inputs, sets.train, config, progress)
    evaluation = evaluate(model, inputs, sets.test)
    report = {"data": sets.train.name, "accuracy": evaluation.accuracy, "seed": config.seed}
    loss = np.array(result.loss, dtype=np.float32)
    checkpoint = Checkpoint(model, labels, inputs, name, loss, report, asdict(config))
    return Trained(checkpoint, result, evaluation, [*sets.notes, *inputs.remarks(sets.train)])


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """A bar on standard error with loss, rate and time left; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}  loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:.1f} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, loss=math.nan, rate=0.0)
        start = time.monotonic()

        def update(done: int, total: int, loss: float) -> None:
            rate = done / max(1e-9, time.monotonic() - start)
            bar.update(task, completed=done, total=total, loss=loss, rate=rate)

        yield update
