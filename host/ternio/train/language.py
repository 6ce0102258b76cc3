"""Training of language models: fit_text(), validation_loss(), generate(), train_language_model().

>>> corpus = data.load_corpus("text")
>>> trained = train_language_model(corpus, "text")
>>> print(generate(trained.checkpoint.language_model, corpus.vocabulary, "The ", 200))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from ..checkpoint import Checkpoint
from ..context import no_grad
from ..data import Corpus, Vocabulary
from ..errors import DataError, ModelError
from ..models import LanguageModel, LanguageModelConfig
from ..tensor import Tensor, manual_seed
from ..train_state import TrainState
from .batches import TextWindows
from .loop import FitResult, Loop, LoopConfig, Progress


@dataclass(frozen=True)
class TextConfig(LoopConfig):
    """How to train a language model; the defaults are those of the reference model `text`."""

    steps: int = 600
    batch: int = 16
    lr: float = 8e-3
    warmup: int = 60
    weight_decay: float = 0.1
    schedule: str = "linear"
    betas: tuple[float, float] = (0.9, 0.95)
    evaluate_every: int = 100


def fit_text(
    model: LanguageModel,
    corpus: Corpus,
    config: TextConfig | None = None,
    progress: Progress | None = None,
    state: TrainState | None = None,
) -> FitResult:
    """Trains on windows of `context` tokens, all of the text once a pass. Ctrl-C ends it early.

    Args:
        model: changed in place; factors of LoRA only where it has some.
        corpus: its vocabulary has to be the model's.
        config: how to train.
        progress: called after each step.
        state: where an earlier fit_text() of this model stopped; the rest follows to the bit.

    Raises:
        DataError: a text that does not fit the model, or another than before.
        ModelError: loss, validation or weights are no longer finite.
    """
    config = config or TextConfig()
    context, count = model.config.context, len(corpus.vocabulary)
    if count != model.config.vocabulary:
        raise DataError(f"a vocabulary of {count}; the model has {model.config.vocabulary} outputs")
    if len(corpus.train) < context + 1:
        raise DataError(f"{corpus.name}: shorter than the context of {context}")
    if state is not None and state.data != corpus.digest:
        raise DataError(f"{corpus.name}: not the text that this training began with")

    windows = TextWindows(len(corpus.train), context, config.batch)

    def draw(rng: np.random.Generator) -> Tensor:
        return _loss(model, _rows(corpus.train, windows.draw(rng), context))

    loop = Loop(
        model,
        config,
        draw,
        validate=lambda: validation_loss(model, corpus.validation, config.batch),
        order=windows.state,
        state=state,
        progress=progress,
    )
    result = loop.run()
    if result.state is not None:
        result.state.data = corpus.digest
    return result


def _rows(ids: np.ndarray, starts: np.ndarray, context: int) -> np.ndarray:
    """Windows [n, context + 1] of a text from the places given."""
    return ids[starts[:, None] + np.arange(context + 1)]


def _loss(model: LanguageModel, rows: np.ndarray) -> Tensor:
    """Cross-entropy of ids [n, time + 1], each token given those before it in its row."""
    inputs, targets = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
    return F.cross_entropy(model(inputs), Tensor(targets, context=model.context))


def validation_loss(model: LanguageModel, ids: np.ndarray, batch: int = 16) -> float:
    """Nats per token over a text, cut into windows of `context` that do not overlap.

    Args:
        model: as it is.
        ids: int32 [n], n > context; what remains after the last whole window is left out.
        batch: windows at a time.
    """
    context = model.config.context
    windows = (len(ids) - 1) // context
    if windows < 1:
        raise DataError(f"{len(ids)} tokens; expected more than the context of {context}")
    total = 0.0
    with no_grad(model.context):
        for first in range(0, windows, batch):
            starts = np.arange(first, min(first + batch, windows)) * context
            rows = _rows(ids, starts, context)
            total += _loss(model, rows).item() * len(rows)
    return total / windows


def generate(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str = "\n",
    count: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
) -> str:
    """Text that follows a prompt, one token at a time.

    Args:
        model: as it is; it sees the last `context` tokens.
        vocabulary: the model's.
        prompt: not empty, and not part of the result.
        count: tokens.
        temperature: 0 takes the most likely token; below 1 safer, above 1 bolder choices.
        top_k: choose among the k most likely tokens; 0: among all.
        seed: same seed, same text.

    Raises:
        ModelError: settings out of range, or a model whose training diverged.
    """
    if not prompt:
        raise ModelError("the prompt is empty; give at least one character")
    if not (0 <= temperature < float("inf") and top_k >= 0 and count >= 0):
        raise ModelError(f"temperature {temperature:g}, top-k {top_k}, count {count}: not below 0")
    ids = list(vocabulary.encode(prompt))
    start = len(ids)
    rng = np.random.default_rng(seed)
    with no_grad(model.context):
        for logits in _last_logits(model, ids, count):
            if not np.isfinite(logits).all():
                raise ModelError("the model's logits are not finite: its training diverged")
            ids.append(sample(logits[: vocabulary.choices], temperature, top_k, rng))
    return vocabulary.decode(np.array(ids[start:], dtype=np.int32))


def _last_logits(model: LanguageModel, ids: list[int], count: int) -> Iterator[np.ndarray]:
    """Logits of the token after `ids`, `count` times; the caller appends to `ids` in between."""
    for _ in range(count):
        window = np.array([ids[-model.config.context :]], dtype=np.int32)
        yield model(window).numpy()[0, -1]


def sample(logits: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    """A token by its probability; of equal logits the lower id counts as the more likely."""
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    if temperature == 0:
        return int(order[0])
    order = order[: top_k or len(order)]
    below = logits[order].astype(np.float64) - float(logits[order[0]])
    with np.errstate(over="ignore"):  # of a temperature next to 0: those weigh nothing
        weights = np.exp(below / temperature)
    edges = np.cumsum(weights)
    return int(order[np.searchsorted(edges, rng.random() * edges[-1], side="right")])


@dataclass(frozen=True)
class TrainedText:
    """A trained language model and how it came about.

    Attributes:
        checkpoint: the model with its vocabulary, ready to be saved or compiled.
        fit: losses and time.
        loss: nats per token on the validation part; after an interrupt that of the last validation,
            NaN where there was none.
        notes: lines for a person about decisions on the text.
    """

    checkpoint: Checkpoint
    fit: FitResult
    loss: float
    notes: list[str]


def train_language_model(
    corpus: Corpus,
    name: str,
    config: TextConfig | None = None,
    progress: Progress | None = None,
    resume: Checkpoint | None = None,
    **shape: Any,
) -> TrainedText:
    """Builds a model for a text, trains and validates it.

    Args:
        corpus: from data.load_corpus().
        name: of the model.
        config: how to train; its seed also initialises the model.
        progress: called after each step.
        resume: a checkpoint with a training state, to go on from; then `shape` is its.
        shape: entries of LanguageModelConfig: context, width, layers, ternary, ...

    Raises:
        DataError, ModelError: see fit_text() and LanguageModelConfig.
    """
    config = config or TextConfig()
    if resume is None:
        manual_seed(config.seed)
        model = LanguageModel(LanguageModelConfig(len(corpus.vocabulary), **shape))
    else:
        model = resume.language_model
    result = fit_text(model, corpus, config, progress, resume.state if resume else None)
    if result.interrupted:  # who pressed Ctrl-C does not wait for another pass
        at = result.best_step or max((step for step, _ in result.validation), default=0)
        loss = dict(result.validation).get(at, math.nan)
    else:
        loss = validation_loss(model, corpus.validation, config.batch)
    report: dict[str, Any] = {"data": corpus.name, "seed": config.seed}
    if math.isfinite(loss):
        report["loss"] = round(loss, 6)
    checkpoint = Checkpoint(
        model,
        name=name,
        loss=np.array(result.loss, dtype=np.float32),
        report=report,
        training=config.to_dict(),
        vocabulary=corpus.vocabulary,
        state=result.state,
    )
    return TrainedText(checkpoint, result, loss, list(corpus.notes))
