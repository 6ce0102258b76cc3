"""Training with te_set_single_use: the same numbers in less memory, one backward pass per tape."""

from __future__ import annotations

import numpy as np
import pytest
import transformer as tf
from engine_harness import Engine, EngineError

SIZE = tf.Size(width=32, layers=3, heads=2, context=40, hidden=80)


def train(library, ternary: bool, single_use: bool) -> tuple[list[float], int]:
    e = Engine(library, double=False)
    e.lib.te_set_single_use(e.ctx, single_use)
    step = tf.engine_step(e, SIZE, 2, ternary)
    losses = [step() for _ in range(5)]
    peak = e.lib.te_bytes_peak(e.ctx)
    e.close()
    return losses, peak


@pytest.mark.parametrize("ternary", [False, True])
def test_the_same_losses_to_the_bit_in_less_memory(libraries, ternary):
    kept, kept_peak = train(libraries[False], ternary, False)
    used, used_peak = train(libraries[False], ternary, True)
    assert used == kept and kept[-1] < kept[0]
    assert used_peak < 0.95 * kept_peak


def test_results_end_with_backward_unless_retained(engine):
    e, lib = engine, engine.lib
    lib.te_set_single_use(e.ctx, 1)
    try:
        x = e.tensor(np.array([1.0, 2.0, 3.0]), grad=True)
        y = lib.te_retain(e.op("mul", x, x))
        hidden = e.op("add", y, x)
        loss = e.op("mse", hidden, x)
        used = lib.te_bytes_used(e.ctx)
        e.check(lib.te_backward(e.ctx, loss))
        assert lib.te_bytes_used(e.ctx) < used
        np.testing.assert_array_equal(e.values(y), [1, 4, 9])
        assert lib.te_item(loss) == pytest.approx(98 / 3)
        np.testing.assert_allclose(e.grad(x), [4 / 3, 32 / 3, 36], rtol=1e-6)
        assert lib.te_tape_length(e.ctx) == 3 and lib.te_node_op(e.ctx, 1) == lib.TE_OP_NONE
        with pytest.raises(EngineError, match="used up the tape"):
            e.check(lib.te_backward(e.ctx, loss))
        lib.te_release(y)
    finally:
        lib.te_set_single_use(e.ctx, 0)
