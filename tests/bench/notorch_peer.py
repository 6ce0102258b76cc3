"""Notorch as a peer of the bench, where TERNIO_BENCH_NOTORCH names a folder with its notorch.c.

It is compiled there and then into a temporary library, on one thread: with its own AVX2 kernels,
where the folder has them and the processor too, else as plain C.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import transformer as tf

STEP = Path(__file__).with_name("notorch_step.c")


def build(folder: Path) -> ctypes.CDLL | None:
    """The library, made in `folder`; None where the variable is not set."""
    source = os.environ.get("TERNIO_BENCH_NOTORCH")
    if not source:
        return None
    os.environ["NT_SIMD_THREADS"] = "1"
    peer, library = Path(source), folder / "notorch_peer.so"
    command = ["cc", "-O2", "-std=gnu11", "-pthread", "-shared", "-fPIC", f"-I{peer}"]
    if (peer / "notorch_simd.h").exists() and platform.machine() == "x86_64":
        command += ["-DUSE_SIMD", "-mavx2", "-mfma"]
    subprocess.run(
        [*command, str(STEP), str(peer / "notorch.c"), "-lm", "-o", str(library)], check=True
    )
    lib = ctypes.CDLL(str(library))
    lib.peer_parameter.restype = ctypes.POINTER(ctypes.c_float)
    lib.peer_step.restype = ctypes.c_float
    lib.peer_step.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int] * 2 + [ctypes.c_float]
    return lib


def step_of(lib: ctypes.CDLL, size: tf.Size, batch: int, ternary: bool) -> Callable[[], float]:
    """A function that makes the bench's training step, from the bench's weights. One at a time:
    Notorch has one tape."""
    lib.peer_start(*size, tf.VOCABULARY)
    for i, values in enumerate(tf.initial(size).values()):
        target = np.ctypeslib.as_array(lib.peer_parameter(i), (values.size,))
        target[...] = values.ravel()
    ids, labels = (np.ascontiguousarray(t) for t in tf.tokens(size, batch))
    return lambda: lib.peer_step(ids.ctypes.data, labels.ctypes.data, batch, int(ternary), tf.LR)
