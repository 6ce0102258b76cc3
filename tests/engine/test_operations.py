"""Every operation against NumPy, and its gradient against central finite differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_harness import header_functions
from operation_cases import CASES, by_name, inputs

# Operations that differences and NumPy do not say enough of, and the tests that do.
ELSEWHERE = {
    "dropout": "test_dropout_keeps_the_expected_share_and_scales_it",
    "bitlinear": "test_bitlinear.py",
}


def operations_of_the_header() -> set[str]:
    """Functions that take a context and a tensor or more, and give one."""
    return {
        name.removeprefix("te_")
        for result, name, arguments in header_functions()
        if arguments
        and (result, arguments[0][0]) == ("te_tensor *", "te_ctx *")
        and any(kind.startswith("te_tensor *") for kind, _ in arguments)
    }


def test_every_operation_of_the_header_is_among_the_cases(engine, monkeypatch):
    """With dimensions of 1 and with some above and not a multiple of the 16 lanes of a vector."""
    call, sizes = engine.op, {}
    for case in CASES:
        dimensions = {n for shape in case.shapes for n in shape}

        def noted(name, *arguments, dimensions=dimensions):
            sizes.setdefault(name, set()).update(dimensions)
            return call(name, *arguments)

        monkeypatch.setattr(engine, "op", noted)
        case.run(engine, [engine.tensor(a) for a in inputs(case)])
    assert operations_of_the_header() - sizes.keys() == ELSEWHERE.keys()
    for name, test in ELSEWHERE.items():
        text = (
            Path(__file__).parent / test if test.endswith(".py") else Path(__file__)
        ).read_text()
        assert f'op("{name}"' in text and (test.endswith(".py") or f"def {test}(" in text)
    for name in sizes:
        assert 1 in sizes[name], name
        assert any(n > 16 and n % 16 for n in sizes[name]), name


@by_name
def test_forward_equals_numpy(engine_simd, case):
    arrays = [a.astype(np.float32) for a in inputs(case)]
    result = case.run(engine_simd, [engine_simd.tensor(a) for a in arrays])
    expected = case.reference(*(a.astype(np.float64) for a in arrays))
    np.testing.assert_allclose(engine_simd.values(result), expected, rtol=2e-5, atol=2e-6)


@by_name
def test_gradient_equals_finite_differences(engine_double, case):
    e, step = engine_double, 1e-5
    arrays = inputs(case)
    tensors = [e.tensor(a, grad=True) for a in arrays]
    result = case.run(e, tensors)
    weights = np.random.default_rng(7).normal(size=e.shape(result))
    e.backward(result, weights)
    gradients = [e.grad(t).copy() for t in tensors]

    e.lib.te_set_recording(e.ctx, 0)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        values = e.values(tensor)
        numeric = np.zeros_like(gradient)
        for index in np.ndindex(gradient.shape):
            centre, sides = values[index], []
            for side in (step, -step):
                values[index] = centre + side
                sides.append((e.values(case.run(e, tensors)) * weights).sum())
                e.lib.te_tape_reset(e.ctx)
            values[index] = centre
            numeric[index] = (sides[0] - sides[1]) / (2 * step)
        scale = max(np.abs(numeric).max(), 1e-2)
        np.testing.assert_allclose(gradient / scale, numeric / scale, rtol=0, atol=1e-6)


@by_name
def test_gradients_are_added_to_those_that_are_there(engine, case):
    tensors = [engine.tensor(a, grad=True) for a in inputs(case)]
    passes = []
    for _ in range(2):
        result = case.run(engine, tensors)
        engine.backward(result, np.ones(engine.shape(result)))
        engine.lib.te_tape_reset(engine.ctx)
        passes.append([engine.grad(t).copy() for t in tensors])
    for first, both in zip(*passes, strict=True):
        np.testing.assert_allclose(both, 2 * first, rtol=1e-5, atol=1e-6)


def test_products_of_many_blocks_equal_numpy(engine_simd):
    """More than a block of rows, columns and terms, and gradients that read strips of dy."""
    e, rng = engine_simd, np.random.default_rng(3)
    x, w = rng.normal(size=(401, 395)), rng.normal(size=(299, 395))
    dy = rng.normal(size=(401, 299))
    tensors = [e.tensor(a, grad=True) for a in (x, w)]
    y = e.op("linear", *tensors, e.ffi.NULL)
    e.backward(y, dy)
    close = {"rtol": 1e-4, "atol": 1e-3}
    np.testing.assert_allclose(e.values(y), x @ w.T, **close)
    np.testing.assert_allclose(e.grad(tensors[0]), dy @ w, **close)
    np.testing.assert_allclose(e.grad(tensors[1]), dy.T @ x, **close)


def test_attention_of_wide_rows_equals_that_of_each_head(engine_double):
    """Heads of long and wide sequences are gathered, those of small ones read in place."""
    e, rng = engine_double, np.random.default_rng(4)
    time, groups, kv_heads, head = 70, 2, 4, 16
    q = rng.normal(size=(2, time, groups * kv_heads * head))
    k, v = rng.normal(size=(2, 2, time, kv_heads * head))
    dy = rng.normal(size=q.shape)

    def run(arrays, dy, kv_heads):
        tensors = [e.tensor(a, grad=True) for a in arrays]
        for _ in range(2):  # the second pass adds to the first
            y = e.op("attention", *tensors, groups * kv_heads, kv_heads, 1)
            e.backward(y, dy)
            values = e.values(y).copy()
            e.lib.te_tape_reset(e.ctx)
        return [values, *(e.grad(t) / 2 for t in tensors)]

    whole = run((q, k, v), dy, kv_heads)
    for i in range(kv_heads):
        own = slice(i * head, (i + 1) * head)
        wide = slice(i * groups * head, (i + 1) * groups * head)
        alone = run((q[..., wide], k[..., own], v[..., own]), dy[..., wide], 1)
        for result, part, columns in zip(whole, alone, (wide, wide, own, own), strict=True):
            np.testing.assert_allclose(result[..., columns], part, rtol=1e-10, atol=1e-12)


def test_exponentials_from_zero_to_infinity(engine_simd):
    x = np.array([-200, -100, -87.5, -1, 0, 1, 88.5, 89, 200, np.inf, -np.inf, np.nan], np.float32)
    y = engine_simd.values(engine_simd.op("exp", engine_simd.tensor(x)))
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=2e-38)


def test_dropout_keeps_the_expected_share_and_scales_it(engine):
    e = engine
    x = e.tensor(np.full(10_000, 3.0), grad=True)
    y = e.op("dropout", x, 0.25)
    kept = e.values(y) != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_allclose(e.values(y)[kept], 4.0)
    e.backward(y, np.ones(10_000))
    np.testing.assert_allclose(e.grad(x), np.where(kept, 4 / 3, 0))
    e.lib.te_set_training(e.ctx, 0)
    assert e.op("dropout", x, 0.25) == x
