"""`ternio adapt`: teaches a board from a file's examples, sent over the serial port; the base model
stays as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    SEED,
    BoardOption,
    JsonOption,
    PortOption,
    connect,
    emit,
    example,
    progress,
    say,
    whole_number,
)
from .data_options import DataArgument, examples_for, takes_data

if TYPE_CHECKING:
    import numpy as np

    from ternio.link.client import BoardClient, BoardInfo, Step
    from ternio.link.messages import AdapterSaveResponse
    from ternio.link.teach import Score

HIGHEST_RATE = 1.0  # a step of Adam moves a factor by about the rate


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("adapt", epilog=example("ternio adapt motion-other-wrist --steps 200"))(adapt)


@takes_data(part="train")
def adapt(
    data: DataArgument,
    board: BoardOption = None,
    port: PortOption = None,
    steps: Annotated[
        int,
        typer.Option("--steps", "-n", help="Single-example steps.", **whole_number(1, 10**7)),
    ] = 200,
    per_class: Annotated[
        int, typer.Option("--per-class", help="Examples of each class.", **whole_number(1, 10**7))
    ] = 10,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")] = 5e-3,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Of the choice, the order, fresh factors.", **SEED),
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the adapter that is there first.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Store the adapter on the board.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Keep the adapter even where it answers worse.")
    ] = False,
    how: Any = None,
    as_json: JsonOption = False,
) -> None:
    """Trains a LoRA adapter on the board with examples from a file.

    Where the examples are answered worse afterwards, the board gets back what it had before.
    """
    from ternio.errors import DataError, LinkError
    from ternio.link.teach import choose_examples

    from .machine import require_model

    if not 0 < lr <= HIGHEST_RATE:
        raise DataError(f"--lr {lr:g}: expected a number above 0, at most {HIGHEST_RATE:g}")
    with connect(board, port) as client:
        info = require_model(client)
        if not info.adapt_arena:
            why = "boards adapt classifiers only" if info.is_stream else "pack it with --adapt"
            raise LinkError(f"{info.model} was packed without adaptation: {why}")
        if save:
            _require_room(info, board or info.board)
        examples = examples_for(data, info, client.channel_names, how)
        if not examples.labelled:
            raise DataError(f"{data}: adapting needs labelled examples")
        chosen = choose_examples(examples.classes, per_class, seed)
        windows, classes = examples.windows[chosen], examples.classes[chosen]
        lesson = _teach(client, info, windows, classes, steps, lr, seed, fresh, force)
        saved = client.adapter_save() if save and lesson.kept else None
    if as_json:
        emit(_facts(lesson, len(chosen), saved))
    else:
        _report(lesson, len(chosen), saved, info.board)
    if not lesson.kept:
        raise LinkError(
            f"{lesson.harm}; {lesson.earlier}: try a --lr below {lr:g} (--force keeps the new one)"
        )


def _require_room(info: BoardInfo, board: str) -> None:
    """That the adapter can be stored, before the board learns it."""
    from ternio.blob.adapter import HEADER_BYTES
    from ternio.boards import load_board
    from ternio.errors import BoardError, LinkError

    if info.storage == "none":
        raise LinkError(f"{info.board} has no place to store an adapter: use --no-save")
    try:
        room = load_board(board).adapter_room(info.storage)
    except BoardError:
        return  # a board of which this computer has no manifest: it will say so itself
    need = HEADER_BYTES + 4 * info.adapter_floats
    if need > room:
        raise LinkError(
            f"an adapter of {info.model} takes {need} bytes, a slot in {info.storage} of "
            f"{info.board} {room}: use --no-save, or pack with a lower --rank"
        )


@dataclass(frozen=True)
class _Lesson:
    """How an adaptation went.

    Attributes:
        log: its steps.
        before, after: how well examples were answered.
        kept: what was learnt is on the board.
        earlier: what is there instead, in words.
    """

    log: list[Step]
    before: Score
    after: Score
    kept: bool
    earlier: str

    @property
    def harm(self) -> str:
        """What went wrong, in words."""
        b, a = self.before, self.after
        return (
            f"adapting did harm: {b.right} of {b.count} examples right before, {a.right} after, "
            f"loss {b.loss:.3f} -> {a.loss:.3f}"
        )


def _teach(
    client: BoardClient,
    info: BoardInfo,
    windows: np.ndarray,
    classes: np.ndarray,
    steps: int,
    lr: float,
    seed: int,
    fresh: bool,
    force: bool,
) -> _Lesson:
    """Adapts, and gives the board its earlier adapter back where that did harm or failed."""
    from ternio.errors import LinkError
    from ternio.link.teach import SCORED, score, teach

    earlier = client.adapter_pull() if info.adapter != "none" else None
    most = min(SCORED, max(steps, 8))  # which is to take no longer than the steps
    with progress("before", "examples") as tell:
        before = score(client, windows, classes, most, tell)
    if fresh:
        client.adapter_reset()
    try:
        with progress("adapting", "steps") as tell:
            log = teach(client, windows, classes, steps, lr, seed, tell)
        with progress("after", "examples") as tell:
            after = score(client, windows, classes, most, tell)
    except LinkError as error:
        try:
            again = _give_back(client, earlier)
        except LinkError:
            raise error from None
        raise LinkError(f"{error}; {again}") from None
    kept = force or not after.is_worse_than(before)
    return _Lesson(log, before, after, kept, "" if kept else _give_back(client, earlier))


def _give_back(client: BoardClient, earlier: bytes | None) -> str:
    """Puts the earlier adapter (None: none) in the place of the one in training; says so."""
    if earlier is None:
        client.adapter_reset()
        return "the board is without an adapter again"
    client.adapter_push(earlier)
    return "the board has its earlier adapter again"


def _facts(lesson: _Lesson, examples: int, saved: AdapterSaveResponse | None) -> dict[str, Any]:
    """What --json says."""
    log = lesson.log
    return {
        "examples": examples,
        "steps": len(log),
        "total_steps": log[-1].step,
        "loss": [step.loss for step in log],
        "us": _median_us(log),
        "before": asdict(lesson.before),
        "after": asdict(lesson.after),
        "kept": lesson.kept,
        "saved": saved is not None,
        "adapter_bytes": saved.file_bytes if saved else 0,
    }


def _report(lesson: _Lesson, examples: int, saved: AdapterSaveResponse | None, board: str) -> None:
    log, before, after = lesson.log, lesson.before, lesson.after
    say(f"{len(log)} steps with {examples} examples, median {_median_us(log)} us each on {board}")
    say(
        f"before  {before.right} of {before.count} right, loss {before.loss:.3f}\n"
        f"after   {after.right} of {after.count} right, loss {after.loss:.3f}"
    )
    if saved:
        say(f"adapter stored on the board: {saved.file_bytes} bytes, {saved.steps} steps in all")
    elif lesson.kept:
        say("adapter in training, not stored: `ternio adapter save` stores it")


def _median_us(log: list[Step]) -> int:
    return sorted(step.us for step in log)[len(log) // 2]
