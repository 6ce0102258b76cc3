"""Training of classifiers: fit(), evaluate(), train_classifier().

>>> sets = data.load("motion")
>>> result = fit(model, inputs, sets.train, TrainConfig(steps=300))
>>> evaluate(model, inputs, sets.test).accuracy
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import functional as F
from ..checkpoint import Checkpoint
from ..data import Dataset, InputDescription, Prepared
from ..errors import DataError, ModelError
from ..models import Classifier, ClassifierConfig
from ..tensor import Tensor, manual_seed
from ..train_state import TrainState
from .batches import Batches
from .loop import FitResult, Loop, LoopConfig, Progress

HELD_OUT = 0.2
"""Part of each class of the training set that decides when patience has run out."""


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """How to train a classifier; the defaults are those of the reference model `motion`.

    Attributes:
        noise: deviation of noise added to inputs (of deviation 1).
        gain: relative deviation of a random factor per example.
        shift: largest circular shift, as a part of the window.
    """

    noise: float = 0.05
    gain: float = 0.1
    shift: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("noise", "gain", "shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"{name} is {getattr(self, name)}; expected a number in 0..1")


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
    state: TrainState | None = None,
) -> FitResult:
    """Trains with AdamW, a schedule and augmentation. Ctrl-C ends it early.

    With `config.patience` a part of the examples is set aside, and the model becomes the one that
    did best on them. A training that goes on without patience leaves them aside.

    Args:
        model: changed in place; factors of LoRA only where it has some.
        inputs: how windows are normalised.
        train: the training set.
        config: how to train.
        progress: called after each step.
        state: where an earlier fit() of this model stopped; the rest follows to the bit.

    Raises:
        DataError: labels or shapes that do not fit the model, or other data than before.
        ModelError: loss or weights are no longer finite.
    """
    config = config or TrainConfig()
    if len(train.labels) != model.config.classes:
        raise DataError(f"{len(train.labels)} labels, the model has {model.config.classes} outputs")
    digest = dataset_digest(train)
    if state is not None and state.data != digest:
        raise DataError(f"{train.name}: not the examples that this training began with")
    held_out = None
    if config.patience or _held_out_before(state, train):
        if state is not None and not _held_out_before(state, train):
            raise DataError(
                "this training set no examples aside to validate on: --patience cannot begin "
                "with --resume; leave it out, or train anew with it"
            )
        train, held_out = hold_out(train, config.seed)
    x, y = network_input(inputs, train), train.y
    batches = Batches(len(train), config.batch)

    def draw(rng: np.random.Generator) -> Tensor:
        chosen = batches.draw(rng)
        rows = augment(x[chosen], config, rng)
        return F.cross_entropy(model(rows), Tensor(y[chosen], context=model.context))

    def validate() -> float:
        assert held_out is not None
        return mean_loss(model.predict(network_input(inputs, held_out)), held_out.y)

    loop = Loop(
        model,
        config,
        draw,
        validate=validate if held_out is not None else None,
        order=batches.state,
        state=state,
        progress=progress,
    )
    result = loop.run()
    if result.state is not None:
        result.state.data = digest
    return result


def _held_out_before(state: TrainState | None, train: Dataset) -> bool:
    """Whether a training that goes on set examples aside when it began, which it then keeps to."""
    order = None if state is None else state.order.get("order")
    return order is not None and len(order) < len(train)


def augment(x: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> np.ndarray:
    """Windows [n, length, channels] with random gain, noise and circular shift per example."""
    count, length, _ = x.shape
    gains = 1 + config.gain * rng.standard_normal((count, 1, 1))
    out = x * gains + config.noise * rng.standard_normal(x.shape)
    most = int(config.shift * length)
    if most:
        shifts = rng.integers(-most, most + 1, size=count)
        out = np.stack([np.roll(w, s, axis=0) for w, s in zip(out, shifts, strict=True)])
    return out.astype(np.float32)


def hold_out(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Sets HELD_OUT of each class aside: (to train on, to validate on).

    Raises:
        DataError: a class has one example only.
    """
    rng = np.random.default_rng(seed)
    aside: list[int] = []
    for k, name in enumerate(data.labels):
        members = rng.permutation(np.flatnonzero(data.y == k))
        if len(members) == 1:
            raise DataError(f"{name!r} has one example: too few to set some aside for --patience")
        aside += members[: max(1, round(HELD_OUT * len(members)))].tolist() if len(members) else []
    mask = np.zeros(len(data), dtype=bool)
    mask[aside] = True
    parts = (replace(data, x=data.x[m], y=data.y[m]) for m in (~mask, mask))
    return next(parts), next(parts)


def mean_loss(logits: np.ndarray, y: np.ndarray) -> float:
    """Cross-entropy in nats of logits [n, classes]."""
    logits = logits.astype(np.float64)
    peak = logits.max(axis=1)
    norm = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
    return float((norm - logits[np.arange(len(y)), y]).mean())


def dataset_digest(data: Dataset) -> str:
    """Of examples and labels."""
    parts = (data.x.tobytes(), data.y.tobytes(), "\n".join(data.labels).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


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
    resume: Checkpoint | None = None,
    **shape: Any,
) -> Trained:
    """Describes the inputs, builds a model to fit the data, trains and tests it.

    Args:
        sets: from data.load().
        name: of the model.
        config: how to train; its seed also initialises the model.
        progress: called after each step.
        resume: a checkpoint with a training state, to go on from; then `shape` is its.
        shape: entries of ClassifierConfig: patch, width, layers, heads, kv_heads, ffn, ternary, ...
            By default the patch is 4 samples, or the window where that is shorter.

    Raises:
        DataError, ModelError: see fit() and ClassifierConfig.
    """
    config = config or TrainConfig()
    inputs = InputDescription.from_training(sets.train)
    labels = sets.train.labels
    if resume is None:
        manual_seed(config.seed)
        sizes = {"channels": len(inputs.channels), "length": inputs.length, "classes": len(labels)}
        shape.setdefault("patch", min(4, inputs.length))
        model = Classifier(ClassifierConfig(**sizes, **shape))
    else:
        model = resume.classifier
    state = resume.state if resume else None
    result = fit(model, inputs, sets.train, config, progress, state)
    evaluation = evaluate(model, inputs, sets.test)
    if not np.isfinite(evaluation.logits).all():
        raise ModelError(
            f"diverged: after {len(result.loss)} steps the model's answers are not finite; "
            "try a lower --lr"
        )
    report = {"data": sets.train.name, "accuracy": evaluation.accuracy, "seed": config.seed}
    checkpoint = Checkpoint(
        model,
        labels,
        inputs,
        name,
        np.array(result.loss, dtype=np.float32),
        report,
        config.to_dict(),
        state=result.state,
    )
    return Trained(checkpoint, result, evaluation, [*sets.notes, *inputs.remarks(sets.train)])
