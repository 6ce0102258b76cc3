"""What a person sees of a training: the bar while it runs, and the curve afterwards."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .loop import FitResult, Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Loss, rate and time left on standard error: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(title)
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
        task = bar.add_task(title, total=None, visible=False, loss=math.nan, rate=0.0)
        first: list[tuple[int, float]] = []  # a training that goes on has steps behind it

        def update(done: int, total: int, loss: float) -> None:
            now = time.monotonic()
            if not first:
                first.append((done, now))
            rate = (done - first[0][0]) / max(1e-9, now - first[0][1])
            bar.update(task, completed=done, total=total, visible=True, loss=loss, rate=rate)

        yield update


LINE_SECONDS = 10.0  # between two lines of a training whose standard error is no terminal


def _lines(title: str) -> Progress:
    """Prints a line every LINE_SECONDS; nothing for a training that is over before."""
    begun, printed = time.monotonic(), time.monotonic()
    before: int | None = None  # steps of an earlier training that this one goes on from

    def update(done: int, total: int, loss: float) -> None:
        nonlocal printed, before
        now = time.monotonic()
        before = done - 1 if before is None else before
        if now - printed < LINE_SECONDS:
            return
        printed, rate = now, (done - before) / (now - begun)
        left = timedelta(seconds=round((total - done) / rate))
        print(
            f"{title}: {done}/{total}  loss {loss:.4f}  {rate:.1f} steps/s  {left} left",
            file=sys.stderr,
            flush=True,
        )

    return update


PLOTS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """DataError where plot_curve() could not write; to be asked before hours of training."""
    if path.suffix.lower() not in PLOTS:
        raise DataError(f"--plot {path}: expected a name that ends in {', '.join(PLOTS)}")
    if not path.resolve().parent.is_dir():
        raise DataError(f"--plot {path}: there is no folder {path.parent}")


def plot_curve(path: Path, result: FitResult, title: str) -> None:
    """Draws the loss of every step, its running mean and the validations as .png, .svg or .pdf."""
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats)")
    axes.set_title(title, parse_math=False)  # a name may have dollars
    steps = np.arange(1, len(result.loss) + 1)
    axes.plot(steps, result.loss, color="0.75", linewidth=0.8, label="each step")
    axes.plot(steps, running_mean(result.loss), color="tab:blue", label="mean of the last 20")
    if result.validation:
        at, losses = zip(*result.validation, strict=True)
        axes.plot(at, losses, "o-", color="tab:orange", markersize=4, label="validation")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_trace(path: Path, trace: Sequence[dict[str, float]], title: str = "Chuck") -> None:
    """Draws what Chuck.trace() returned after each step, a panel for each of its values.

    >>> optimizer.observe(loss.item()); optimizer.step(); trace.append(optimizer.trace())
    """
    check_plot(path)
    if not trace:
        raise DataError(f"--plot {path}: the trace is empty")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(trace[0])
    figure = Figure(figsize=(7, 1.5 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(
        figure.subplots(len(names), sharex=True, squeeze=False)[:, 0], names, strict=True
    ):
        axes.plot(np.arange(1, len(trace) + 1), [step[name] for step in trace], color="tab:blue")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    figure.suptitle(title, parse_math=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        with warnings.catch_warnings():  # of letters that the font lacks: boxes stand for them
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(path, dpi=120)
    except OSError as error:
        raise DataError(f"--plot {path}: cannot be written ({error.strerror})") from error


def running_mean(values: list[float], count: int = 20) -> np.ndarray:
    """Mean of each value and up to `count` - 1 before it; NaN does not count."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    numbers = np.concatenate([[0], np.cumsum(known)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - count)
    total = numbers[end] - numbers[start]
    return np.where(total > 0, (sums[end] - sums[start]) / np.maximum(total, 1), np.nan)
