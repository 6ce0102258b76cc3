"""Instructions per multiply-accumulate of the ternary kernels on every core, and host times.

Counts cover what a layer does: preparing the activations, the product, and scaling the sums, to
int8 (as int8 libraries do) or to float (as the runtime does). A plain int8 kernel is counted in
the same image; on the host the peer is NumPy's float32 product.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from insn import images, wu

SHAPES = [(64, 64), (128, 128), (256, 256), (384, 128)]
REGIONS = ["empty", "ternary to int8", "ternary to float", "transposed to float", "plain int8"]


def write_weights(folder: Path, rows: int, cols: int) -> Path:
    """Writes one random matrix, packed and as int8, and the assembly file that includes both."""
    trits = wu.random_trits(rows, cols, seed=rows * 1000 + cols)
    (folder / "packed.bin").write_bytes(wu.pack(trits))
    (folder / "int8.bin").write_bytes(trits.tobytes())
    source = folder / "weights.S"
    text = "    .section .rodata\n"
    for symbol, name in (("packed_weights", "packed.bin"), ("int8_weights", "int8.bin")):
        text += f'    .balign 16\n    .global {symbol}\n{symbol}: .incbin "{folder / name}"\n'
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
    return dict(zip(REGIONS[1:], per_mac[1:], strict=True))


def board_table(folder: Path) -> None:
    """Prints core x kernel x shape."""
    counter = images.Counter(folder)
    how = "counted by a QEMU plugin" if counter.exact else "from SysTick under -icount"
    print(f"instructions per multiply-accumulate, rows x columns ({how}; gcc -O2)")
    print(f"{'core':<12}{'kernel':<22}" + "".join(f"{r}x{c}".rjust(10) for r, c in SHAPES))
    for machine in images.MACHINES.values():
        results = [count_kernels(counter, machine, *shape) for shape in SHAPES]
        for region in REGIONS[1:]:
            cells = "".join(f"{result[region]:10.3f}" for result in results)
            print(f"{machine.core:<12}{region:<22}{cells}", flush=True)


def main() -> None:
    """Prints the tables that this machine can measure."""
    missing = images.toolchain_missing()
    with tempfile.TemporaryDirectory() as folder:
        if missing:
            print(f"boards: skipped, {missing} is not on PATH")
        else:
            board_table(Path(folder))


if __name__ == "__main__":
    main()
