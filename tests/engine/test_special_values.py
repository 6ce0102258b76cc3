"""Ties, infinities and NaNs: values and gradients are those of PyTorch (compared where it is there,
in any case with NumPy)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

INF, NAN = np.inf, np.nan
ROWS = [
    [first] * at + [other] + [first] * (n - at - 1)
    for n in (1, 3, 16, 19)
    for first in (0.0, -3e38, -INF, INF, NAN)
    for other in (0.0, -3e38, 3e38, -INF, INF, NAN)
    for at in {0, n // 2, n - 1}
]


def softmax(x):
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    with np.errstate(all="ignore"):
        shifted = x - x.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def torch():
    """The module, or None."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def check(e, run, arrays, expected, gradients=None, theirs=None):
    """The engine's values against NumPy's, and both and the gradients against PyTorch's."""
    arrays = [np.asarray(a, np.float32) for a in arrays]
    tensors = [e.tensor(a, grad=True) for a in arrays]
    y = run(e, *tensors)
    close = {"rtol": 2e-5, "atol": 2e-6}
    np.testing.assert_allclose(e.values(y), expected, **close)
    dy = np.linspace(0.5, 1.5, expected.size).reshape(expected.shape).astype(np.float32)
    e.backward(y, dy)
    for t, gradient in zip(tensors, gradients or [], strict=bool(gradients)):
        np.testing.assert_allclose(e.grad(t), gradient(dy), **close)
    if theirs and torch():
        inputs = [torch().tensor(a, requires_grad=True) for a in arrays]
        other = theirs(torch(), *inputs)
        np.testing.assert_allclose(e.values(y), other.detach(), **close)
        other.backward(torch().tensor(dy))
        for t, theirs_t in zip(tensors, inputs, strict=True):
            np.testing.assert_allclose(e.grad(t), theirs_t.grad, **close)
    e.reset()


def test_softmax_of_rows_with_infinities(engine_simd):
    for row in ROWS:
        x = np.array([row], np.float32)
        check(
            engine_simd,
            lambda e, t: e.op("softmax", t),
            [x],
            softmax(x),
            theirs=lambda torch, t: t.softmax(-1),
        )
        check(
            engine_simd,
            lambda e, t: e.op("log_softmax", t),
            [x],
            log_softmax(x),
            theirs=lambda torch, t: t.log_softmax(-1),
        )


def test_a_masked_element_has_no_share_at_all(engine_simd):
    x = engine_simd.tensor(np.array([[1.0, -INF, 2.0] * 7], np.float32))
    assert np.all(engine_simd.values(engine_simd.op("softmax", x))[0, 1::3] == 0)


def test_log_softmax_keeps_its_digits_beside_large_numbers(engine_simd):
    x = np.array([[1e6, 1e6, 1e6 - 1]], np.float32)
    y = engine_simd.values(engine_simd.op("log_softmax", engine_simd.tensor(x)))
    np.testing.assert_allclose(y, log_softmax(x.astype(np.float64)), rtol=1e-6)


def test_cross_entropy_of_rows_with_infinities(engine_simd):
    labels = np.zeros(1, np.int32)
    for row in ROWS:
        x = np.array([row], np.float32)
        check(
            engine_simd,
            lambda e, t: e.op("cross_entropy", t, e.tensor(labels), -1),
            [x],
            -log_softmax(x)[0, 0],
            theirs=lambda torch, t: torch.nn.functional.cross_entropy(t, torch.tensor([0])),
        )


@pytest.mark.parametrize("which", [0, 1])
def test_attention_of_scores_that_are_not_finite(engine_simd, which):
    """A row of them is NaN, and no other row that sees finite scores alone."""
    for bad, time in itertools.product((INF, -INF, NAN), (2, 5, 37)):
        qkv = [np.random.default_rng(i).normal(size=(1, time, 4)) for i in range(3)]
        qkv[which][0, -1, 1] = bad
        tensors = [engine_simd.tensor(a.astype(np.float32)) for a in qkv]
        y = engine_simd.values(engine_simd.op("attention", *tensors, 1, 1, 1))[0]
        assert np.all(np.isfinite(y[:-1]))
        finite = qkv[0][0, -1] @ qkv[1][0].T / 2
        with np.errstate(all="ignore"):
            expected = softmax(finite) @ qkv[2][0]
        np.testing.assert_allclose(y[-1], expected, rtol=1e-4, atol=1e-5)


