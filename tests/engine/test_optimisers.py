"""Optimisers, clipping and schedule against NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

STEPS, LR = 5, 0.01


def problem(seed=0):
    rng = np.random.default_rng(seed)
    parameters = [rng.normal(size=s) for s in [(3, 7), (19,)]]
    gradients = [[rng.normal(size=p.shape) for p in parameters] for _ in range(STEPS)]
    return parameters, gradients


def set_gradient(e, tensor, value):
    e.lib.te_grad_create(tensor)
    e.grad(tensor)[...] = value


def run(e, optimiser, decays):
    """The parameters after STEPS steps, released with the optimiser."""
    parameters, gradients = problem()
    tensors = [e.tensor(p, grad=True) for p in parameters]
    for tensor, decay in zip(tensors, decays, strict=True):
        assert e.lib.te_optim_add(optimiser, tensor, decay) == 0
    for step in range(STEPS):
        for tensor, gradient in zip(tensors, gradients[step], strict=True):
            set_gradient(e, tensor, gradient)
        assert e.lib.te_optim_step(optimiser, LR) == 0
        e.lib.te_optim_zero_grad(optimiser)
    e.lib.te_optim_free(optimiser)
    return [e.values(t).copy() for t in tensors]


def adam_reference(decoupled, weight_decay, decays, b1=0.9, b2=0.95, eps=1e-8):
    parameters, gradients = problem()
    for i, p in enumerate(parameters):
        m, v, decay = np.zeros_like(p), np.zeros_like(p), weight_decay * decays[i]
        for t in range(1, STEPS + 1):
            g = gradients[t - 1][i] + (0 if decoupled else decay * p)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            p *= 1 - LR * decay if decoupled else 1
            p -= LR * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return parameters


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("decays", [(1, 1), (1, 0)])
def test_adam_and_adamw(engine_double, name, decays):
    e = engine_double
    optimiser = getattr(e.lib, f"te_{name}")(e.ctx, 0.9, 0.95, 1e-8, 0.1)
    expected = adam_reference(name == "adamw", 0.1, decays)
    for got, want in zip(run(e, optimiser, decays), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_adamw_in_single_precision(engine_simd):
    optimiser = engine_simd.lib.te_adamw(engine_simd.ctx, 0.9, 0.95, 1e-8, 0.1)
    expected = adam_reference(True, 0.1, (1, 1))
    for got, want in zip(run(engine_simd, optimiser, (1, 1)), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_sgd_with_momentum(engine_double):
    e = engine_double
    got = run(e, e.lib.te_sgd(e.ctx, 0.9, 0.1), (1, 0))
    parameters, gradients = problem()
    for i, p in enumerate(parameters):
        buffer = np.zeros_like(p)
        for t in range(STEPS):
            buffer = 0.9 * buffer + gradients[t][i] + (0.1 * p if i == 0 else 0)
            p -= LR * buffer
        np.testing.assert_allclose(got[i], p, rtol=1e-12)


def test_parameters_without_a_gradient_stay(engine):
    e = engine
    tensor = e.tensor(np.ones(3), grad=True)
    optimiser = e.lib.te_adamw(e.ctx, 0.9, 0.95, 1e-8, 0.1)
    e.lib.te_optim_add(optimiser, tensor, 1)
    e.lib.te_optim_step(optimiser, LR)
    assert e.values(tensor).tolist() == [1, 1, 1]
    e.lib.te_optim_free(optimiser)


def test_state_can_be_saved_and_restored(engine):
    """Three steps, and one step + state carried over + two steps, end at the same bits."""
    e = engine
    parameters, gradients = problem()

    def start(values):
        tensor = e.tensor(values, grad=True)
        optimiser = e.lib.te_adamw(e.ctx, 0.9, 0.95, 1e-8, 0.1)
        e.lib.te_optim_add(optimiser, tensor, 1)
        return tensor, optimiser

    def step(tensor, optimiser, t):
        set_gradient(e, tensor, gradients[t][0])
        e.lib.te_optim_step(optimiser, LR)

    whole, whole_optimiser = start(parameters[0])
    first, first_optimiser = start(parameters[0])
    for t in range(3):
        step(whole, whole_optimiser, t)
    step(first, first_optimiser, 0)
    second, second_optimiser = start(e.values(first))
    for slot in (0, 1):
        size = 4 * parameters[0].size
        source = e.lib.te_optim_state(first_optimiser, 0, slot)
        e.ffi.memmove(e.lib.te_optim_state(second_optimiser, 0, slot), source, size)
    e.lib.te_optim_set_steps(second_optimiser, e.lib.te_optim_steps(first_optimiser))
    for t in (1, 2):
        step(second, second_optimiser, t)
    np.testing.assert_array_equal(e.values(whole), e.values(second))
    for optimiser in (whole_optimiser, first_optimiser, second_optimiser):
        e.lib.te_optim_free(optimiser)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_by_the_global_norm(engine_double, max_norm):
    e = engine_double
    _, gradients = problem()
    optimiser = e.lib.te_sgd(e.ctx, 0.0, 0.0)
    tensors = [e.tensor(np.zeros_like(g), grad=True) for g in gradients[0]]
    for tensor, gradient in zip(tensors, gradients[0], strict=True):
        e.lib.te_optim_add(optimiser, tensor, 1)
        set_gradient(e, tensor, gradient)
    norm = math.sqrt(sum((g**2).sum() for g in gradients[0]))
    assert e.lib.te_clip_grad_norm(optimiser, max_norm) == pytest.approx(norm, rel=1e-12)
    factor = min(1, max_norm / norm)
    np.testing.assert_allclose(e.grad(tensors[1]), factor * gradients[0][1], rtol=1e-12)
    e.lib.te_optim_free(optimiser)


def test_clipping_leaves_gradients_that_are_not_finite(engine):
    e = engine
    tensor = e.tensor(np.zeros(2), grad=True)
    optimiser = e.lib.te_sgd(e.ctx, 0.0, 0.0)
    e.lib.te_optim_add(optimiser, tensor, 1)
    set_gradient(e, tensor, [np.nan, 3])
    assert math.isnan(e.lib.te_clip_grad_norm(optimiser, 1.0))
    assert e.grad(tensor)[1] == 3
    e.lib.te_optim_free(optimiser)


def test_cosine_schedule(engine):
    rate = [engine.lib.te_lr_cosine(s, 4, 20, 1.0, 0.1) for s in range(25)]
    assert rate[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate[12] == pytest.approx(0.55)
    assert all(a >= b for a, b in itertools.pairwise(rate[4:]))
    assert rate[20:] == [0.1] * 5
    assert engine.lib.te_lr_cosine(0, 0, 10, 1.0, 0.0) == 1.0


def test_the_other_schedules(engine):
    lib = engine.lib
    assert [lib.te_lr_constant(s, 2, 2.0) for s in range(4)] == [1, 2, 2, 2]
    linear = [lib.te_lr_linear(s, 2, 7, 2.0, 0.5) for s in range(9)]
    np.testing.assert_allclose(linear, [1, 2, 2, 1.7, 1.4, 1.1, 0.8, 0.5, 0.5], rtol=1e-12)
    thirds = [lib.te_lr_step(s, 0, 6, 2.0, 0.05, 0.1, 3) for s in range(8)]
    np.testing.assert_allclose(thirds, [2, 2, 0.2, 0.2, 0.05, 0.05, 0.05, 0.05])
    assert [lib.te_lr_step(s, 1, 5, 1.0, 0.0, 0.5, 1) for s in range(6)] == [1] * 6
    for total, parts in ((100, 100), (1000, 100), (490, 49)):  # part * parts is not always whole
        got = [lib.te_lr_step(s, 0, total, 1.0, 0.0, 0.5, parts) for s in range(total)]
        assert got == [0.5 ** (s * parts // total) for s in range(total)]


def test_gradients_of_parts_add_up_to_that_of_the_whole(engine_double):
    """Four passes, each scaled by a quarter, and one update: as one pass over all rows."""
    e, rng = engine_double, np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 5)), rng.integers(3, size=8)
    whole, parts = (e.tensor(rng.normal(size=(3, 5)), grad=True) for _ in range(2))
    e.values(parts)[...] = e.values(whole)

    def loss(w, rows):
        logits = e.op("linear", e.tensor(x[rows]), w, None)
        return e.op("cross_entropy", logits, e.tensor(labels[rows]), -1)

    e.backward(loss(whole, slice(8)), np.ones(()))
    for start in range(0, 8, 2):
        e.backward(e.op("scale", loss(parts, slice(start, start + 2)), 0.25), np.ones(()))
    np.testing.assert_allclose(e.grad(parts), e.grad(whole), rtol=1e-12)


# ---- Guard ----


def guarded(e, scale=1.0):
    """A guard, an optimiser over one parameter, and a function for one step with a gradient."""
    lib = e.lib
    guard, optimiser = e.ffi.new("te_guard *"), lib.te_sgd(e.ctx, 0.0, 0.0)
    lib.te_guard_start(guard, scale)
    tensor = e.tensor(np.zeros(2), grad=True)
    e.parameters.append(lib.te_retain(tensor))
    assert lib.te_optim_add(optimiser, tensor, 0) == 0

    def step(gradient, loss=1.0, max_norm=math.inf, lr=1.0):
        set_gradient(e, tensor, gradient)
        return lib.te_guard_update(guard, optimiser, loss, max_norm, lr)

    return guard, optimiser, tensor, step


def test_the_guard_leaves_out_what_is_not_finite_and_counts(engine):
    e = engine
    guard, optimiser, tensor, step = guarded(e)
    for gradient, loss in [([1, 2], math.nan), ([1, math.inf], 1.0), ([math.nan, 0], 1.0)]:
        assert step(gradient, loss) == 0
        assert e.grad(tensor) is None
    assert (guard.skipped, guard.in_a_row, e.lib.te_optim_steps(optimiser)) == (3, 3, 0)
    assert e.values(tensor).tolist() == [0, 0]
    guard.scale = 1.0
    assert step([1, 2]) == 1
    assert (guard.skipped, guard.in_a_row, e.lib.te_optim_steps(optimiser)) == (3, 0, 1)
    assert e.values(tensor).tolist() == [-1, -2]
    assert step([1, 2], lr=math.nan) == -1
    for max_norm in (-1.0, 0.0, math.nan):
        before = e.values(tensor).tolist()
        assert step([1, 2], max_norm=max_norm) == -1
        assert e.values(tensor).tolist() == before
    e.lib.te_optim_free(optimiser)


def test_the_guard_takes_the_scale_of_the_loss_out_again(engine):
    """Gradients 8 times too large, clipped to a norm of 5: as the plain ones clipped to 5."""
    e = engine
    _, optimiser, tensor, step = guarded(e, scale=8.0)
    assert step([8 * 3, 8 * 4], max_norm=5.0) == 1
    assert e.values(tensor).tolist() == [-3, -4]
    assert step([80 * 3, 80 * 4], max_norm=5.0) == 1
    np.testing.assert_allclose(e.values(tensor), [-6, -8], rtol=1e-6)
    e.lib.te_optim_free(optimiser)


def test_the_scale_falls_after_an_overflow_and_comes_back(engine):
    e = engine
    guard, optimiser, _, step = guarded(e, scale=8.0)
    guard.patience = 3
    seen = []
    for finite in (True, False, False, True, True, True, True, True, True, True, True):
        assert step([1, 1 if finite else math.inf], lr=0.0) == finite
        seen.append(guard.scale)
    assert seen == [8, 4, 2, 2, 2, 4, 4, 4, 8, 8, 8]
    for _ in range(60):
        step([math.inf, 0])
    assert guard.scale == 2.0**-24
    assert (guard.skipped, guard.in_a_row) == (62, 60 - 3)
    e.lib.te_optim_free(optimiser)
