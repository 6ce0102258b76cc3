"""Tokens per second of training steps: the engine against PyTorch, in one run.

    python tests/bench/bench_engine.py [--sizes S,M,L] [--batches 1,16] [--seconds 1.0]

A step is forward, backward, clipping and AdamW of a causal transformer (transformer.py), in float
and with BitLinear layers. Steps of all sides take turns, so that a busy machine disturbs
them alike; printed are tokens per second of the median step, and medians of the ratios within
turns. "of peak": the multiply-adds of the step, without those that a causal mask saves, against
as many as one core can make, measured in the same turns. PyTorch takes part where it can be
imported, or where TERNIO_BENCH_TORCH names a Python that can (and has NumPy and cffi); Notorch
where TERNIO_BENCH_NOTORCH names a folder with its notorch.c.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
import cffi
import notorch_peer
import transformer as tf
from engine_harness import Engine, compile_library

Step = Callable[[], float]


def use_python_with_torch() -> None:
    """Goes on under the Python of TERNIO_BENCH_TORCH, if this one has no PyTorch."""
    other = os.environ.pop("TERNIO_BENCH_TORCH", None)
    if other and importlib.util.find_spec("torch") is None:
        os.execv(other, [other, *sys.argv])


def take_turns(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Times in seconds of each step, made in turns for about ``seconds`` of each."""
    for step in steps.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds * len(steps)
    while time.perf_counter() < end or len(times[next(iter(times))]) < 3:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


class Peak:
    """The multiply-adds of fma_peak.c as a step among the others."""

    ROUNDS = 200_000

    def __init__(self, folder: Path) -> None:
        library = folder / "fma_peak.so"
        flags = ["-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        source = Path(__file__).with_name("fma_peak.c")
        subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
        ffi = cffi.FFI()
        ffi.cdef("int fma_peak_operations(void); float fma_peak(long rounds);")
        self.library = ffi.dlopen(str(library))
        self.operations = self.ROUNDS * self.library.fma_peak_operations()

    def step(self) -> float:
        return self.library.fma_peak(self.ROUNDS)


def operations(size: tf.Size, batch: int) -> int:
    """Floating-point operations of the products of a step: of each weight 2 forward and 4 backward
    for each token, and as often two products of a query with the keys that it sees."""
    matrices = [w for n, w in tf.initial(size).items() if w.ndim == 2 and n != "embedding"]
    of_a_token = sum(w.size for w in matrices)
    of_a_token += size.layers * 2 * size.width * (size.context + 1) // 2
    return 6 * batch * size.context * of_a_token


def row(
    library: Path, peak: Peak, torch, notorch, name: str, batch: int, ternary: bool, options
) -> str:
    """One line of the table."""
    size = tf.SIZES[name]
    engines = {"engine": Engine(library, False, options.simd)}
    if options.threads > 1:
        engines["threads"] = Engine(library, False, options.simd)
        engines["threads"].lib.te_set_threads(engines["threads"].ctx, options.threads)
    steps = {k: tf.engine_step(e, size, batch, ternary) for k, e in engines.items()}
    if torch:
        torch._dynamo.reset()  # else it gives up compiling after eight shapes
        steps["eager"] = tf.torch_step(torch, size, batch, ternary)
        steps["compile"] = tf.torch_step(torch, size, batch, ternary, compiled=True)
    if notorch:
        steps["notorch"] = notorch_peer.step_of(notorch, size, batch, ternary)
    steps["peak"] = peak.step
    times = take_turns(steps, options.seconds)
    share = operations(size, batch) / peak.operations
    memory = engines["engine"].lib.te_bytes_peak(engines["engine"].ctx) / 1e6
    for e in engines.values():
        e.close()
    speed = {k: batch * size.context / statistics.median(t) for k, t in times.items()}
    line = f"{name} B{batch:<2} {'ternary' if ternary else 'float  '}"
    line += f" engine {speed['engine']:9.0f} ({memory:6.1f} MB"
    line += f", {100 * share * ratio(times, 'peak', 'engine'):2.0f} % of peak)"
    if options.threads > 1:
        line += f" | {options.threads} threads x{ratio(times, 'engine', 'threads'):.2f}"
    for other in (k for k in ("eager", "compile", "notorch") if k in steps):
        line += f" | {other} {speed[other]:9.0f} x{ratio(times, other, 'engine'):.2f}"
        if other == "compile":
            line += f" ({100 * share * ratio(times, 'peak', other):2.0f} % of peak)"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="S,M,L")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--kinds", default="float,ternary")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--simd", help="avx512, avx2 or portable; the best by default")
    parser.add_argument("--threads", type=int, default=2, help="a second row of the engine")
    options = parser.parse_args()
    use_python_with_torch()
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        torch = None
    folder = Path(tempfile.mkdtemp())
    library = compile_library(folder, double=False)
    peak = Peak(folder)
    notorch = notorch_peer.build(folder)
    against = f"PyTorch {torch.__version__}" if torch else "PyTorch is not installed"
    against += "; Notorch" if notorch else "; Notorch is not built"
    print(f"tokens/s of training on one thread ({against}); x: times as fast as")
    for name in options.sizes.split(","):
        for batch in map(int, options.batches.split(",")):
            for kind in options.kinds.split(","):
                print(
                    row(library, peak, torch, notorch, name, batch, kind == "ternary", options),
                    flush=True,
                )


if __name__ == "__main__":
    main()