def test_scores_below_what_a_float_can_halve(engine_simd):
    """All far below zero, as some masks make them: shares are those of their differences."""
    q, k = np.full((1, 3, 2), 1e19, np.float32), np.full((1, 3, 2), -1e19, np.float32)
    v = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    y = engine_simd.op("attention", *(engine_simd.tensor(t) for t in (q, k, v)), 1, 1, 0)
    np.testing.assert_allclose(engine_simd.values(y)[0], [[2.0, 3.0]] * 3, rtol=1e-6)


PAIRS = np.array(list(itertools.product((0.0, -0.0, 1.0, -2.0, INF, -INF, NAN), repeat=2))).T


def test_minimum_shares_the_gradient_of_equals(engine):
    a, b = PAIRS
    check(
        engine,
        lambda e, s, t: e.op("minimum", s, t),
        [a, b],
        np.minimum(a, b),
        [
            lambda dy: dy * np.where(a == b, 0.5, ~(a > b)),
            lambda dy: dy * np.where(a == b, 0.5, ~(b > a)),
        ],
        lambda torch, s, t: torch.minimum(s, t),
    )


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.0), (-INF, 1.0)])
def test_clip_passes_the_gradient_at_its_bounds(engine, low, high):
    x = np.array([-2, -1, -0.0, 0, 0.5, 1, 2, INF, -INF, NAN])
    check(
        engine,
        lambda e, t: e.op("clip", t, low, high),
        [x],
        np.clip(x, low, high),
        [lambda dy: dy * ((x >= low) & (x <= high))],
        lambda torch, t: t.clamp(low, high),
    )


def test_relu_at_zero_and_nan(engine_simd):
    x = np.array([0.0, -0.0, 1e-40, -1e-40, INF, -INF, NAN])
    check(
        engine_simd,
        lambda e, t: e.op("relu", t),
        [x],
        np.maximum(x, 0),
        [lambda dy: dy * ~(x <= 0)],
        lambda torch, t: torch.relu(t),
    )


FAR = np.array([-INF, -3e38, -1e38, -1e32, -1e19, -1e4, -90, 90, 1e4, 1e19, INF, NAN])
AT_ENDS = np.isinf(FAR) | np.isnan(FAR)


@pytest.mark.parametrize("name", ["silu", "gelu", "swiglu", "geglu"])
def test_gates_that_are_shut_or_open(engine_simd, name):
    """Zero below and the identity above, with slopes 0 and 1, as far as the numbers reach. At the
    infinities PyTorch gives infinity or NaN, and NaNs as slopes; far out gelu's slope is NaN there,
    but not here."""
    e, x = engine_simd, FAR.astype(np.float32)
    a, b = e.tensor(x, grad=True), e.tensor(np.full(x.shape, 1.5), grad=True)
    gated, factor = name.endswith("glu"), 1.5 if name.endswith("glu") else 1
    y = e.op(name, a, b) if gated else e.op(name, a)
    e.backward(y, np.ones(x.shape))
    value = np.where(FAR == -INF, NAN, np.where(FAR < 0, 0, FAR)).astype(np.float32)
    slope = np.where(AT_ENDS, NAN, FAR > 0)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(e.values(y), value * np.float32(factor), atol=1e-35)
    np.testing.assert_allclose(e.grad(a), slope * factor, atol=1e-35)
    if gated:
        np.testing.assert_allclose(e.grad(b), value, atol=1e-35)


def test_sigmoid_and_tanh_at_their_ends(engine_simd):
    for name, low, mean in [("sigmoid", 0, 0.5), ("tanh", -1, 0)]:
        x = engine_simd.tensor(FAR.astype(np.float32), grad=True)
        y = engine_simd.op(name, x)
        engine_simd.backward(y, np.ones(FAR.shape))
        expected = np.where(np.isnan(FAR), NAN, np.where(FAR < 0, low, 1))
        np.testing.assert_allclose(engine_simd.values(y), expected, atol=1e-35)
        np.testing.assert_allclose(engine_simd.grad(x), np.where(np.isnan(FAR), NAN, 0), atol=1e-35)
        zero = engine_simd.op(name, engine_simd.tensor(np.zeros(19)))
        assert np.all(engine_simd.values(zero) == mean)


