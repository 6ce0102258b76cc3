"""The cffi builder of `ternio._engine`: the training engine, host/engine/engine.c, for Python.

`python host/ternio/_build/engine.py` compiles it in place, for work on the engine itself.

The environment variable TERNIO_BLAS hands large matrix products to a library (host/engine/blas.c):
`openblas` is the system's OpenBLAS, `accelerate` that of macOS, and `scipy-openblas32` the PyPI
package of this name, which has to be installed where the build runs (pip: --no-build-isolation).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import cffi

# The wrappers around the engine's functions are many, and compiled for size.
_PREAMBLE = """
#include "te.h"
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif
"""
# What C programs and tests call, and Python does not: each wrapper takes about 500 bytes.
_ONLY_C = (
    "backward_from blas bytes_held bytes_used cross_entropy ctx_trim fail_allocation from_data "
    "grad_create optim_count optim_param quantize_int8 random_normal random_u64 random_uniform "
    "refcount set_simd set_training training"
).split()
# Python memory lent to a tensor is handed back through this function (ternio/tensor.py).
_CALLBACK = 'extern "Python" void te_py_release(void *owner);'


def _blas(name: str) -> dict[str, list[Any]]:
    """What the compiler needs for the BLAS of a name; nothing for ""."""
    plain: list[Any] = [("TE_BLAS", "1")]
    if not name:
        return {"define_macros": [], "libraries": [], "extra_link_args": []}
    if name == "openblas":
        return {"define_macros": plain, "libraries": ["openblas"], "extra_link_args": []}
    if name == "accelerate":
        link = ["-framework", "Accelerate"]
        return {"define_macros": plain, "libraries": [], "extra_link_args": link}
    if name == "scipy-openblas32":
        import scipy_openblas32

        folder = scipy_openblas32.get_lib_dir()
        return {
            "define_macros": [("TE_BLAS", "scipy_cblas_sgemm")],
            "libraries": [scipy_openblas32.get_library()],
            "extra_link_args": [f"-L{folder}", f"-Wl,-rpath,{folder}"],
        }
    raise ValueError(f"TERNIO_BLAS={name}: expected openblas, accelerate or scipy-openblas32")


def ffi_builder(root: Path) -> cffi.FFI:
    """A builder for the extension, reading sources below `root` (the repository)."""
    engine = (root / "host" / "engine").resolve()
    header = (engine / "te.h").read_text(encoding="utf-8")
    declarations = header.split("/* cdef-begin */")[1].split("/* cdef-end */")[0]
    declarations = re.sub(r"/\*.*?\*/", "", declarations, flags=re.S)
    for name in _ONLY_C:
        declarations, found = re.subn(rf"^[^;#{{}}]*?\bte_{name}\([^;]*;", "", declarations, flags=re.M)
        assert found == 1, f"te.h declares te_{name} {found} times"
    blas = _blas(os.environ.get("TERNIO_BLAS", ""))
    strip = ["-s", "-Wl,-z,noseparate-code", "-Wl,--gc-sections", "-Wl,-z,norelro"] if sys.platform == "linux" else []
    ffi = cffi.FFI()
    ffi.cdef("typedef float te_float;\n" + declarations + _CALLBACK)
    ffi.set_source(
        "ternio._engine",
        _PREAMBLE,
        sources=[str(engine / "engine.c")],
        include_dirs=[str(engine)],
        define_macros=blas["define_macros"],
        libraries=[*blas["libraries"], "m"],
        extra_compile_args=[
            "-O2",
            "-std=gnu11",
            "-g0",
            "-fvisibility=hidden",
            "-fno-asynchronous-unwind-tables",
            "-fno-align-functions",
            "-fno-align-jumps",
            "-fno-align-labels",
            "-ffunction-sections",
        ],
        extra_link_args=[*strip, *blas["extra_link_args"]],
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
