"""The cffi builder of `ternio._runtime`: the device runtime, device/src/*.c, for Python.

The same sources and floating-point rules as on a board: the same logits bit for bit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cffi


def ffi_builder(root: Path) -> cffi.FFI:
    """A builder for the extension, reading sources below `root` (the repository)."""
    device = (root / "device").resolve()
    header = (device / "include" / "tr.h").read_text(encoding="utf-8")
    ffi = cffi.FFI()
    ffi.cdef(header.split("/* cdef-begin */")[1].split("/* cdef-end */")[0])
    ffi.set_source(
        "ternio._runtime",
        '#include "tr.h"',
        sources=[str(path) for path in sorted((device / "src").rglob("*.c"))],
        include_dirs=[str(device / "include")],
        extra_compile_args=["-std=c99", "-O2", "-ffp-contract=off", "-g0"],
        extra_link_args=["-s"] if sys.platform == "linux" else [],
        py_limited_api=True,
    )
    return ffi
