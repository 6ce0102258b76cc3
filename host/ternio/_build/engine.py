"""The cffi builder of `ternio._engine`: the training engine, host/engine/engine.c, for Python.

`python host/ternio/_build/engine.py` compiles it in place, for work on the engine itself.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cffi

# The wrappers around the engine's functions are many, and compiled for size.
_PREAMBLE = """
#include "te.h"
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif
"""
# Python memory lent to a tensor is handed back through this function (ternio/tensor.py).
_CALLBACK = 'extern "Python" void te_py_release(void *owner);'


def ffi_builder(root: Path) -> cffi.FFI:
    """A builder for the extension, reading sources below `root` (the repository)."""
    engine = (root / "host" / "engine").resolve()
    header = (engine / "te.h").read_text(encoding="utf-8")
    declarations = header.split("/* cdef-begin */")[1].split("/* cdef-end */")[0]
    ffi = cffi.FFI()
    ffi.cdef("typedef float te_float;\n" + declarations + _CALLBACK)
    ffi.set_source(
        "ternio._engine",
        _PREAMBLE,
        sources=[str(engine / "engine.c")],
        include_dirs=[str(engine)],
        libraries=["m"],
        extra_compile_args=[
            "-O2",
            "-std=gnu11",
            "-g0",
            "-fvisibility=hidden",
            "-fno-asynchronous-unwind-tables",
        ],
        extra_link_args=["-s", "-Wl,-z,noseparate-code"] if sys.platform == "linux" else [],
        py_limited_api=True,
    )
    return ffi


def _build_in_place(root: Path) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(ffi_builder(root).compile(tmpdir=folder))
        target = root / "host" / "ternio" / built.name
        copy = target.with_suffix(".new")
        copy.write_bytes(built.read_bytes())
        copy.replace(target)
    return target


if __name__ == "__main__":
    print(_build_in_place(Path(__file__).resolve().parents[3]))
