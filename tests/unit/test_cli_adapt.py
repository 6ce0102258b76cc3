"""`ternio adapt` with a learner of a few lines: what did harm or broke off leaves the board as it
was."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ternio.cli.adapt import _require_room, _teach
from ternio.errors import LinkError
from ternio.link.client import Inference, Step
from ternio.link.teach import Score, score

WINDOWS = np.arange(6, dtype=np.int16).reshape(6, 1, 1)
CLASSES = np.array([0, 1, 0, 1, 0, 1])


class Learner:
    """Answers class 0 with the certainty that its adapter gives; one step changes it by `slope`."""

    def __init__(self, slope: float, breaks_at: int = 10**9, adapter: bytes | None = None) -> None:
        self.slope, self.breaks_at, self.adapter = slope, breaks_at, adapter
        self.margin, self.steps, self.told = 1.0, 0, []

    def infer(self, window: np.ndarray) -> Inference:
        is_even = int(window.ravel()[0]) % 2 == 0
        logits = np.array([self.margin if is_even else -self.margin, 0.0], np.float32)
        return Inference(logits, int(logits.argmax()), 5)

    def adapt_begin(self, **config) -> tuple[int, int]:
        return 0, 2

    def adapt_step(self, window: np.ndarray, label: int) -> Step:
        self.steps += 1
        if self.steps >= self.breaks_at:
            raise LinkError("the board refused: a value is not finite")
        self.margin += self.slope
        return Step(0.5, self.steps, 7)

    def adapter_pull(self) -> bytes:
        return self.adapter

    def adapter_push(self, data: bytes) -> None:
        self.told.append(("push", data))

    def adapter_reset(self) -> None:
        self.told.append(("reset",))


def lesson(learner: Learner, force: bool = False, fresh: bool = False):
    info = SimpleNamespace(adapter="none" if learner.adapter is None else "attached")
    return _teach(learner, info, WINDOWS, CLASSES, 10, 0.1, 0, fresh, force)


def test_what_helps_is_kept():
    learner = Learner(slope=0.2, adapter=b"old")
    done = lesson(learner)
    assert done.kept and len(done.log) == 10 and not learner.told
    assert (done.before.right, done.after.right, done.before.count) == (6, 6, 6)
    assert done.after.loss < done.before.loss == pytest.approx(np.log1p(np.exp(-1)))


@pytest.mark.parametrize(
    ("adapter", "told", "words"),
    [(None, ("reset",), "without an adapter again"), (b"old", ("push", b"old"), "has its earlier")],
)
def test_harm_is_undone(adapter, told, words):
    learner = Learner(slope=-0.5, adapter=adapter)
    done = lesson(learner)
    assert not done.kept and learner.told == [told] and words in done.earlier
    assert "6 of 6 examples right before, 0 after, loss 0.313 -> 4.018" in done.harm


def test_harm_is_kept_by_force():
    learner = Learner(slope=-0.5, adapter=b"old")
    assert lesson(learner, force=True).kept and not learner.told


def test_a_fresh_start_that_did_harm_gives_the_old_adapter_back():
    learner = Learner(slope=-0.5, adapter=b"old")
    lesson(learner, fresh=True)
    assert learner.told == [("reset",), ("push", b"old")]


def test_an_adaptation_that_breaks_off_is_undone():
    learner = Learner(slope=0.1, breaks_at=4, adapter=b"old")
    with pytest.raises(LinkError, match=r"not finite; the board has its earlier adapter again"):
        lesson(learner)
    assert learner.told == [("push", b"old")]


def test_score_looks_at_a_spread_of_the_examples():
    windows = np.arange(200, dtype=np.int16).reshape(200, 1, 1)
    found = score(Learner(0.0), windows, np.zeros(200, int))
    assert found.count == 40 and 15 <= found.right <= 25


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        (Score(30, 40, 0.45), False),  # within what single steps do
        (Score(30, 40, 0.7), True),
        (Score(40, 40, 0.7), False),  # all right, only less sure
        (Score(20, 40, 0.3), True),  # sure, and wrong
        (Score(30, 40, float("nan")), True),
    ],
)
def test_harm_is_a_loss_that_grew_or_fewer_right(after, worse):
    assert after.is_worse_than(Score(30, 40, 0.4)) is worse


def test_an_adapter_that_no_slot_holds_is_refused_before_the_board_learns():
    def ask(floats: int, storage: str, board: str = "netduinoplus2") -> None:
        info = SimpleNamespace(model="wide", board=board, storage=storage, adapter_floats=floats)
        _require_room(info, board)

    ask(2400, "ram"), ask(3000, "flash"), ask(2400, "file", "native")
    ask(10**6, "flash", "a board that is not listed")
    with pytest.raises(LinkError, match=r"takes 12064 bytes, a slot in ram of netduinoplus2 9664"):
        ask(3000, "ram")
    with pytest.raises(LinkError, match="no place to store"):
        ask(1, "none")
