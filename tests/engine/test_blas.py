"""The engine built with -DTE_BLAS, on a plain BLAS of the tests and on those that are installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import transformer as tf
from engine_harness import ENGINE, Engine

HERE = Path(__file__).parent


def flags_of(name: str, folder: Path) -> list[str] | None:
    """What the compiler needs for a BLAS; None where this machine does not have it."""
    if name == "plain":
        return ["-DTE_BLAS", str(HERE / "plain_blas.c")]
    if name == "scipy-openblas32":
        if importlib.util.find_spec("scipy_openblas32") is None:
            return None
        import scipy_openblas32

        where = scipy_openblas32.get_lib_dir()
        library = f"-l{scipy_openblas32.get_library()}"
        return ["-DTE_BLAS=scipy_cblas_sgemm", f"-L{where}", f"-Wl,-rpath,{where}", library]
    probe = folder / "probe.c"
    probe.write_text("void cblas_sgemm(void); int main(void) { cblas_sgemm(); }\n")
    command = ["cc", str(probe), "-lopenblas", "-o", str(folder / "probe")]
    found = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return ["-DTE_BLAS", "-lopenblas"] if found else None


@pytest.fixture(scope="module", params=["plain", "scipy-openblas32", "openblas"])
def library(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("blas")
    flags = flags_of(request.param, folder)
    if flags is None:
        pytest.skip(f"no {request.param} on this machine")
    built = folder / f"te_{request.param}.so"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-std=c11"]
    subprocess.run(
        [*command, str(ENGINE / "engine.c"), *flags, "-lm", "-o", str(built)], check=True
    )
    return built


@pytest.fixture
def blas(library):
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    instance = Engine(library, False)
    yield instance
    instance.close()


def layers(e: Engine) -> list[np.ndarray]:
    """Results and gradients of every layer with a product, large enough for a library."""
    rng, out = np.random.default_rng(0), []
    x = rng.normal(size=(3, 50, 48))
    shapes = {"linear": [(65, 48), (65,)], "bitlinear": [(65, 48)], "conv1d": [(33, 3, 48), (33,)]}
    shapes["lora"] = [(8, 48), (48, 8)]
    for name, weights in shapes.items():
        inputs = [e.tensor(a, grad=True) for a in (x, *(rng.normal(size=s) for s in weights))]
        more = {"conv1d": (2, 1, 0), "lora": (0.5,)}.get(name, ())
        first = (inputs[0],) if name == "lora" else ()
        y = e.op(name, *first, *inputs, *more)
        e.backward(y, rng.normal(size=e.shape(y)))
        out += [e.values(y).copy(), *(e.grad(t).copy() for t in inputs)]
    return out


def test_layers_agree_with_the_engine_s_own_products(engine, blas):
    for own, other in zip(layers(engine), layers(blas), strict=True):
        np.testing.assert_allclose(other, own, rtol=0, atol=2e-6 * np.abs(own).max())


def test_codes_and_trits_are_multiplied_exactly(engine, blas):
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(70, 300)), rng.normal(size=(64, 300))
    own, other = (e.op("bitlinear", e.tensor(x), e.tensor(w)) for e in (engine, blas))
    np.testing.assert_array_equal(blas.values(other), engine.values(own))


def test_a_transformer_learns_the_same(engine, blas):
    own, other = (tf.engine_step(e, tf.SIZES["S"], 2, False) for e in (engine, blas))
    losses = [(own(), other()) for _ in range(5)]
    assert losses[4][0] < losses[0][0]
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-5)


def test_the_library_is_named_and_called(engine, blas, library):
    assert engine.ffi.string(engine.lib.te_blas()) == b""
    assert blas.ffi.string(blas.lib.te_blas()).endswith(b"cblas_sgemm")
    if "plain" not in library.name:
        return
    blas.ffi.cdef("extern long plain_blas_calls;", override=True)
    counter = blas.ffi.dlopen(str(library))
    before = counter.plain_blas_calls
    small, large = (blas.tensor(np.ones((n, n))) for n in (8, 64))
    blas.op("linear", small, small, None)
    assert counter.plain_blas_calls == before
    blas.op("linear", large, large, None)
    assert counter.plain_blas_calls == before + 1
