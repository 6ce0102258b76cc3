"""`ternio adapt`: teaches a board from a file's examples, sent over the serial port; the base model
stays as it is.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .common import BoardOption, JsonOption, PortOption, connect, emit, example, progress, say
from .data_options import DataArgument, examples_for, takes_data

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
        int, typer.Option("--steps", "-n", min=1, max=10**7, help="Single-example steps.")
    ] = 200,
    per_class: Annotated[
        int, typer.Option("--per-class", min=1, help="Examples of each class.")
    ] = 10,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")] = 5e-3,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=2**63 - 1, help="Of the choice, the order, fresh factors."
        ),
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the adapter that is there first.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Store the adapter on the board.")
    ] = True,
    how: Any = None,
    as_json: JsonOption = False,
) -> None:
    """Trains a LoRA adapter on the board with examples from a file."""
    from ternio.errors import DataError, LinkError
    from ternio.link.teach import choose_examples, teach

    from .machine import require_model

    if not 0 < lr <= HIGHEST_RATE:
        raise DataError(f"--lr {lr:g}: expected a number above 0, at most {HIGHEST_RATE:g}")
    with connect(board, port) as client:
        info = require_model(client)
        if not info.adapt_arena:
            why = "boards adapt classifiers only" if info.is_stream else "pack it with --adapt"
            raise LinkError(f"{info.model} was packed without adaptation: {why}")
        examples = examples_for(data, info, client.channel_names, how)
        if not examples.labelled:
            raise DataError(f"{data}: adapting needs labelled examples")
        chosen = choose_examples(examples.classes, per_class, seed)
        if fresh:
            client.adapter_reset()
        with progress("adapting", "steps") as tell:
            log = teach(
                client, examples.windows[chosen], examples.classes[chosen], steps, lr, seed, tell
            )
        saved = client.adapter_save() if save else None
    last = log[-min(len(log), 10) :]
    mean = sum(step.loss for step in last) / len(last)
    us = sorted(step.us for step in log)[len(log) // 2]
    if as_json:
        emit(
            {
                "examples": len(chosen),
                "steps": len(log),
                "total_steps": log[-1].step,
                "loss": [step.loss for step in log],
                "us": us,
                "saved": saved is not None,
                "adapter_bytes": saved.file_bytes if saved else 0,
            }
        )
        return
    say(f"{len(log)} steps with {len(chosen)} examples: loss {log[0].loss:.3f} -> {mean:.3f}")
    say(f"median {us} us a step on {info.board}")
    if saved:
        say(f"adapter stored on the board: {saved.file_bytes} bytes, {saved.steps} steps in all")
    else:
        say("adapter in training, not stored: `ternio adapter save` stores it")
