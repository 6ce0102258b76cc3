"""How a demonstration is told: a table of promises on the terminal, one figure, one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED = "#22262b", "#8a929b"
BLUE, ORANGE, GREEN = "#2f6db5", "#d9822b", "#3f9a6b"
PART_COLOURS = (BLUE, "#7ba7d6", "#b9cfe8", ORANGE, "#efc08f", GREEN)


@dataclass(frozen=True)
class Promise:
    """One line of the table: what was required, what was measured, and whether it was kept."""

    what: str
    required: str
    measured: str
    kept: bool


@dataclass
class Account:
    """Everything that the figure shows.

    Attributes:
        title: one line over the figure.
        accuracy: (label, value 0..1, group) in the order of the road; groups colour the bars.
        loss: on the board, per step.
        memory: per kind ("flash", "RAM"): parts (name, bytes) and what the board has.
    """

    title: str
    accuracy: list[tuple[str, float, str]]
    loss: list[float]
    memory: dict[str, tuple[list[tuple[str, int]], int]]
    promises: list[Promise] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True when every promise is kept."""
        return all(promise.kept for promise in self.promises)


def print_promises(promises: list[Promise], stderr: bool = False) -> None:
    """The table that ends a demonstration."""
    from rich.console import Console
    from rich.table import Table

    table = Table("promise", "required", "measured", "", box=None, pad_edge=False)
    for p in promises:
        mark = "[green]kept[/]" if p.kept else "[bold red]BROKEN[/]"
        table.add_row(p.what, p.required, p.measured, mark)
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def write_json(path: Path, account: Account, facts: dict[str, Any]) -> None:
    """Figures and promises for scripts."""
    data = {
        **facts,
        "kept": account.kept,
        "accuracy": [
            {"what": what.replace("\n", " "), "value": value} for what, value, _ in account.accuracy
        ],
        "loss": account.loss,
        "memory": {
            kind: {"parts": dict(parts), "board_bytes": total}
            for kind, (parts, total) in account.memory.items()
        },
        "promises": [vars(p) for p in account.promises],
    }
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def draw(path: Path, account: Account) -> None:
    """The figure: accuracy before and after, the loss on the board, flash and RAM."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style = {
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(
            1, 3, figsize=(14, 4.6), gridspec_kw={"width_ratios": [1.25, 1, 1.15]}
        )
        _draw_accuracy(axes[0], account.accuracy)
        _draw_loss(axes[1], account.loss)
        _draw_memory(axes[2], account.memory)
        figure.suptitle(account.title, x=0.012, ha="left", fontsize=13, fontweight="bold")
        figure.tight_layout(rect=(0, 0, 1, 0.97), w_pad=2.5)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5, pad=12)


def _draw_accuracy(axes: Axes, bars: list[tuple[str, float, str]]) -> None:
    """Bars from left to right along the road; chance and failure are seen at a glance."""
    groups = {"base": BLUE, "failing": ORANGE, "adapted": GREEN}
    for x, (_, value, group) in enumerate(bars):
        axes.bar(x, value, width=0.66, color=groups[group])
        axes.text(x, value + 0.02, f"{value:.3f}".rstrip("0").rstrip("."), ha="center")
    axes.set_xticks(range(len(bars)), [label for label, _, _ in bars], fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.5, 1])
    _title(axes, "accuracy on the test set")


def _draw_loss(axes: Axes, loss: list[float]) -> None:
    """Every step as a dot, their running mean as a line."""
    steps = range(1, len(loss) + 1)
    window = max(1, len(loss) // 10)
    mean = [sum(loss[max(0, i - window) : i]) / len(loss[max(0, i - window) : i]) for i in steps]
    axes.plot(steps, loss, ".", color=MUTED, markersize=3.5, alpha=0.7)
    axes.plot(steps, mean, color=GREEN, linewidth=2)
    axes.set_xlabel("step, one example each")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    _title(axes, f"loss while adapting on the board (line: mean of {window})")


def _largest(parts: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """At most `count` parts, in their order where all fit, else by size with the rest as one."""
    if len(parts) <= count:
        return parts
    ranked = sorted(parts, key=lambda part: -part[1])
    rest = sum(size for _, size in ranked[count - 1 :])
    return [*ranked[: count - 1], ("other", rest)]


def _draw_memory(axes: Axes, memory: dict[str, tuple[list[tuple[str, int]], int]]) -> None:
    """One stacked bar per kind of memory, as a share of what the board has; parts named beneath."""
    for row, (kind, (all_parts, total)) in enumerate(memory.items()):
        parts = _largest(all_parts, len(PART_COLOURS))
        left = 0.0
        y = -row * 1.5
        axes.barh(y, 1.0, height=0.5, color="#f0f2f4")
        for (_, size), colour in zip(parts, PART_COLOURS, strict=False):
            axes.barh(y, size / total, left=left, height=0.5, color=colour)
            left += size / total
        used = sum(size for _, size in parts)
        axes.text(
            0, y + 0.34, f"{kind}: {used / 1024:.1f} of {total / 1024:.0f} KB", fontweight="bold"
        )
        for i, ((name, size), colour) in enumerate(zip(parts, PART_COLOURS, strict=False)):
            column, line = divmod(i, 3)
            x, below = column * 0.36, y - 0.42 - line * 0.19
            axes.text(x, below, "■", color=colour, va="center", fontsize=9)
            axes.text(x + 0.035, below, f"{name} {size / 1024:.1f}", va="center", fontsize=8.5)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-1.5 * len(memory) + 0.55, 0.7)
    axes.axis("off")
    _title(axes, "memory on the board, KB")
