"""What `ternio train` does for each task: data, training, checkpoint, and a report of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ternio.cli.common import FACT_COLUMNS, command, emit, note, say, say_fact
from ternio.errors import DataError, ModelError

if TYPE_CHECKING:
    from ternio.checkpoint import Checkpoint
    from ternio.train import FitResult, LoopConfig, Progress, Trained, TrainedText

_Config = TypeVar("_Config", bound="LoopConfig")
_Trained = TypeVar("_Trained", "Trained", "TrainedText")
_MAY_CHANGE = ("steps", "patience")  # when a training goes on


@dataclass
class Job:
    """What was asked for; None stands for the default of the task.

    Attributes:
        source: file or name of the data.
        test: file of the test data, if it is one of its own.
        output: the checkpoint to write.
        resume: the checkpoint to go on from.
        plot: file for the loss curve.
        shape: entries of the model's configuration.
        settings: entries of the training's configuration.
        as_json: print one JSON object.
    """

    source: str
    test: str | None
    output: Path | None
    resume: Path | None
    plot: Path | None
    shape: dict[str, Any]
    settings: dict[str, Any]
    as_json: bool

    def __post_init__(self) -> None:
        from ternio.files import require_apart
        from ternio.train.progress import check_plot

        stem = Path(self.source).resolve().stem or "model"
        # As much of a file's name as a blob can carry: 31 bytes of UTF-8.
        self.name = stem.encode()[:31].decode(errors="ignore")
        self.path = self.output or self.resume or Path(f"{stem}.ckpt")
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: there is no folder {self.path.parent}")
        inputs = {"data": self.source, "test": self.test}
        require_apart(self.path, **inputs)
        if self.plot is not None:
            check_plot(self.plot)
            require_apart(self.plot, checkpoint=self.path, **inputs)
            require_apart(self.plot, checkpoint=self.resume)
        self.shape = {k: v for k, v in self.shape.items() if v is not None}
        self.settings = {k: v for k, v in self.settings.items() if v is not None}
        if self.resume is not None:
            fixed = [*self.shape, *(k for k in self.settings if k not in _MAY_CHANGE)]
            if fixed:
                option = fixed[0].replace("_", "-") if fixed[0] != "ternary" else "float"
                raise DataError(f"--{option} cannot change with --resume; leave it out")

    def load(self, kind: str) -> Checkpoint | None:
        """The checkpoint to go on from, if any."""
        from ternio.checkpoint import load_checkpoint

        if self.resume is None:
            self._require_own(kind)
            return None
        checkpoint = load_checkpoint(self.resume)
        if checkpoint.kind != kind:
            raise ModelError(f"{self.resume.name}: trained with --task {checkpoint.kind}")
        if checkpoint.state is None:
            raise ModelError(f"{self.resume.name}: holds no training state to go on from")
        self.name = checkpoint.name
        return checkpoint

    def _require_own(self, kind: str) -> None:
        """Raises DataError when the default output is there and of another kind: gestures.csv and
        gestures.txt would both become gestures.ckpt.
        """
        from ternio.checkpoint import load_checkpoint

        if self.output is not None or not self.path.exists():
            return
        try:
            found = f"a checkpoint of --task {load_checkpoint(self.path).kind}"
        except ModelError:
            found = "no checkpoint"
        if found != f"a checkpoint of --task {kind}":
            raise DataError(f"{self.path} is {found}: name another file with --output")

    def train(self, train: Callable[[Progress | None], _Trained]) -> _Trained:
        """Runs a training under a bar and saves its checkpoint: once it has begun, Ctrl-C ends it
        earlier, and loses nothing of it.
        """
        from ternio.checkpoint import save_checkpoint
        from ternio.train import progress_bar
        from ternio.train.interrupts import hold_interrupts

        with hold_interrupts():
            with progress_bar("training") as progress:
                trained = train(progress)
            save_checkpoint(self.path, trained.checkpoint)
        return trained

    def config(self, kind: type[_Config], before: Checkpoint | None, **more: Any) -> _Config:
        """The settings: those of a training that goes on, or those given."""
        if before is not None:
            return kind.from_dict(before.training, **self.settings)
        return kind(**self.settings, **more)


def classify(job: Job, options: dict[str, Any], augment: bool) -> None:
    """Trains a classifier."""
    from ternio import data
    from ternio.train import TrainConfig, train_classifier

    before = job.load("classify")
    off = {} if augment else {"noise": 0.0, "gain": 0.0, "shift": 0.0}
    config = job.config(TrainConfig, before, **off)
    sets = data.load(job.source, job.test, seed=config.seed, **options)
    trained = job.train(lambda p: train_classifier(sets, job.name, config, p, before, **job.shape))
    checkpoint, right = trained.checkpoint, trained.evaluation
    inputs, labels = data.InputDescription.from_training(sets.train), checkpoint.labels
    shown = ", ".join(labels[:6]) + (", ..." if len(labels) > 6 else "")
    about = (
        f"{sets.train.name}: {len(sets.train)} + {len(sets.test)} examples, "
        f"{len(inputs.channels)} channels x {inputs.length} samples, "
        f"{len(labels)} classes ({shown})"
    )
    facts = {
        "data": sets.train.name,
        "train_examples": len(sets.train),
        "test_examples": len(sets.test),
        "channels": list(inputs.channels),
        "length": inputs.length,
        "labels": list(labels),
        "test_correct": right.correct,
        "test_accuracy": right.accuracy,
        "confusion": right.confusion.tolist(),
    }
    test_line = f"{right.correct} of {len(sets.test)} right ({100 * right.accuracy:.1f} %)"
    _finish(
        job, checkpoint, trained.fit, trained.notes, facts, {"data": about}, {"test": test_line}
    )


def language(job: Job, prompt: str | None, sample: int, temperature: float, top_k: int) -> None:
    """Trains a language model and lets it write."""
    from ternio import data
    from ternio.train import TextConfig, generate, train_language_model

    if prompt == "" or not 0 <= temperature < math.inf or top_k < 0 or sample < 0:
        raise DataError("--prompt is not to be empty; --temperature, --top-k, --sample not below 0")
    kind = job.shape.pop("vocabulary", "characters")
    if kind not in data.VOCABULARIES:
        raise DataError(f"--vocabulary {kind}: expected {' or '.join(data.VOCABULARIES)}")
    before = job.load("lm")
    config = job.config(TextConfig, before)
    context = before.language_model.config.context if before else job.shape.get("context", 128)
    corpus = data.load_corpus(
        job.source, context, before.vocabulary if before and before.vocabulary else kind
    )
    trained = job.train(
        lambda p: train_language_model(corpus, job.name, config, p, before, **job.shape)
    )
    count, unit = len(corpus.vocabulary), corpus.vocabulary.kind.removesuffix("s")
    about = (
        f"{corpus.name}: {len(corpus.train)} + {len(corpus.validation)} {unit}s, "
        f"vocabulary of {count}"
    )
    known = math.isfinite(trained.loss)
    facts: dict[str, Any] = {
        "data": corpus.name,
        "train_tokens": len(corpus.train),
        "validation_tokens": len(corpus.validation),
        "vocabulary": count,
        "context": context,
        "validation_loss": trained.loss if known else None,
        "validation": trained.fit.validation,
    }
    valid_line = f"loss {trained.loss:.3f} nats per {unit}, {trained.loss / math.log(2):.2f} bits"

    def write() -> str:
        model = trained.checkpoint.language_model
        words = corpus.vocabulary
        start = words.opening if prompt is None else prompt
        return generate(model, words, start, sample, temperature, top_k, seed=config.seed)

    _finish(
        job,
        trained.checkpoint,
        trained.fit,
        trained.notes,
        facts,
        {"data": about},
        {"valid": valid_line} if known else {},
        write if sample else None,
    )


def _finish(
    job: Job,
    checkpoint: Checkpoint,
    fit: FitResult,
    notes: list[str],
    facts: dict[str, Any],
    before: dict[str, str],
    after: dict[str, str],
    write: Callable[[], str] | None = None,
) -> None:
    """Draws the curve, prints the report.

    Args:
        job: what was asked for.
        checkpoint, fit, notes: what came out.
        facts: of the task, for JSON.
        before, after: lines of the task, above and below those about model and training.
        write: gives a sample of text.
    """
    from ternio.train import plot_curve
    from ternio.train.interrupts import hold_interrupts

    with hold_interrupts() as interrupts:
        if job.plot is not None:
            plot_curve(job.plot, fit, checkpoint.name)
    pressed = interrupts.count > 0
    parameters, ternary = checkpoint.model.count()
    known = [value for value in fit.loss if math.isfinite(value)]
    if fit.interrupted or pressed:
        write = None
    sample = None
    if job.as_json:
        try:
            sample = write() if write is not None else None
        except KeyboardInterrupt:  # the training is done, and its report is not lost
            pressed = True
        facts |= {
            "parameters": parameters,
            "ternary_weights": ternary,
            "steps": len(fit.loss),
            "seconds": round(fit.seconds, 2),
            "loss": known[-1] if known else None,
            "skipped": fit.skipped,
            "best_step": fit.best_step,
            "stopped_early": fit.stopped,
            "interrupted": fit.interrupted,
            "checkpoint": str(job.path),
            "bytes": job.path.stat().st_size,
            "notes": notes,
        }
        emit(facts | ({} if sample is None else {"sample": sample}))
    else:
        for text in notes:
            note(text)
        kind = f"{ternary} of them ternary" if ternary else "float"
        lines = {**before, "model": f"{parameters} parameters, {kind}"}
        if known:
            lines["train"] = _described(fit, known)
        lines |= after
        lines["wrote"] = f"{job.path} ({job.path.stat().st_size / 1000:.0f} KB)"
        if job.plot is not None:
            lines["plot"] = str(job.plot)
        if fit.interrupted:
            task = " --task lm" if checkpoint.kind == "lm" else ""
            again = command(f"ternio train{task}", Path(job.source), "--resume", job.path)
            lines["next"] = f"{again} (with the same options for data)"
        else:
            lines["next"] = command("ternio pack", job.path)
        for name, text in lines.items():
            say_fact(name, text) if name != "next" else say(f"{name:<{FACT_COLUMNS}}{text}")
        if write is not None:  # last: who does not wait for it has the report
            say(f"sample\n{write()}")
    if fit.interrupted or pressed:
        raise typer.Exit(130)


def _described(fit: FitResult, known: list[float]) -> str:
    """A training in one line."""
    parts = [f"{len(fit.loss)} steps in {fit.seconds:.1f} s"]
    if fit.interrupted:
        parts[0] += " (interrupted)"
    parts.append(f"loss {known[0]:.3f} -> {known[-1]:.4f}")
    if fit.skipped:
        parts.append(f"{fit.skipped} updates skipped for infinite gradients")
    if fit.stopped:
        parts.append("stopped early")
    if fit.best_step:
        parts.append(f"kept step {fit.best_step}")
    return ", ".join(parts)
