"""The elementary functions against double precision, over floats sampled evenly in their bits."""

from __future__ import annotations

import cffi
import numpy as np
import pytest

RNG = np.random.default_rng(41)


@pytest.fixture(scope="module")
def functions(library_path):
    ffi = cffi.FFI()
    ffi.cdef(
        "float tr_exp(float); float tr_log(float); float tr_tanh(float);"
        "void tr_sincos(float, float *, float *); float tr_sqrt_portable(float);"
    )
    library = ffi.dlopen(str(library_path))

    def sincos(x):
        out = ffi.new("float[2]")
        library.tr_sincos(x, out, out + 1)
        return out[0], out[1]

    single = {name[3:]: getattr(library, name) for name in dir(library) if name != "tr_sincos"}
    return {**single, "sincos": sincos}


def apply(function, x):
    return np.array([function(float(v)) for v in x], "f4")


def sample(low, high, count=20000):
    """Floats between two positive bounds, evenly in their bits, both bounds included."""
    first, last = np.float32([low, high]).view("u4")
    bits = np.linspace(first, last, count).astype("u4")
    return bits.view("f4")


def ulps(got, want):
    """Largest distance from the double-precision value, in units of the last place of a float."""
    want = np.asarray(want, float)
    return np.max(np.abs(got - want) / np.spacing(np.abs(want).astype("f4")))


def test_exp(functions):
    x = sample(1e-30, 87.3)
    x = np.concatenate([x, -x, [88.0, 88.72, 0.0]]).astype("f4")
    assert ulps(apply(functions["exp"], x), np.exp(x.astype(float))) <= 1.5


def test_log(functions):
    x = np.concatenate([sample(1.18e-38, 3.4e38), sample(0.7, 1.42)])
    assert ulps(apply(functions["log"], x), np.log(x.astype(float))) <= 2
    assert functions["log"](1.0) == 0


def test_tanh(functions):
    x = sample(1e-30, 20)
    x = np.concatenate([x, -x, sample(0.6, 0.65, 2000)]).astype("f4")
    assert ulps(apply(functions["tanh"], x), np.tanh(x.astype(float))) <= 2


def test_sin_and_cos(functions):
    x = np.concatenate([sample(1e-6, 65536), RNG.uniform(0, 100, 5000)]).astype("f4")
    x = np.concatenate([x, -x])
    got = np.array([functions["sincos"](float(v)) for v in x])
    assert np.max(np.abs(got[:, 0] - np.sin(x.astype(float)))) < 1.2e-7
    assert np.max(np.abs(got[:, 1] - np.cos(x.astype(float)))) < 1.2e-7


def test_integer_square_root_is_correctly_rounded(functions):
    x = np.concatenate(
        [
            sample(1.4e-45, 3.4e38, 30000),
            sample(1.4e-45, 1.2e-38, 5000),  # subnormal
            np.arange(4096, dtype="f4") ** 2,
            RNG.uniform(1, 4, 5000).astype("f4"),
        ]
    ).astype("f4")
    got = apply(functions["sqrt_portable"], x)
    np.testing.assert_array_equal(got.view("u4"), np.sqrt(x).view("u4"))
    assert np.signbit(functions["sqrt_portable"](-0.0))
    assert np.isnan(functions["sqrt_portable"](-1.0))


def test_the_edges_are_defined(functions):
    inf, nan = float("inf"), float("nan")
    assert functions["exp"](inf) == inf and functions["exp"](-inf) == 0
    assert functions["exp"](89.0) == inf and functions["exp"](-88.0) == 0
    assert functions["tanh"](inf) == 1 and functions["tanh"](-inf) == -1
    assert all(np.isnan(functions[name](nan)) for name in ("exp", "log", "tanh", "sqrt_portable"))
    assert all(np.isnan(functions["log"](x)) for x in (0.0, -1.0, 1e-45, inf))
    assert all(functions["sincos"](x) == (0, 1) for x in (nan, inf, -inf, 1e6))
