"""Views: every operation reads them, gradients reach the owner, no elements are copied."""

from __future__ import annotations

import numpy as np
import pytest
from engine_harness import EngineError
from operation_cases import by_name, inputs


def strided(e, array: np.ndarray, grad: bool = False):
    """The array as a view of a larger, transposed tensor: (the owner, the view)."""
    turned = np.swapaxes(np.atleast_2d(array), 0, -1)
    owner = e.tensor(np.stack([turned, turned + 1], -1), grad)
    view = e.op("slice", owner, -1, 0, 1)
    view = e.op("reshape", view, turned.ndim, list(turned.shape))
    view = e.op("transpose", view, 0, turned.ndim - 1)
    return owner, e.op("reshape", view, array.ndim, list(array.shape))


def owner_of_gradient(gradient: np.ndarray) -> np.ndarray:
    """What reaches the owner of a view whose gradient this is."""
    turned = np.swapaxes(np.atleast_2d(gradient), 0, -1)
    return np.stack([turned, np.zeros_like(turned)], -1)


@by_name
def test_operations_take_views_as_they_take_dense_tensors(engine, case):
    e = engine
    arrays = inputs(case)
    dense = [e.tensor(a, grad=True) for a in arrays]
    owners, views = zip(*(strided(e, a, grad=True) for a in arrays), strict=True)
    expected, result = case.run(e, dense), case.run(e, list(views))
    np.testing.assert_array_equal(e.values(result), e.values(expected))
    dy = np.random.default_rng(7).normal(size=e.shape(result))
    e.backward(expected, dy)
    e.backward(result, dy)
    for owner, tensor in zip(owners, dense, strict=True):
        np.testing.assert_array_equal(e.grad(owner), owner_of_gradient(e.grad(tensor)))


@pytest.mark.parametrize(
    ("name", "arguments"), [("slice", (1, 1, 2)), ("slice", (-1, 2, 0)), ("transpose", (0, -1))]
)
@pytest.mark.parametrize("integers", [False, True])
def test_slices_and_transposes_share_memory(engine, name, arguments, integers):
    e = engine
    x = e.tensor(np.arange(24).reshape(2, 3, 4) * (1 if integers else 0.5))
    view = e.op(name, x, *arguments)
    used = e.lib.te_bytes_used(e.ctx)
    again = e.op(name, x, *arguments)
    assert e.lib.te_bytes_used(e.ctx) - used < 1024  # the handle, no elements
    e.values(x)[...] += 100
    turned = np.swapaxes(e.values(x), 0, -1)
    expected = turned if name == "transpose" else e.values(x)[:, 1:3]
    if arguments[-1] == 0:
        expected = e.values(x)[..., 2:2]
    for tensor in (view, again):
        np.testing.assert_array_equal(e.values(tensor), expected)
        assert e.values(tensor).dtype == e.values(x).dtype


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ([6, 4], True),  # the dimensions that follow each other joined
        ([2, 3, 2, 2], True),
        ([2, 1, 3, 1, 4], True),
        ([3, 2, 4], False),
        ([24], False),
        ([4, 6], False),
    ],
)
def test_a_reshape_copies_only_what_no_strides_can_express(engine, shape, view):
    e = engine
    wide = e.tensor(np.arange(48.0).reshape(2, 3, 8))
    x = e.op("slice", wide, 2, 1, 4)
    if not view:
        x = e.op("transpose", e.op("slice", wide, 2, 1, 4), 0, 1)
        x = e.op("transpose", x, 1, 2)  # [3, 4, 2]
    expected = e.values(x).reshape(shape)
    y = e.op("reshape", x, len(shape), shape)
    np.testing.assert_array_equal(e.values(y), expected)
    assert np.shares_memory(e.values(y), e.values(wide)) == view
    assert bool(e.lib.te_is_contiguous(y)) == (not view)


