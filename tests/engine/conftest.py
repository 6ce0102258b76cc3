"""Shared libraries of the engine, built once per session, and fresh contexts on them."""

from __future__ import annotations

import pytest
from engine_harness import Engine, compile_library


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    return {double: compile_library(folder, double) for double in (False, True)}


@pytest.fixture(params=["avx512", "avx2", "portable"])
def simd(request, libraries):
    """Each instruction set that this machine has."""
    probe = Engine(libraries[False], False)
    possible = probe.lib.te_set_simd(probe.ctx, request.param.encode()) == 0
    probe.close()
    if not possible:
        pytest.skip(f"no {request.param} on this machine")
    return request.param


@pytest.fixture
def engine(libraries):
    """Single precision."""
    instance = Engine(libraries[False], False)
    yield instance
    instance.close()


@pytest.fixture
def engine_simd(libraries, simd):
    """Single precision, on every instruction set."""
    instance = Engine(libraries[False], False, simd)
    yield instance
    instance.close()


@pytest.fixture
def engine_double(libraries, simd):
    """Double precision, on every instruction set."""
    instance = Engine(libraries[True], True, simd)
    yield instance
    instance.close()
