"""Instructions per multiply-accumulate of the ternary kernels on every core, and host times.

Counts cover what a layer does: preparing the activations, the product, and scaling the sums, to
int8 (as int8 libraries do) or to float (as the runtime does). A plain int8 kernel is counted in
the same image; on the host the peer is NumPy's float32 product.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # read when NumPy is imported

import numpy as np
from insn import images, wu

HOST_SIZES = [256, 1024, 4096]
SHAPES = [(64, 64), (128, 128), (256, 256), (384, 128)]
REGIONS = ["empty", "ternary to int8", "ternary to float", "transposed to float", "plain int8"]
DSP_REGIONS = [*REGIONS, "ternary WD to float"]


def write_weights(folder: Path, rows: int, cols: int) -> Path:
    """Writes one random matrix in all forms, and the assembly file that includes them."""
    trits = wu.random_trits(rows, cols, seed=rows * 1000 + cols)
    packed = wu.pack(trits)
    (folder / "packed.bin").write_bytes(packed)
    (folder / "merged.bin").write_bytes(wu.merge_rows(packed, rows, cols))
    (folder / "int8.bin").write_bytes(trits.tobytes())
    source = folder / "weights.S"
    text = "    .section .rodata\n"
    for name in ("packed", "merged", "int8"):
        symbol, path = f"{name}_weights", folder / f"{name}.bin"
        text += f'    .balign 16\n    .global {symbol}\n{symbol}: .incbin "{path}"\n'
    source.write_text(text)
    return source


def count_kernels(
    counter: images.Counter, machine: images.Machine, rows: int, cols: int
) -> dict[str, float]:
    """Instructions per multiply-accumulate of every region on one machine and shape."""
    weights = write_weights(counter.folder, rows, cols)
    sources = [*images.KERNEL_SOURCES, images.HERE / "kernel_bench.c", weights]
    flags = [f"-DBENCH_ROWS={rows}", f"-DBENCH_COLS={cols}"]
    elf = counter.build(machine, sources, f"{machine.name}.elf", flags)
    counts = counter.count(machine, elf)
    per_mac = [(count - counts[0]) / (rows * cols) for count in counts]
    regions = DSP_REGIONS if machine.has_dsp else REGIONS
    return dict(zip(regions[1:], per_mac[1:], strict=True))


def board_table(folder: Path, names: list[str]) -> None:
    """Prints core x kernel x shape of the machines named."""
    counter = images.Counter(folder)
    how = "counted by a QEMU plugin" if counter.exact else "from SysTick under -icount"
    print(f"instructions per multiply-accumulate, rows x columns ({how}; gcc -O2)")
    print(f"{'core':<12}{'kernel':<22}" + "".join(f"{r}x{c}".rjust(10) for r, c in SHAPES))
    for machine in (images.MACHINES[name] for name in names):
        results = [count_kernels(counter, machine, *shape) for shape in SHAPES]
        for region in results[0]:
            cells = "".join(f"{result[region]:10.3f}" for result in results)
            print(f"{machine.core:<12}{region:<22}{cells}", flush=True)


def float32_us(size: int) -> float:
    """Best time of NumPy's float32 matrix-vector product in microseconds."""
    rng = np.random.default_rng(size)
    matrix = rng.standard_normal((size, size), dtype=np.float32)
    vector = rng.standard_normal(size, dtype=np.float32)
    out = np.empty(size, np.float32)
    repeats, best = 1 + 1_000_000 // size**2, float("inf")
    for _ in range(200):
        start = time.perf_counter()
        for _ in range(repeats):
            np.dot(matrix, vector, out=out)
        best = min(best, (time.perf_counter() - start) / repeats)
    return best * 1e6


def host_table(folder: Path) -> None:
    """Prints the times of a whole ternary layer on this computer, one thread, beside float32."""
    program = folder / "host_bench"
    sources = [path for path in images.KERNEL_SOURCES if path.suffix == ".c"]
    sources.append(images.HERE / "host_bench.c")
    command = ["gcc", "-std=c11", "-O2", "-ffp-contract=off", f"-I{images.ROOT / 'device/include'}"]
    command += [f"-I{images.ROOT / 'device/src'}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    print("host, one thread: microseconds of a layer (quantising, product, scaling), best of many")
    print(f"{'size':<12}{'ternary':>10}{'float32':>10}{'ratio':>8}")
    for size in HOST_SIZES:
        done = subprocess.run([str(program), str(size)], capture_output=True, text=True, check=True)
        ternary, single = float(done.stdout), float32_us(size)
        print(f"{f'{size}x{size}':<12}{ternary:10.2f}{single:10.2f}{single / ternary:8.1f}")


def main() -> None:
    """Prints the tables that this machine can measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--machines", nargs="*", choices=images.MACHINES, default=list(images.MACHINES),
        help="those whose instructions are counted, all by default; none: this computer only",
    )  # fmt: skip
    names = parser.parse_args().machines
    missing = images.toolchain_missing()
    with tempfile.TemporaryDirectory() as folder:
        if missing:
            print(f"boards: skipped, {missing} is not on PATH")
        elif names:
            board_table(Path(folder), names)
        host_table(Path(folder))


if __name__ == "__main__":
    main()
