"""Choosing tokens: the distribution, top-k and top-p, ties, and logits that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

RNG = np.random.default_rng(17)


def draw(library, logits, count=1, seed=1, **settings):
    logits = np.asarray(logits, "f4")
    weights = np.zeros(len(logits), "u4")
    sampler = library.ffi.new("tr_sampler *", {"temperature": 1.0, "state": seed, **settings})
    pointers = library.pointer(logits, "float *"), library.pointer(weights, "uint32_t *")
    sample = library.c.tr_sample
    return [sample(sampler, pointers[0], len(logits), pointers[1]) for _ in range(count)]


def frequencies(library, logits, count=20000, **settings):
    return np.bincount(draw(library, logits, count, **settings), minlength=len(logits)) / count


def test_greedy_takes_the_first_of_the_largest(library):
    assert draw(library, [0, 3, 1, 3], 3, temperature=0.0) == [1, 1, 1]
    assert draw(library, [0, 3, 1, 3], 3, temperature=-1.0) == [1, 1, 1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax(library, temperature):
    logits = RNG.standard_normal(12)
    want = np.exp(logits / temperature)
    got = frequencies(library, logits, temperature=temperature)
    np.testing.assert_allclose(got, want / want.sum(), atol=0.012)


def test_top_k_keeps_the_largest_and_of_equals_the_first(library):
    logits = [1.0, 2.0, 0.5, 2.0, 1.0, -3.0]
    for k, kept in [(1, {1}), (2, {1, 3}), (3, {0, 1, 3}), (4, {0, 1, 3, 4}), (9, set(range(6)))]:
        got = frequencies(library, logits, top_k=k)
        assert set(np.flatnonzero(got)) == kept
        p = np.where([n in kept for n in range(6)], np.exp(logits), 0)
        np.testing.assert_allclose(got, p / p.sum(), atol=0.012)


def test_top_p_keeps_the_fewest_that_reach_it(library):
    p = np.array([0.1, 0.4, 0.1, 0.25, 0.15])
    for top, kept in [
        (0.39, {1}),
        (0.41, {1, 3}),
        (0.79, {1, 3, 4}),
        (0.85, {0, 1, 3, 4}),
        (0.95, set(range(5))),
        (1.0, set(range(5))),
        (1e-9, {1}),
    ]:
        assert set(np.flatnonzero(frequencies(library, np.log(p), top_p=top))) == kept, top


def test_top_p_comes_after_top_k(library):
    p = np.array([0.4, 0.3, 0.2, 0.1])
    got = frequencies(library, np.log(p), top_k=2, top_p=0.5)
    assert set(np.flatnonzero(got)) == {0}  # 0.4 of 0.7


def test_the_seed_decides(library):
    logits = RNG.standard_normal(50)
    a, b, c = (draw(library, logits, 40, seed=s) for s in (1, 1, 2))
    assert a == b != c


@pytest.mark.parametrize(
    "logits", [[np.nan] * 4, [np.inf, 1, np.inf, 0], [-np.inf] * 4, [1, np.nan, 2, -np.inf]]
)
def test_logits_that_are_not_finite_give_some_token(library, logits):
    for settings in ({}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 1e-30}):
        assert all(0 <= n < 4 for n in draw(library, logits, 20, **settings))


def test_extreme_temperatures(library):
    logits = [1.0, 5.0, 2.0]
    assert set(draw(library, logits, 50, temperature=1e-30)) == {1}
    np.testing.assert_allclose(frequencies(library, logits, temperature=1e30), 1 / 3, atol=0.012)
