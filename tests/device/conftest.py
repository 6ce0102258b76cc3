"""The runtime as a shared library, compiled once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest
from device_harness import Library, compile_c


@pytest.fixture(scope="session")
def library_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "libtr.so"
    return compile_c(path, "-O2", "-shared", "-fPIC")


@pytest.fixture(scope="session")
def library(library_path) -> Library:
    return Library(library_path)
