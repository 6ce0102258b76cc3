"""What a person sees of a training: the bar while it runs, and the curve afterwards."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from .loop import FitResult, Progress


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
        task = bar.add_task(title, total=None, visible=False, loss=math.nan, rate=0.0)
        first: list[tuple[int, float]] = []  # a training that goes on has steps behind it

        def update(done: int, total: int, loss: float) -> None:
            now = time.monotonic()
            if not first:
                first.append((done, now))
            rate = (done - first[0][0]) / max(1e-9, now - first[0][1])
            bar.update(task, completed=done, total=total, visible=True, loss=loss, rate=rate)

        yield update


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
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="loss (nats)")
    steps = np.arange(1, len(result.loss) + 1)
    axes.plot(steps, result.loss, color="0.75", linewidth=0.8, label="each step")
    axes.plot(steps, running_mean(result.loss), color="tab:blue", label="mean of the last 20")
    if result.validation:
        at, losses = zip(*result.validation, strict=True)
        axes.plot(at, losses, "o-", color="tab:orange", markersize=4, label="validation")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
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
