"""BitLinear: exact against its definition, straight-through gradients with quantised operands."""

from __future__ import annotations

import engine_reference as ref
import numpy as np
import pytest

SHAPES = [((1,), 1), ((5, 3), 2), ((2, 7, 33), 17), ((19, 300), 41), ((70, 64), 64)]


def operands(shape, out, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    return x, rng.normal(scale=0.1, size=(out, shape[-1])).astype(np.float32)


@pytest.mark.parametrize(("shape", "out"), SHAPES)
def test_forward_equals_the_definition_to_the_bit(engine_simd, shape, out):
    x, w = operands(shape, out)
    y = engine_simd.op("bitlinear", engine_simd.tensor(x), engine_simd.tensor(w))
    np.testing.assert_array_equal(engine_simd.values(y), ref.bitlinear(x, w))


def test_extreme_operands_are_exact(engine_simd):
    x = np.full((9, 1031), 3.0, np.float32)
    x[1::2] *= -1
    x[2, ::3] = 0
    w = np.ones((33, 1031), np.float32)
    w[::2] = -1
    y = engine_simd.op("bitlinear", engine_simd.tensor(x), engine_simd.tensor(w))
    np.testing.assert_array_equal(engine_simd.values(y), ref.bitlinear(x, w))


def test_products_are_rounded_before_they_are_rounded_to_codes(engine_simd):
    """x * (127 / s) is rounded to float first: fusing it with the rounding gives other codes."""
    rng = np.random.default_rng(0)
    x = rng.integers(-255, 256, (20_000, 16)).astype(np.float32) / 2
    x[:, 0] = rng.uniform(100, 200, len(x))
    w = np.eye(16, dtype=np.float32)
    y = engine_simd.op("bitlinear", engine_simd.tensor(x), engine_simd.tensor(w))
    fused = np.rint(x.astype(np.float64) * (np.float32(127) / np.abs(x).max(-1, keepdims=True)))
    assert np.any(fused != ref.int8(x)[0])
    np.testing.assert_array_equal(engine_simd.values(y), ref.bitlinear(x, w))


def test_zero_vectors_and_zero_weights_give_zero(engine_simd):
    x, w = operands((4, 20), 6)
    x[2] = 0
    y = engine_simd.values(
        engine_simd.op("bitlinear", engine_simd.tensor(x), engine_simd.tensor(w))
    )
    assert np.all(y[2] == 0) and np.any(y[1] != 0)
    zero = engine_simd.op("bitlinear", engine_simd.tensor(x), engine_simd.tensor(w * 0))
    assert np.all(engine_simd.values(zero) == 0)


def test_ties_round_to_even(engine_simd):
    x = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 63.5]], np.float32)
    w = np.eye(7, dtype=np.float32)
    y = engine_simd.values(
        engine_simd.op("bitlinear", engine_simd.tensor(x), engine_simd.tensor(w))
    )
    gamma = np.float32(1 / 7)
    np.testing.assert_allclose(y[0] / gamma, [127, 0, 2, 2, 0, -2, 64], rtol=1e-6)


@pytest.mark.parametrize(("shape", "out"), SHAPES)
def test_gradients_use_the_quantised_operands(engine_double, shape, out):
    x, w = (a.astype(np.float64) for a in operands(shape, out, 3))
    tx, tw = engine_double.tensor(x, grad=True), engine_double.tensor(w, grad=True)
    y = engine_double.op("bitlinear", tx, tw)
    dy = np.random.default_rng(5).normal(size=(*shape[:-1], out))
    engine_double.backward(y, dy)
    trits, gamma = ref.ternary(w)
    codes, s = ref.int8(x)
    rows, dequantised = dy.reshape(-1, out), (codes * s / 127).reshape(-1, shape[-1])
    np.testing.assert_allclose(engine_double.grad(tx), dy @ (gamma * trits), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(engine_double.grad(tw), rows.T @ dequantised, rtol=1e-9, atol=1e-12)


def test_frozen_weights_get_no_gradient_but_pass_one_on(engine):
    x, w = operands((4, 20), 6)
    tx, tw = engine.tensor(x, grad=True), engine.tensor(w)
    engine.backward(engine.op("bitlinear", tx, tw), np.ones((4, 6)))
    assert engine.grad(tw) is None
    assert np.abs(engine.grad(tx)).max() > 0


def test_public_quantisers_agree_with_the_layer(engine):
    x, w = operands((1, 50), 13)
    trits = engine.ffi.new("int8_t[]", w.size)
    gamma = engine.lib.te_quantize_ternary(
        engine.ffi.cast("te_float *", engine.ffi.from_buffer(w)), w.size, trits
    )
    codes = engine.ffi.new("int8_t[]", x.size)
    s = engine.lib.te_quantize_int8(
        engine.ffi.cast("te_float *", engine.ffi.from_buffer(x)), x.size, codes
    )
    expected_trits, expected_gamma = ref.ternary(w)
    expected_codes, expected_s = ref.int8(x)
    assert np.array_equal(list(trits), expected_trits.ravel())
    assert np.array_equal(list(codes), expected_codes.ravel())
    assert (gamma, s) == (expected_gamma, expected_s[0, 0])
