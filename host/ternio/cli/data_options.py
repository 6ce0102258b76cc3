"""What `infer`, `adapt` and `monitor` ask about a data file, and the examples that come of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from .common import note

if TYPE_CHECKING:
    from .examples import Examples, ModelFacts

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Labelled data (.csv, .npz, .ts, folder, `motion`) or bare windows (.npy, .csv).",
    ),
]


def _options(
    part: str | None = None,
    gain: Annotated[
        str | None,
        typer.Option("--gain", help="A factor per channel on the raw values, e.g. 1,-1,-1."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror", help="A factor on each channel's distance from its training mean."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Label column of a table.")] = None,
    example_id: Annotated[
        str | None, typer.Option("--id", help="Column that numbers the examples.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--layout", help="Order in .npz: nlc or ncl (channels first).")
    ] = None,
) -> None:
    """The options, as typer reads them; keywords of load_examples()."""


def takes_data(part: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a command with a parameter `how`: it gets the options on data in its place, and
    their values as one dictionary. `part` is the one that a data set's examples come from without
    --part; a table without parts gives all of them.
    """
    about = f"Part of a data set: train or test; default {part}."
    choice = Annotated[str | None, typer.Option("--part", help=about)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = _parameters(_options)
        options["part"] = options["part"].replace(annotation=choice)
        own = _parameters(command)
        parameters: list[inspect.Parameter] = []
        for name, parameter in own.items():
            parameters += options.values() if name == "how" else [parameter]

        @wraps(command)
        def run(**values: Any) -> None:
            how = {name: values.pop(name) for name in options}
            command(**values, how={**how, "usual_part": part})

        del run.__wrapped__  # or typer would ask the command itself for its parameters
        run.__signature__ = inspect.Signature(parameters)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameters(function: Callable[..., None]) -> dict[str, inspect.Parameter]:
    """By name, with annotations as objects."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    }


def examples_for(
    source: str,
    model: ModelFacts,
    channel_names: Callable[[], tuple[str, ...]],
    how: dict[str, Any],
) -> Examples:
    """The examples of a file as the model takes them; what was decided on the way is noted."""
    from .examples import load_examples

    examples = load_examples(source, model, channel_names, **how)
    for line in examples.notes:
        note(line)
    return examples


def refuse_options(how: dict[str, Any], option: str) -> None:
    """Refuses options on data where there is no data.

    Raises:
        DataError: one was given; `option` is the one that would bring the data.
    """
    from ternio.errors import DataError

    given = [f"--{name.replace('example_', '')}" for name in _parameters(_options) if how[name]]
    if given:
        raise DataError(
            f"{', '.join(given)} without data: give the data with {option}, or leave it out"
        )
