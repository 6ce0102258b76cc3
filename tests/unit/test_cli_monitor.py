"""What `ternio monitor` makes of a board's lines."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from ternio.cli.monitor import _print_lines, _State, describe, parse_event, sparkline

INFER = {"event": "infer", "class": "walk", "index": 1, "p": 0.875, "us": 420}
ADAPT = {"event": "adapt", "step": 3, "loss": 0.5, "label": "sit", "us": 900}


@pytest.mark.parametrize(
    "line",
    ["", "ok", "{", "{}", "[1]", '{"class": "walk"}', "error: no", "\x06\x09AAAA", '{"event"'],
)
def test_lines_that_are_no_events(line):
    assert parse_event(line) is None


def test_events_as_words():
    assert parse_event('{"event":"infer","class":"walk"}') == {"event": "infer", "class": "walk"}
    assert describe(INFER) == "infer  walk  p 0.8750  420 us"
    assert describe(ADAPT) == "adapt  step 3  loss 0.5000  sit  900 us"
    assert describe({"event": "model", "name": "m", "slot": "B"}) == "model  name m, slot B"
    assert describe({"event": "infer"}) == "infer  None  p 0.0000  None us"


def test_the_picture_counts_classes_and_shows_the_loss():
    from rich.console import Console

    info = SimpleNamespace(labels=("sit", "walk"), board="native", model="m")
    state = _State(info, "/dev/pts/9")
    for event in (INFER, INFER, {**INFER, "class": "sit"}, ADAPT):
        state.take(event)
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(state.render())
    text = console.export_text()
    assert state.seen == 4 and state.counts == {"sit": 1, "walk": 2}
    assert "native on /dev/pts/9: m" in text and "loss 0.5000" in text
    sit, walk = (line for line in text.splitlines() if "█" in line and "loss" not in line)
    assert walk.count("█") == 2 * sit.count("█") == 20


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_board_says_does_not_reach_the_terminal_as_orders(as_json, capsys):
    event = parse_event('{"event":"infer","class":"\\u001b[2J\\u0007"}')
    _print_lines(iter([event]), 1, as_json)
    line = capsys.readouterr().out
    assert "\x1b" not in line and "\x07" not in line
    assert ("\\u001b[2J\\u0007" if as_json else "\\x1b[2J\\x07") in line


def test_names_in_the_picture_are_shown_as_they_are():
    from rich.console import Console

    state = _State(SimpleNamespace(labels=("[/b]",), board="\x1b[2J", model="[red]m"), "port")
    state.take({**INFER, "class": "\x1b[31mred"})
    console = Console(width=90, file=io.StringIO())
    console.print(state.render())
    text = console.file.getvalue()
    assert "\x1b" not in text and text.count("\\x1b[31mred") == 2
    assert "[/b]" in text and "\\x1b[2J on port: [red]m" in text


def test_sparkline():
    assert sparkline([0, 4, 8]) == "▁▅█"
    assert sparkline([0.0]) == "▁"
    assert sparkline([-1, 1]) == "▁█"
