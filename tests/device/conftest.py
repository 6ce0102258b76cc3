"""The runtime as a shared library, compiled once per test run."""

from __future__ import annotations

import pytest
from device_harness import Library, compile_c


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Library:
    path = tmp_path_factory.mktemp("runtime") / "libtr.so"
    return Library(compile_c(path, "-O2", "-shared", "-fPIC"))