EXACT = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / (1 + np.exp(-np.sqrt(8 / np.pi) * (x + 0.044715 * x**3))),
    "exp": np.exp,
    "log": lambda x: np.log(np.abs(x)),
}


@pytest.mark.parametrize("name", EXACT)
def test_activations_are_precise_relative_to_their_values(engine_simd, name):
    """Near 0, where an absolute tolerance shows nothing, as elsewhere."""
    small = np.logspace(-36, 0, 5001)
    x = np.concatenate([-small, small, np.linspace(-80, 80, 5001)]).astype(np.float32)
    if name == "gelu":
        x = x[x > -5]  # beyond, roundings of the cubic take part
    if name == "log":
        x = np.abs(x[x != 0])
    y = engine_simd.values(engine_simd.op(name, engine_simd.tensor(x)))
    expected = EXACT[name](x.astype(np.float64))
    # gelu: e^z of a rounded z, up to 13 there
    np.testing.assert_allclose(y, expected, rtol=3e-6 if name == "gelu" else 4e-7, atol=1e-37)


def test_max_pool_takes_the_first_of_equals_and_keeps_a_nan(engine):
    columns = np.array(list(itertools.product((0.0, 1.0, INF, -INF, NAN), repeat=3))).T
    first = np.where(np.isnan(columns), INF, columns)
    first = np.where(np.isnan(columns).any(0), np.isnan(columns), first == first.max(0)).argmax(0)
    check(
        engine,
        lambda e, t: e.op("max_pool", t),
        [columns],
        columns.max(0),
        [lambda dy: dy * (np.arange(3)[:, None] == first)],
        lambda torch, t: t.max(0).values,
    )


def test_mean_of_many_rows(engine_simd):
    """One sum of floats alone would be 1 % beside it."""
    e = engine_simd
    y = e.op("mean_pool", e.tensor(np.full((1 << 20, 1), 0.1, np.float32)))
    np.testing.assert_allclose(e.values(y), [0.1], rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 15, 17, 255, 257, 4099, 70000])
@pytest.mark.parametrize("width", [1, 3, 31, 33, 65])
def test_sums_of_many_rows_keep_their_digits(engine_simd, rows, width):
    """A bias gradient, what a broadcast row collects and a sum, by whatever path."""
    e = engine_simd
    x = np.random.default_rng(rows).random((rows, width)).astype(np.float32)
    bias = e.tensor(np.zeros(width), grad=True)
    row = e.tensor(np.zeros((1, width)), grad=True)
    wide = e.op("broadcast", row, 2, [rows, width])
    e.backward(e.op("add", e.op("add", e.tensor(x), wide), bias), x)
    exact = x.sum(axis=0, dtype=np.float64)
    for sums in (e.grad(bias), e.grad(row)[0], e.values(e.op("sum_pool", e.tensor(x)))):
        np.testing.assert_allclose(sums, exact, rtol=4e-7)


def test_mse_gradient_of_values_far_from_zero(engine_simd):
    """2 a / n - 2 b / n would keep no digit of 2 (a - b) / n."""
    e = engine_simd
    a = (2000 + 1e-3 * np.random.default_rng(3).normal(size=(2, 50))).astype(np.float32)
    left, right = (e.tensor(t, grad=True) for t in a)
    e.check(e.lib.te_backward(e.ctx, e.op("mse", left, right)))
    np.testing.assert_allclose(e.grad(left), 2 * (a[0] - a[1]) / 50, rtol=1e-6)
    np.testing.assert_allclose(e.grad(right), 2 * (a[1] - a[0]) / 50, rtol=1e-6)


def test_convolution_of_nothing_but_padding_is_its_bias(engine):
    w, b = engine.tensor(np.ones((2, 3, 4))), engine.tensor(np.array([1.0, -2.0]))
    y = engine.op("conv1d", engine.tensor(np.zeros((5, 0, 4))), w, b, 1, 2, 2)
    np.testing.assert_array_equal(engine.values(y), np.tile([1.0, -2.0], (5, 2, 1)))
