"""The command line itself: help with examples, versions, one line for every error, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ternio import __version__
from ternio.boards import board_names
from ternio.cli import COMMANDS, Program, app, common
from ternio.errors import FitError, LinkError

SCRIPT = Path(sys.executable).with_name("ternio")
ALL_COMMANDS = [
    *([name] for name in COMMANDS if name != "adapter"),
    ["boards", "stop"],
    *(["adapter", name] for name in ("save", "pull", "push", "reset", "merge")),
]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"Example: ternio {' '.join(command)}" in " ".join(result.output.split())


@pytest.mark.parametrize("command", [[], *ALL_COMMANDS, ["boards"], ["adapter"]], ids=" ".join)
def test_flags_are_shown_without_the_type_of_a_value(command):
    output = run(*command, "--help").output
    assert re.search(r"--help +-h +Show this message", output)
    assert "bool" not in output.lower()


def test_help_lists_the_commands_in_the_order_of_the_road():
    output = run("--help").output
    places = [output.index(f"│ {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_version():
    result = run("--version")
    assert (result.exit_code, result.output.strip()) == (0, f"ternio {__version__}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["flash"],
        ["flash", "x.tern"],
        ["infer", "motion", "--index", "many"],
        ["boards", "--frobnicate"],
        ["adapter", "merge", "a"],
    ],
    ids=" ".join,
)
def test_usage_errors_are_one_line_and_two(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1 and result.output.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["flash", "none.tern", "--board", "native"], "cannot read the model none.tern"),
        (["flash", "none.tern", "--board", "nope"], "no board called 'nope'"),
        (["infer", "motion", "--port", "/dev/nowhere"], "there is no port /dev/nowhere"),
        (["infer", "motion", "--model", "none.tern"], "none.tern"),
        (["infer", "motion", "--board", "microbit"], "no microbit board answers"),
        (["adapt", "motion", "--lr", "-1"], "--lr -1"),
        (["adapter", "push", "none.tadp"], "cannot read the adapter none.tadp"),
        (["adapter", "push", __file__], "test_cli.py: not a ternio adapter"),
        (["adapter", "merge", "a", "b", "-o", "c"], "cannot read the blob a"),
        (["boards", "stop", "none"], "no virtual board none runs"),
        (["monitor", "--part", "test", "--id", "n"], "--part, --id without data"),
        (["demo", "poetry"], "no demonstration 'poetry'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_one(arguments, words, tmp_path, monkeypatch):
    monkeypatch.setenv("TERNIO_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("ternio.link.find.serial_ports", lambda: [])
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("error: ") and result.output.count("\n") == 1
    assert words in result.output


@pytest.mark.parametrize("words", [["stop", "--json"], ["--json", "stop"]])
def test_boards_that_stop_are_told_as_json_wherever_it_is_asked(words, tmp_path, monkeypatch):
    monkeypatch.setenv("TERNIO_STATE_DIR", str(tmp_path))
    assert json.loads(run("boards", *words).output) == {"stopped": []}


def test_control_characters_are_shown_to_people_not_sent_to_the_terminal(capsys):
    from rich.table import Table

    word, safe = "\x1b[2Jx\x07\x9b", r"\x1b[2Jx\x07\x9b"
    common.say(word)
    common.say_fact("data", word)
    common.note(word)
    with pytest.raises(typer.Exit):
        common.fail(word, 1)
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{safe}\ndata    {safe}\n", f"note: {safe}\nerror: {safe}\n")
    table = Table("name", word, box=None, pad_edge=False)
    table.add_row("[/b] :smile:", word)
    common.show_table(table)
    said = capsys.readouterr().out
    assert said.count(safe) == 2 and "[/b] :smile:" in said and not set("\x1b\x07\x9b") & set(said)
    refused = CliRunner().invoke(app, ["train", f"--{word}"])
    assert "\x1b" not in refused.output and r"\x1b[2J" in refused.output


def program_that(raises: Exception) -> typer.Typer:
    """A program with one command that raises."""
    app = typer.Typer(cls=Program, pretty_exceptions_enable=False)

    @app.callback()
    def start(debug: bool = False) -> None:
        """Nothing."""

    @app.command("boom")
    def boom() -> None:
        raise raises

    return app


@pytest.mark.parametrize(
    ("error", "status", "output"),
    [
        (LinkError("two\nlines"), 1, "error: two lines\n"),
        (FitError("too large"), 2, "error: too large\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_how_errors_end_a_program(error, status, output):
    result = CliRunner().invoke(program_that(error), ["boom"])
    assert (result.exit_code, result.output) == (status, output)


def test_unexpected_errors_are_one_line_unless_debugged(monkeypatch):
    monkeypatch.delenv("TERNIO_DEBUG", raising=False)
    app = program_that(ZeroDivisionError("oh"))
    result = CliRunner().invoke(app, ["boom"])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1 and "ZeroDivisionError: oh" in result.output
    for arguments, environment in ((["--debug", "boom"], {}), (["boom"], {"TERNIO_DEBUG": "1"})):
        result = CliRunner().invoke(app, arguments, env=environment)
        assert result.exit_code == 1 and "Traceback" in result.output


@pytest.mark.skipif(not SCRIPT.exists(), reason="ternio is not installed in this environment")
def test_the_console_script_starts_quickly():
    times = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True)
        times.append(time.monotonic() - start)
        assert done.stdout.strip() == f"ternio {__version__}"
    assert min(times) < 1.5


def test_starting_loads_nothing_heavy():
    heavy = ("numpy", "smpclient", "matplotlib", "serial", "ternio._engine", "ternio._runtime")
    code = f"import sys, ternio.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("module", ["typer", "ternio.cli.common"])
def test_ctrl_c_while_the_program_loads_is_one_line(module):
    code = f"""
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from ternio.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_ctrl_c_while_options_are_read_is_one_line(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.core.TyperGroup, "parse_args", interrupted)
    result = run("boards")
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


def test_the_package_is_the_program():
    done = subprocess.run([sys.executable, "-m", "ternio", "--version"], capture_output=True)
    assert (done.returncode, done.stdout) == (0, f"ternio {__version__}\n".encode())


def test_a_board_is_a_line_in_80_columns(monkeypatch, tmp_path):
    """Without what comes after the semicolon of "verified"."""
    monkeypatch.setenv("TERNIO_STATE_DIR", str(tmp_path))
    rows = run("boards").stdout.rstrip("\n").split("\n")
    assert [row.split()[0] for row in rows[1:]] == board_names()
    assert max(map(len, rows)) <= 80
    assert {row.rstrip().rsplit("  ", 1)[1] for row in rows[1:]} >= {"QEMU 7.2", "builds"}


def test_json_is_what_every_reader_takes():
    """NaN and infinities are no JSON; control characters are for terminals."""
    loss = [(5, 1.5), (10, float("nan"))]
    text = common.json_text(
        {"loss": float("inf"), "validation": loss, "name": "\x9b2J\x1bé", "n": 3}
    )
    assert text.isprintable()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": None,
        "validation": [[5, 1.5], [10, None]],
        "name": "\x9b2J\x1bé",
        "n": 3,
    }
