"""`ternio infer`: windows from a file to a board (or a blob on this computer), answers on the
screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    BoardOption,
    JsonOption,
    PortOption,
    emit,
    example,
    progress,
    say,
    show_table,
)
from .data_options import DataArgument, examples_for, takes_data


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("infer", epilog=example("ternio infer motion --all --native"))(infer)


@takes_data(part="test")
def infer(
    data: DataArgument,
    board: BoardOption = None,
    port: PortOption = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Run this blob here, without a board.")
    ] = None,
    index: Annotated[int, typer.Option("--index", "-i", help="Which example.")] = 0,
    every: Annotated[
        bool, typer.Option("--all", help="All examples: accuracy, confusion.")
    ] = False,
    native: Annotated[
        bool,
        typer.Option("--native", help="Run the board's blob here as well; logits must be equal."),
    ] = False,
    how: Any = None,
    as_json: JsonOption = False,
) -> None:
    """Classifies windows on a board."""
    from ternio.errors import DataError

    from .machine import open_machine, require_equal

    with open_machine(board, port, model) as machine:
        examples = examples_for(data, machine.facts, machine.channel_names, how)
        if not every and not 0 <= index < len(examples):
            raise DataError(f"--index {index}: {data} has examples 0 to {len(examples) - 1}")
        chosen = range(len(examples)) if every else [index]
        twin = machine.twin() if native else None
        results = []
        with progress("inferring", "windows") as tell:
            for i in chosen:
                results.append(machine.infer(examples.windows[i]))
                if twin is not None:
                    require_equal(
                        results[-1].logits, twin.infer(examples.windows[i]), examples.places[i]
                    )
                tell(len(results), len(chosen))
    labels = machine.facts.labels
    if every:
        _report_all(results, examples, labels, native, as_json)
    else:
        _report_one(results[0], examples, index, labels, native, as_json)


def _report_one(result, examples, index: int, labels, native: bool, as_json: bool) -> None:
    true = int(examples.classes[index])
    answer = {
        "example": examples.places[index],
        "class": labels[result.index],
        "index": result.index,
        "p": round(result.probability, 6),
        "logits": [float(v) for v in result.logits],
        "us": result.us,
    }
    if true >= 0:
        answer["label"] = labels[true]
    if native:
        answer["equals_native"] = True
    if as_json:
        emit(answer)
        return
    said = "" if true < 0 else f" (labelled {labels[true]})"
    say(f"{answer['example']}{said}: {answer['class']}, p {result.probability:.4f}, {result.us} us")
    logits = zip(labels, result.logits, strict=True)
    say("logits: " + ", ".join(f"{name} {value:.4f}" for name, value in logits))
    if native:
        say("native: the same logits, bit for bit")


def _report_all(results, examples, labels, native: bool, as_json: bool) -> None:
    import numpy as np

    predicted = np.array([r.index for r in results])
    median_us = int(np.median([r.us for r in results]))
    summary: dict[str, Any] = {"examples": len(results), "us": median_us}
    if native:
        summary["equals_native"] = len(results)
    if not examples.labelled:
        counts = np.bincount(predicted, minlength=len(labels))
        summary["predicted"] = dict(zip(labels, counts.tolist(), strict=True))
        if as_json:
            emit(summary)
            return
        for name, count in summary["predicted"].items():
            say(f"{name}: {count}")
    else:
        confusion = np.zeros((len(labels), len(labels)), int)
        np.add.at(confusion, (examples.classes, predicted), 1)
        correct = int(np.trace(confusion))
        summary |= {
            "correct": correct,
            "accuracy": correct / len(results),
            "labels": list(labels),
            "confusion": confusion.tolist(),
        }
        if as_json:
            emit(summary)
            return
        _print_confusion(confusion, labels)
        say(f"accuracy {correct}/{len(results)} = {correct / len(results):.3f}")
    say(f"{len(results)} windows, median {median_us} us each")
    if native:
        say("native: the same logits for every window, bit for bit")


def _print_confusion(confusion, labels) -> None:
    from rich.table import Table

    table = Table("labelled \\ answered", *labels, box=None, pad_edge=False)
    for name, row in zip(labels, confusion, strict=True):
        table.add_row(name, *(str(count) if count else "." for count in row))
    show_table(table)