def test_every_reshape_of_strided_tensors_equals_numpy(engine):
    e, rng = engine, np.random.default_rng(0)
    shapes = [[24], [2, 12], [4, 1, 6], [2, 3, 4], [1, 24, 1], [3, 8], [2, 2, 2, 3], [4, 3, 2, 1]]
    views = 0
    for _ in range(300):
        shape, other = (shapes[i] for i in rng.integers(len(shapes), size=2))
        x = e.tensor(rng.normal(size=[n + 1 for n in shape]))
        for dim, n in enumerate(shape):
            x = e.op("slice", x, dim, int(rng.integers(2)), n)
        if len(shape) > 1:
            x = e.op("transpose", x, *map(int, rng.permutation(len(shape))[:2]))
        y = e.op("reshape", x, len(other), other)
        np.testing.assert_array_equal(e.values(y), e.values(x).reshape(other))
        views += not e.lib.te_is_contiguous(y)
        e.reset()
    assert 30 < views < 270


def test_a_view_outlives_its_owner_and_the_tape(engine):
    e = engine
    x = e.check(e.lib.te_zeros(e.ctx, e.lib.TE_DTYPE_FLOAT, 2, [4, 3]))
    view = e.lib.te_retain(e.op("transpose", e.op("slice", x, 1, 1, 2), 0, 1))
    e.values(x)[...] = np.arange(12).reshape(4, 3)
    e.lib.te_release(x)
    e.reset()
    assert e.values(view).tolist() == [[1, 4, 7, 10], [2, 5, 8, 11]]
    e.lib.te_fill(view, 5.0)
    assert np.all(e.values(view) == 5)
    e.lib.te_release(view)


def test_filling_a_view_leaves_the_rest_alone(engine):
    e = engine
    x = e.tensor(np.zeros((3, 4)))
    view = e.op("slice", x, 1, 1, 2)
    e.lib.te_seed(e.ctx, 1)
    e.lib.te_fill_normal(view, 0.0, 1.0)
    drawn = e.values(x)[:, 1:3].copy()
    same = e.tensor(np.zeros((3, 2)))
    e.lib.te_seed(e.ctx, 1)
    e.lib.te_fill_normal(same, 0.0, 1.0)
    np.testing.assert_array_equal(drawn, e.values(same))
    assert not e.values(x)[:, [0, 3]].any()


def test_memory_of_the_caller_with_strides(engine):
    e = engine
    data = np.arange(24, dtype=np.float32).reshape(4, 6)
    first = e.ffi.cast("char *", e.ffi.from_buffer(data)) + 4 * (3 * 6 + 5)
    x = e.check(  # reversed in both dimensions, every other column
        e.lib.te_from_strided(e.ctx, 0, 2, [4, 3], [-6, -2], first, e.ffi.NULL, e.ffi.NULL)
    )
    y = e.op("scale", x, 1.0)
    np.testing.assert_array_equal(e.values(y), data[::-1, ::-2])
    e.lib.te_release(x)


def test_a_strided_view_is_no_parameter(engine):
    e = engine
    e.lib.te_set_recording(e.ctx, 0)
    view = e.op("transpose", e.tensor(np.zeros((2, 3))), 0, 1)
    optimiser = e.lib.te_sgd(e.ctx, 0.0, 0.0)
    with pytest.raises(EngineError, match="view that is not contiguous"):
        e.check(e.lib.te_optim_add(optimiser, view, 1))
    e.lib.te_optim_free(optimiser)


def test_eight_dimensions(engine_double):
    e = engine_double
    shape = (2, 1, 3, 1, 2, 1, 2, 2)
    values = np.random.default_rng(0).normal(size=shape)
    x = e.tensor(values, grad=True)
    y = e.op("transpose", e.op("slice", x, 2, 1, 2), 0, 7)
    np.testing.assert_array_equal(e.values(y), np.swapaxes(values[:, :, 1:], 0, 7))
    dy = np.random.default_rng(1).normal(size=e.shape(y))
    e.backward(e.op("silu", y), dy)
    assert np.any(e.grad(x)[:, :, 1:]) and not np.any(e.grad(x)[:, :, :1])
    with pytest.raises(EngineError, match="at most 7 dimensions"):
        e.op("embedding", e.tensor(np.zeros((2, 3))), e.tensor(np.zeros(shape, np.int32)))
