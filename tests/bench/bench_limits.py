"""What the engine costs besides time per token: compiling, size, memory, and the first step.

    python tests/bench/bench_limits.py [--runs 5]

The bounds it prints are those the engine is built to keep; times are the best of some runs, since
a busy machine only ever adds to them.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from engine_harness import ENGINE

TRAIN = Path(__file__).resolve().parents[1] / "engine" / "train_size.c"
MEMORY_MB = {"S": 8, "M": 29, "L": 200}

# The transformer S of bench_engine.py, in Python.
FIRST_STEP = """
import numpy as np
from ternio import Tensor, functional, models, optim
model = models.build(models.LanguageModelConfig(
    vocabulary=64, context=64, width=64, layers=2, heads=4, kv_heads=4, ffn=176, qk_norm=False,
    ternary=False))
optimizer = optim.AdamW(model.parameters())
ids = np.arange(65, dtype=np.int32)[None] % 64
loss = functional.cross_entropy(model(ids[:, :-1]), Tensor(ids[:, 1:]))
loss.backward()
optim.clip_grad_norm_(optimizer, 1.0)
optimizer.step()
assert loss.item() > 0
"""


def processor_seconds(command: list[str]) -> float:
    """Time that a command and its children spend, without what it waits for others."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def build_program(folder: Path) -> Path:
    """The transformers as a C program, one compilation of two files."""
    program = folder / "train_size"
    command = ["cc", "-O2", f"-I{ENGINE}", str(TRAIN), str(ENGINE / "engine.c"), "-lm"]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def numbers(program: Path, name: str, ternary: bool, steps: int) -> dict[str, float]:
    """What a run of the program at batch 1 prints: loss, peak (MB), first (ms)."""
    start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    command = [str(program), name, "1", str(int(ternary)), str(steps), str(start)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: float(value) for key, value in re.findall(r"(\w+) ([\d.]+)", text)}


def print_sizes(folder: Path, runs: int) -> None:
    for level, bound in (("-O0", 1.0), ("-O2", 4.0)):
        command = ["cc", "-c", level, str(ENGINE / "engine.c"), "-o", str(folder / "engine.o")]
        best = min(processor_seconds(command) for _ in range(runs))
        print(f"cc -c {level} engine.c: {best:.2f} s of processor time (bound {bound:.1f})")
    library = folder / "stripped.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-s", str(ENGINE / "engine.c"), "-lm"]
    subprocess.run([*command, "-o", str(library)], check=True)
    print(f"stripped library: {library.stat().st_size / 1000:.0f} KB (bound 200)")
    for packaged in sorted((ENGINE.parent / "ternio").glob("_engine*.so")):
        print(f"packaged with Python's wrappers: {packaged.stat().st_size / 1000:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_sizes(folder, runs)
        program = build_program(folder)
        for size, bound in MEMORY_MB.items():
            for ternary in (False, True):
                peak = numbers(program, size, ternary, 3)["peak"]
                kind = "ternary" if ternary else "float"
                print(f"peak of {size} B1 {kind} as a C program: {peak:.1f} MB (bound {bound})")
        first = min(numbers(program, "S", False, 1)["first"] for _ in range(2 * runs))
        print(f"first step of S done {first:.1f} ms after the start of a C program (bound 16)")
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_STEP], check=True)
        seconds.append(time.perf_counter() - start)
    print(f"first step of S done and Python ended after {min(seconds):.2f} s (bound 0.4)")


if __name__ == "__main__":
    main()
