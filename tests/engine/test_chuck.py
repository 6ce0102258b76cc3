"""Chuck: each of its five levels made to act, and the value that it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest

LR = 0.01


class Chuck:
    """One optimiser over parameters of four elements each, on the given settings."""

    def __init__(self, e, parameters: int = 1, **settings) -> None:
        self.e, self.lib = e, e.lib
        chosen = e.ffi.new("te_chuck_settings *")
        self.lib.te_chuck_defaults(chosen)
        for name, value in settings.items():
            setattr(chosen, name, value)
        self.pointer = e.check(self.lib.te_chuck(e.ctx, chosen))
        self.tensors = [e.tensor(np.ones(4), grad=True) for _ in range(parameters)]
        for tensor in self.tensors:
            e.check(self.lib.te_optim_add(self.pointer, tensor, 0))

    def step(self, loss: float, *norms: float, lr: float = LR) -> None:
        """One update; gradients have equal elements and the given norms (1 each by default)."""
        for tensor, norm in zip(self.tensors, norms or [1.0] * len(self.tensors), strict=True):
            self.lib.te_grad_create(tensor)
            self.e.grad(tensor)[...] = norm / 2
        self.e.check(self.lib.te_optim_observe(self.pointer, loss))
        self.e.check(self.lib.te_optim_step(self.pointer, lr))

    def read(self, what: str, i: int = -1) -> float:
        return self.lib.te_chuck_read(self.pointer, i, getattr(self.lib, f"TE_CHUCK_{what}"))

    def values(self, i: int = 0) -> np.ndarray:
        return self.e.values(self.tensors[i]).copy()

    def free(self) -> None:
        self.lib.te_optim_free(self.pointer)


@pytest.fixture
def chuck(engine_double):
    made = []

    def make(parameters: int = 1, **settings) -> Chuck:
        made.append(Chuck(engine_double, parameters, **settings))
        return made[-1]

    yield make
    for one in made:
        one.free()


def expected_lambda(series, threshold, window=16):
    """The rule of levels 1 and 2, from the definition; also the last trend."""
    factor, trend, seen = 1.0, 0.0, []
    for value in series:
        seen = [*seen, value][-window:]
        quarter = len(seen) // 4
        if len(seen) >= window / 2:
            old, new = np.mean(seen[:quarter]), np.mean(seen[-quarter:])
            trend = (new - old) / old
            factor *= 0.97 if trend > threshold else 1.03 if trend < -threshold else 1.0
        factor = min(max(1 + 0.999 * (factor - 1), 0.3), 2.0)
    return factor, trend


def running_mean(losses, decay=0.99):
    means = []
    for loss in losses:
        means.append(decay * means[-1] + (1 - decay) * loss if means else loss)
    return means


# ---- Level 1: the trend of the loss ----


@pytest.mark.parametrize(
    ("growth", "range_of_lambda"), [(1.3, (0.5, 0.7)), (0.5, (1.3, 2.0)), (1.0, (1.0, 1.0))]
)
def test_a_rising_loss_damps_and_a_falling_one_pushes(chuck, growth, range_of_lambda):
    c, losses = chuck(), [2.0 * growth**t for t in range(24)]
    for loss in losses:
        c.step(loss)
    factor, trend = expected_lambda(running_mean(losses), 0.02)
    assert range_of_lambda[0] <= factor <= range_of_lambda[1]
    assert c.read("LAMBDA") == pytest.approx(factor, rel=1e-12)
    assert c.read("TREND") == pytest.approx(trend, rel=1e-9)
    assert c.read("MEAN") == pytest.approx(running_mean(losses)[-1], rel=1e-12)


@pytest.mark.parametrize(("growth", "limit"), [(1.1, 0.3), (0.9, 2.0)])
def test_lambda_stays_within_its_limits(chuck, growth, limit):
    c = chuck(loss_decay=0.0)
    for t in range(120):
        c.step(growth**t)
    assert c.read("LAMBDA") == limit


def test_lambda_is_drawn_back_to_one(chuck):
    c = chuck(loss_decay=0.0, still_steps=10**6)
    for t in range(30):
        c.step(1.1**t)
    for _ in range(16):
        c.step(20.0)
    before = c.read("LAMBDA")
    for _ in range(100):
        c.step(20.0)
    assert before < 0.6
    assert c.read("LAMBDA") == pytest.approx(1 + (before - 1) * 0.999**100, rel=1e-12)


# ---- Level 2: the trend of a gradient's norm ----


def test_the_norm_of_each_gradient_steers_its_own_parameter(chuck):
    c = chuck(3)
    series = [[1.0 * g**t for t in range(20)] for g in (1.1, 0.9, 1.01)]
    for t in range(20):
        c.step(1.0, *(s[t] for s in series))
    factors = [expected_lambda(s, 0.05)[0] for s in series]
    assert factors[0] < 0.8 and factors[1] > 1.2
    for i, factor in enumerate(factors):
        assert c.read("LAMBDA", i) == pytest.approx(factor, rel=1e-12)
        assert c.read("MEAN", i) == pytest.approx(series[i][-1], rel=1e-12)
    assert c.read("LAMBDA") == 1


# ---- Level 3: stagnation ----


def test_a_plateau_stirs_the_parameters_and_the_noise_decays(chuck):
    c = chuck(still_steps=8, loss_decay=0.0)
    for _ in range(14):  # a trend is known from the eighth loss on
        c.step(1.0)
        assert c.read("NOISE") == 0
    c.step(1.0)
    assert c.read("NOISE") == 0.001
    for t in range(1, 4):
        c.step(1.5**t)
        assert c.read("NOISE") == pytest.approx(0.001 * 0.9**t, rel=1e-12)


def test_noise_reaches_the_parameters_and_has_its_size(chuck):
    quiet, stirred = chuck(noise=0.0), chuck()
    for _ in range(15):
        quiet.step(1.0)
        stirred.step(1.0)
    apart = stirred.values() - quiet.values()
    assert 0 < np.abs(apart).max() <= 0.001
    assert len(set(apart)) == 4


# ---- Level 4: dead parameters ----


def test_a_parameter_with_a_dead_gradient_is_frozen(chuck):
    c = chuck(2)
    for _ in range(7):
        c.step(1.0, 0.009, 1.0)
    assert c.read("FROZEN", 0) == 0
    c.step(1.0, 0.009, 1.0)
    assert (c.read("FROZEN", 0), c.read("FROZEN", 1)) == (1, 0)
    before = c.values(0), c.values(1)
    c.step(1.0, 5.0, 5.0)
    np.testing.assert_array_equal(c.values(0), before[0])
    assert np.all(c.values(1) < before[1])


def test_one_larger_gradient_starts_the_count_again(chuck):
    c = chuck()
    for norm in [0.001] * 7 + [0.02] + [0.001] * 7:
        c.step(1.0, norm)
    assert c.read("FROZEN", 0) == 0


# ---- Level 5: patience ----


def test_long_stagnation_halves_the_rate_and_recovery_raises_it(chuck):
    c = chuck()

    def interval(loss: float) -> tuple[float, float]:
        for _ in range(1000):
            c.step(loss, lr=0.0)
        return c.read("SCALE"), c.read("SLOW_MEAN")

    assert interval(1.0)[0] == 1  # the first sets the best
    assert [interval(1.0)[0] for _ in range(3)] == [1, 1, 0.5]
    assert [interval(1.0)[0] for _ in range(3)] == [0.5, 0.5, 0.25]
    scale, slow = interval(0.5)
    assert slow == pytest.approx(0.5 + 0.5 * 0.999**1000, rel=1e-9)
    assert scale == pytest.approx(0.3)
    assert interval(0.5)[0] == pytest.approx(0.36)


def test_the_scale_has_a_floor_and_never_passes_one(chuck):
    c = chuck(slow_interval=2, slow_decay=0.0)
    for _ in range(60):
        c.step(1.0)
    assert c.read("SCALE") == 0.05
    for t in range(60):
        c.step(0.9**t)
    assert c.read("SCALE") == 1


# ---- The update as a whole ----


def test_the_update_is_adam_times_all_factors(chuck):
    c = chuck(noise=0.0)
    theta, m, v = np.ones(4), 0.0, 0.0
    losses, norms = [1.2**t for t in range(20)], [0.9**t for t in range(20)]
    for t in range(20):
        c.step(losses[t], norms[t])
        level1, _ = expected_lambda(running_mean(losses[: t + 1]), 0.02)
        level2, _ = expected_lambda(norms[: t + 1], 0.05)
        g = norms[t] / 2
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        theta = theta - LR * level1 * level2 * m_hat / (math.sqrt(v_hat) + 1e-8)
    np.testing.assert_allclose(c.values(), theta, rtol=1e-12)


def test_what_it_remembers_can_be_saved_and_restored(chuck):
    """Twelve steps, and six + all state carried over + six, end at the same bits."""

    def run(c, start, end):
        for t in range(start, end):
            c.step(1.1**t, 0.8**t)

    whole, first, second = chuck(), chuck(), chuck()
    run(whole, 0, 12)
    run(first, 0, 6)
    e, lib = first.e, first.lib
    words = e.ffi.new("uint64_t[]", lib.te_chuck_words(first.pointer))
    lib.te_chuck_save(first.pointer, words)
    assert lib.te_chuck_load(second.pointer, words, len(words)) == 0
    assert lib.te_chuck_load(second.pointer, words, len(words) - 1) == lib.TE_ERR_VALUE
    assert b"state of this optimiser" in e.ffi.string(lib.te_last_error(e.ctx))
    lib.te_clear_error(e.ctx)
    for slot in (0, 1):
        source = lib.te_optim_state(first.pointer, 0, slot)
        e.ffi.memmove(lib.te_optim_state(second.pointer, 0, slot), source, 4 * 8)
    lib.te_optim_set_steps(second.pointer, lib.te_optim_steps(first.pointer))
    e.values(second.tensors[0])[...] = first.values()
    run(second, 6, 12)
    np.testing.assert_array_equal(second.values(), whole.values())
    assert second.read("LAMBDA", 0) == whole.read("LAMBDA", 0) != 1


def test_what_does_not_exist_is_not_a_number(engine):
    e = engine
    plain = e.lib.te_sgd(e.ctx, 0.0, 0.0)
    assert math.isnan(e.lib.te_chuck_read(plain, -1, e.lib.TE_CHUCK_LAMBDA))
    assert e.lib.te_chuck_words(plain) == 0
    assert e.lib.te_optim_observe(plain, 1.0) == 0
    assert e.lib.te_optim_observe(plain, math.nan) == e.lib.TE_ERR_VALUE
    e.lib.te_optim_free(plain)


def test_settings_that_make_no_sense_are_refused(engine):
    settings = engine.ffi.new("te_chuck_settings *")
    engine.lib.te_chuck_defaults(settings)
    settings.window = 65
    assert engine.lib.te_chuck(engine.ctx, settings) == engine.ffi.NULL
    assert b"chuck: window 65 must be 4 to 64" in engine.ffi.string(
        engine.lib.te_last_error(engine.ctx)
    )
