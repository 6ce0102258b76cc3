"""Threads: those that share a context's work, and tensors let go of by another one than the one
that is inside the engine."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from ternio import Context, Tensor, arrays, dropped, set_num_threads
from ternio.errors import ModelError


class Box:
    """Something in a cycle with itself, which only Python's collector frees."""

    def __init__(self, content: object) -> None:
        self.me, self.content = self, content


def in_a_thread(work) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture
def lent():
    """How many arrays of this test are on loan."""
    gc.collect()
    before = set(arrays._lent)
    return lambda: len(set(arrays._lent) - before)


def test_a_tensor_is_freed_by_the_thread_that_uses_its_context(lent):
    with Context() as context:
        Box(Tensor.from_numpy(np.ones(3, np.float32)))
        in_a_thread(gc.collect)
        assert lent() == 1, "freed by the thread that collected"
        context.reset()
        assert lent() == 0


def test_contexts_of_threads_that_ended_are_freed_by_the_next_one(lent):
    in_a_thread(lambda: Box(Tensor.from_numpy(np.ones(3, np.float32))))
    in_a_thread(lambda: Box(Tensor([1.0, 2.0]).detach()))
    gc.collect()
    assert lent() == 2
    Context()
    assert lent() == 0


def test_a_view_outlives_tensor_and_thread():
    views = []
    in_a_thread(lambda: views.append(Tensor(np.arange(4.0)).numpy()))
    gone = dropped._all[-1]
    Context()
    Tensor(np.full(4, 9.0))
    np.testing.assert_array_equal(views[0], np.arange(4.0))
    assert gone in dropped._all
    views.clear()
    Context()
    assert gone not in dropped._all


_TWO_THREADS = """
import gc, sys, threading, time
import numpy as np
from ternio import Tensor, functional as F, nn, optim

end = time.monotonic() + 2

class Box:
    pass

def train():
    layer, x = nn.Linear(64, 64), np.ones((32, 64), np.float32)
    while time.monotonic() < end:
        out, box = layer(Tensor(x)), Box()
        box.me, box.out = box, out
        box.optimizer = optim.AdamW(layer.parameters(), 1e-3)
        out.mean().backward()
        box.optimizer.step()
        layer.zero_grad()

def collect():
    while time.monotonic() < end:
        gc.collect()

threads = [threading.Thread(target=work) for work in (train, collect)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("whole")
"""


def test_training_while_another_thread_collects():
    done = subprocess.run([sys.executable, "-c", _TWO_THREADS], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


STEP = """
import numpy as np, os, sys
from ternio import Context, Tensor, functional as F, nn

def gradient(context):
    context.seed(3)
    model, x = nn.Linear(300, 200), Tensor(np.linspace(-1, 1, 90000).reshape(300, 300))
    F.gelu(model(x)).mean().backward()
    return model.weight.grad.tobytes()
"""


def test_any_number_of_threads_learns_the_same():
    scope: dict = {}
    exec(STEP, scope)
    gradients = []
    for count in (1, 2, 3):
        with Context(threads=count) as context:
            assert context.threads == count
            gradients.append(scope["gradient"](context))
    assert gradients[0] == gradients[1] == gradients[2]


def test_set_num_threads_is_for_the_current_context():
    with Context() as context, Context() as inner:
        set_num_threads(2)
        assert (context.threads, inner.threads) == (1, 2)
        for count in (0, 65, 1.5, "2", None):
            with pytest.raises(ModelError, match="expected a whole number from 1 to 64"):
                set_num_threads(count)
        assert inner.threads == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_goes_on_alone_and_may_have_threads_again():
    program = """
with Context(threads=3) as context:
    expected = gradient(context)
    child = os.fork()
    if not child:
        same = gradient(context) == expected
        context.threads = 3
        same = same and gradient(context) == expected
        context.threads = 1
        sys.exit(0 if same else 7)  # an exit that frees the context
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gradient(context) == expected
"""
    subprocess.run([sys.executable, "-c", STEP + program], check=True, timeout=60)
