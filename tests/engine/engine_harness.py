"""Compiles the engine as a shared library and wraps it for the tests: NumPy in, NumPy out.

Only what tests need; the bindings that users see are in ``host/ternio``.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path

import cffi
import numpy as np

ENGINE = Path(__file__).resolve().parents[2] / "host" / "engine"


def compile_library(folder: Path, double: bool) -> Path:
    """Builds ``engine.c`` into ``folder``; ``double`` selects the double-precision build.

    The language standard is the compiler's default, in which GCC may fuse products and sums where
    the engine does not forbid it. `TE_TEST_CFLAGS` in the environment adds flags.
    """
    library = folder / ("te_double.so" if double else "te_float.so")
    flags = ["-O1", "-DTE_DOUBLE"] if double else ["-O2"]
    flags += os.environ.get("TE_TEST_CFLAGS", "").split()
    command = ["cc", *flags, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, str(ENGINE / "engine.c"), "-lm", "-o", str(library)], check=True)
    return library


def header_functions() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(result type, name, [(type, name) of each argument]) of all functions of the header."""
    text = (ENGINE / "te.h").read_text()
    text = text.split("/* cdef-begin */")[1].split("/* cdef-end */")[0]
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = []
    for result, name, inside in re.findall(r"([\w ]+?[ *]+)(te_\w+)\(([^()]*)\);", text):
        arguments = []
        for argument in [] if inside == "void" else inside.split(","):
            kind, own, array = re.fullmatch(
                r"\s*(.*?[\s*])(\w+)(\[\d*\])?\s*", argument, re.S
            ).groups()
            kind = " ".join(kind.removeprefix("const ").split())
            arguments.append((kind + (" []" if array else ""), own))
        found.append((" ".join(result.removeprefix("const ").split()), name, arguments))
    return found


class EngineError(Exception):
    """A failed call, with the engine's own text."""


@functools.cache
def load_library(library: Path, double: bool) -> tuple[cffi.FFI, object]:
    """Declarations of ``te.h`` and the library opened with them; parsing takes a while."""
    header = (ENGINE / "te.h").read_text()
    cdef = header.split("/* cdef-begin */")[1].split("/* cdef-end */")[0]
    ffi = cffi.FFI()
    ffi.cdef(f"typedef {'double' if double else 'float'} te_float;" + cdef)
    return ffi, ffi.dlopen(str(library))


class Engine:
    """One shared library and one context; operations are called as ``engine.op("linear", ...)``."""

    def __init__(self, library: Path, double: bool, simd: str | None = None) -> None:
        self.ffi, self.lib = load_library(library, double)
        self.dtype = np.float64 if double else np.float32
        self.ctx = self.lib.te_ctx_new(1)
        self.parameters: list = []
        if simd is not None:
            self.lib.te_set_simd(self.ctx, simd.encode())

    def close(self) -> None:
        for tensor in self.parameters:
            self.lib.te_release(tensor)
        self.lib.te_ctx_free(self.ctx)

    def shape(self, tensor) -> tuple[int, ...]:
        return tuple(self.lib.te_shape(tensor)[i] for i in range(self.lib.te_ndim(tensor)))

    def tensor(self, values, grad: bool = False):
        """A tensor that is released when the engine closes; integers become int32."""
        values = np.asarray(values)
        integer = values.dtype.kind in "iu"
        kind = self.lib.TE_DTYPE_INT32 if integer else self.lib.TE_DTYPE_FLOAT
        tensor = self.lib.te_zeros(self.ctx, kind, values.ndim, list(values.shape))
        self.check(tensor)
        self.parameters.append(tensor)
        self.values(tensor)[...] = values
        if grad:
            self.lib.te_set_requires_grad(tensor, 1)
        return tensor

    def _view(self, pointer, shape, dtype) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return np.frombuffer(self.ffi.buffer(pointer, size), dtype).reshape(shape)

    def strides(self, tensor) -> tuple[int, ...]:
        return tuple(self.lib.te_stride(tensor)[i] for i in range(self.lib.te_ndim(tensor)))

    def values(self, tensor) -> np.ndarray:
        """A view of the elements, with the tensor's own strides (none of them negative)."""
        integer = self.lib.te_tensor_dtype(tensor) == self.lib.TE_DTYPE_INT32
        pointer = self.lib.te_data_i32(tensor) if integer else self.lib.te_data(tensor)
        dtype = np.dtype(np.int32 if integer else self.dtype)
        shape, strides = self.shape(tensor), self.strides(tensor)
        if 0 in shape:
            return np.empty(shape, dtype)
        reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        memory = np.frombuffer(self.ffi.buffer(pointer, reach * dtype.itemsize), dtype)
        steps = [step * dtype.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(memory, shape, steps)

    def grad(self, tensor) -> np.ndarray | None:
        pointer = self.lib.te_grad(tensor)
        return (
            None
            if pointer == self.ffi.NULL
            else self._view(pointer, self.shape(tensor), self.dtype)
        )

    def check(self, result):
        """Raises with the engine's text when ``result`` is NULL or a status that is not TE_OK."""
        failed = result == self.ffi.NULL if isinstance(result, self.ffi.CData) else result != 0
        if failed:
            text = self.ffi.string(self.lib.te_last_error(self.ctx)).decode()
            self.lib.te_clear_error(self.ctx)
            raise EngineError(text)
        return result

    def op(self, name: str, *arguments):
        """Calls operation ``te_<name>``; ``None`` becomes NULL."""
        arguments = [self.ffi.NULL if a is None else a for a in arguments]
        return self.check(getattr(self.lib, f"te_{name}")(self.ctx, *arguments))

    def backward(self, result, grad: np.ndarray) -> None:
        buffer = np.ascontiguousarray(grad, self.dtype)
        pointer = self.ffi.cast("te_float *", self.ffi.from_buffer(buffer))
        self.check(self.lib.te_backward_from(self.ctx, result, pointer))

    def reset(self) -> None:
        self.lib.te_tape_reset(self.ctx)
        for tensor in self.parameters:
            self.lib.te_zero_grad(tensor)
