"""Ctrl-C at any moment of a training, once or again and again: there is a checkpoint, and it goes
on to the bit."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from ternio.checkpoint import load_checkpoint
from ternio.cli import app
from ternio.train.interrupts import hold_interrupts

MODEL = ["--width", "8", "--heads", "2", "--layers", "1", "--ffn", "8", "--context", "8"]
STEPS = 6


def run(*arguments):
    return CliRunner().invoke(app, ["train", "--task", "lm", *map(str, arguments)])


class Presses:
    """Presses Ctrl-C at some function calls, counted from the first step of a training until its
    checkpoint is written."""

    def __init__(self, first: int, presses: int) -> None:
        self.calls, self.at = -1, range(first, first + presses)

    def __call__(self, frame, event, argument) -> None:
        name = frame.f_code.co_name
        if self.calls < 0 and name != "_steps":
            return
        if name == "save_checkpoint" and event == "return":
            sys.setprofile(None)
        self.calls += 1
        if self.calls in self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The text, the options, the checkpoint without an interrupt, and how many calls it took."""
    folder = tmp_path_factory.mktemp("straight")
    text = folder / "words.txt"
    text.write_text("".join(np.random.default_rng(0).choice(list("abc \n"), 600)))
    options = [text, *MODEL, "--steps", STEPS, "--batch", 2, "--warmup", 1]
    options += ["--evaluate-every", 2, "--patience", 9, "--sample", 0]
    counter = Presses(0, 0)
    sys.setprofile(counter)
    try:
        result = run(*options, "-o", folder / "straight.ckpt")
    finally:
        sys.setprofile(None)
    assert result.exit_code == 0, result.output
    return options, load_checkpoint(folder / "straight.ckpt"), counter.calls


@pytest.mark.parametrize("presses", [1, 2, 40])
@pytest.mark.parametrize("part", np.linspace(0, 0.999, 12).tolist())
def test_a_checkpoint_that_goes_on_to_the_bit(tmp_path, straight, part, presses):
    options, expected, calls = straight
    path = tmp_path / "broken.ckpt"
    sys.setprofile(Presses(int(part * calls), presses))
    try:
        result = run(*options, "-o", path)
    finally:
        sys.setprofile(None)
    assert result.exit_code in (0, 130), result.output
    assert [p.name for p in tmp_path.iterdir()] == ["broken.ckpt"]
    if result.exit_code == 130:
        assert "--resume" in result.output, result.output
        result = run(options[0], "--resume", path, "--sample", 0)
        assert result.exit_code == 0, result.output
    found = load_checkpoint(path)
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert found.state.validation == expected.state.validation
    for name, value in expected.model.state_dict().items():
        np.testing.assert_array_equal(found.model.state_dict()[name], value)
    for name, value in expected.state.optimizer.items():
        np.testing.assert_array_equal(found.state.optimizer[name], value)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_presses_are_counted_and_then_raise():
    before = signal.getsignal(signal.SIGINT)
    with hold_interrupts(1) as outer:
        press()
        with hold_interrupts() as inner, inner.tolerating(3):
            press()
            assert (outer.count, inner.count) == (1, 2)
        with pytest.raises(KeyboardInterrupt):
            press()
        with pytest.raises(KeyboardInterrupt), outer.tolerating(0):
            pytest.fail("two presses were more than none")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_get_none():
    seen = []

    def work() -> None:
        with hold_interrupts() as interrupts:
            seen.append(interrupts.count)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]
