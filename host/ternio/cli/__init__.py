"""The command line: `ternio train | pack | inspect | boards | flash | infer | generate | monitor |
adapt | adapter | bench | demo`.

Each command lives in a module with `register(app)` that imports what is heavy only when it runs.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ternio import __version__
from ternio.errors import TernioError

from .common import fail, reflowed, shown

COMMANDS = (
    "train",
    "pack",
    "inspect",
    "boards",
    "flash",
    "infer",
    "generate",
    "monitor",
    "adapt",
    "adapter",
    "bench",
    "demo",
)


# The base of errors in usage: click's own, or of the copy of click that newer typers carry.
ClickException = typer.BadParameter.__mro__[2]


class Flags:
    """Of commands and groups: a help in which flags, --help among them, show no type of a value."""

    def get_params(self, ctx: typer.Context) -> list[Any]:
        """The arguments and options."""
        params = super().get_params(ctx)
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(Flags, TyperCommand):
    """A command of the program."""


class Group(Flags, TyperGroup):
    """A command that has commands."""


class Program(Group):
    """Turns errors into one line on stderr: 1 for what went wrong, 2 for what cannot be asked for
    or does not fit.
    """

    def list_commands(self, ctx: typer.Context) -> list[str]:
        """In the order in which they are used, not that of the alphabet."""
        return [name for name in COMMANDS if name in self.commands]

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Runs the program; errors in usage are one line like all others."""
        extra["standalone_mode"] = False
        if sys.stdout is None:  # closed by the shell
            sys.stdout = io.StringIO()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a letter that the terminal lacks is no error
                stream.reconfigure(errors="replace")
        try:
            status = super().main(*args, **extra)
        except ClickException as error:
            text = error.format_message()
            if text:  # none after the help that a bare command shows
                typer.echo(f"error: {shown(text)} (--help shows what there is)", err=True)
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(130)
        sys.exit(status if isinstance(status, int) else 0)

    def make_context(self, *args: Any, **extra: Any) -> typer.Context:
        """Reads the options; Ctrl-C meanwhile ends like that in a command."""
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:
            fail("interrupted", 130)

    def invoke(self, ctx: typer.Context) -> Any:
        """Runs the command; Ctrl-C ends with status 130."""
        try:
            return super().invoke(ctx)
        except TernioError as error:
            fail(" ".join(str(error).split()), error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted", 130)
        except (typer.Exit, typer.Abort, ClickException, BrokenPipeError):
            raise
        except OSError as error:
            if ctx.params.get("debug") or error.strerror is None:
                raise
            place = f"{error.filename}: " if error.filename else "cannot write: "
            fail(f"{place}{error.strerror}", 1)
        except Exception as error:
            if ctx.params.get("debug") or os.environ.get("TERNIO_DEBUG"):
                traceback.print_exc()
                raise typer.Exit(1) from None
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            fail(f"unexpected {what} (ternio --debug ... shows where)", 1)


app = typer.Typer(
    name="ternio",
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ternio {__version__}")
        raise typer.Exit()


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of unexpected errors.")
    ] = False,
) -> None:
    """Ternary neural networks that run, and keep learning, on microcontrollers.

    The road: train -> pack -> flash -> monitor -> adapt. `ternio demo motion` walks all of it.
    """


for _name in COMMANDS:
    import_module(f"ternio.cli.{_name}").register(app)
for _group in app.registered_groups:
    _group.cls = Group
for _program in (app, *(group.typer_instance for group in app.registered_groups)):
    for _command in _program.registered_commands:
        _command.cls, _command.help = Command, reflowed(_command.callback)
