"""What `ternio monitor` makes of a board's lines."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from ternio.cli.monitor import _State, describe, parse_event, sparkline

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


def test_sparkline():
    assert sparkline([0, 4, 8]) == "▁▅█"
    assert sparkline([0.0]) == "▁"
    assert sparkline([-1, 1]) == "▁█"
