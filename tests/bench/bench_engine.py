"""Tokens per second of training steps: the engine against PyTorch, in one run.

    python tests/bench/bench_engine.py [--sizes S,M,L] [--batches 1,16] [--seconds 1.0]

A step is forward, backward, clipping and AdamW of a causal transformer (transformer.py), in float
and with BitLinear layers. Steps of all sides take turns, so that a busy machine disturbs
them alike; printed are tokens per second of the median step, and medians of the ratios within
turns. PyTorch takes part where it can be imported, or where TERNIO_BENCH_TORCH names a Python that
can (and has NumPy and cffi); Notorch where TERNIO_BENCH_NOTORCH names a folder with its notorch.c.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
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


def row(library: Path, torch, notorch, name: str, batch: int, ternary: bool, options) -> str:
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
    times = take_turns(steps, options.seconds)
    memory = engines["engine"].lib.te_bytes_peak(engines["engine"].ctx) / 1e6
    for e in engines.values():
        e.close()
    speed = {k: batch * size.context / statistics.median(t) for k, t in times.items()}
    line = f"{name} B{batch:<2} {'ternary' if ternary else 'float  '}"
    line += f" engine {speed['engine']:9.0f} ({memory:6.1f} MB)"
    if options.threads > 1:
        line += f" | {options.threads} threads x{ratio(times, 'engine', 'threads'):.2f}"
    for other in (k for k in ("eager", "compile", "notorch") if k in steps):
        line += f" | {other} {speed[other]:9.0f} x{ratio(times, other, 'engine'):.2f}"
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
    notorch = notorch_peer.build(folder)
    against = f"PyTorch {torch.__version__}" if torch else "PyTorch is not installed"
    against += "; Notorch" if notorch else "; Notorch is not built"
    print(f"tokens/s of training on one thread ({against}); x: times as fast as")
    for name in options.sizes.split(","):
        for batch in map(int, options.batches.split(",")):
            for kind in options.kinds.split(","):
                print(
                    row(library, torch, notorch, name, batch, kind == "ternary", options),
                    flush=True,
                )


if __name__ == "__main__":
    main()
