"""What the reference models cost on every core: instructions of each thing they do, code size."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from insn import images

REGIONS = ["open", "infer", "with adapter", "adapt step"]
TEXT_REGIONS = ["open", "token, mean", "token, last"]
BOARDS = {"m0": "microbit", "m4": "netduinoplus2", "m7": "mps2_an500", "m55": "mps3_an547"}
TEXT_CORES = ("m4", "m7", "m55")  # an M0 of 16 KB has no room for a context
CONTEXT = 128


def ternio(*arguments: object) -> None:
    """Runs the command line tool."""
    program = Path(sys.executable).with_name("ternio")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)


def train(model: str, folder: Path) -> Path:
    """A reference model after a few steps: its weights do not matter here."""
    checkpoint = folder / f"{model}.ckpt"
    ternio("train", model, "--steps", 3, "-o", checkpoint)
    return checkpoint


def pack(checkpoint: Path, core: str) -> Path:
    """The blob for the board with a core."""
    blob = checkpoint.with_name(f"{checkpoint.stem}-{core}.tern")
    ternio("pack", checkpoint, "-b", BOARDS[core], "-o", blob)
    return blob


def blob_source(blob: Path, folder: Path) -> Path:
    """An assembly file that includes the blob."""
    source = folder / "blob.S"
    text = "    .section .rodata\n    .balign 16\n    .global bench_blob, bench_blob_end\n"
    source.write_text(f'{text}bench_blob: .incbin "{blob}"\nbench_blob_end:\n')
    return source


def code_bytes(machine: images.Machine, folder: Path) -> int:
    """Code and constants of the runtime: its object files, as the compiler leaves them."""
    total = 0
    for path in [*sorted((images.ROOT / "device/src").glob("*.c")), *images.KERNEL_SOURCES]:
        command = ["arm-none-eabi-gcc", *machine.flags, "-mthumb", *images.RUNTIME_FLAGS]
        command += [f"-I{images.ROOT / 'device/include'}", "-c", path, "-o", folder / "part.o"]
        subprocess.run(command, check=True)
        size = subprocess.run(
            ["arm-none-eabi-size", folder / "part.o"], check=True, capture_output=True, text=True
        )
        total += int(size.stdout.splitlines()[1].split()[0])
    return total


def count(counter: images.Counter, machine: images.Machine, blob: Path) -> list[int]:
    """Instructions of the regions of runtime_bench.c."""
    folder = counter.folder
    sources = [images.HERE / "runtime_bench.c", blob_source(blob, folder)]
    sources += [*sorted((images.ROOT / "device/src").glob("*.c")), *images.KERNEL_SOURCES]
    arena = 11056 if machine.ram_bytes <= 16 << 10 else 96 << 10
    flags = [f"-DBENCH_ARENA={arena}", "-DBENCH_INPUT=600"]
    return counter.count(machine, counter.build(machine, sources, f"{machine.name}.elf", flags))


def show(title: str, regions: list[str], rows: list[list[str]]) -> None:
    """A table, one row per core."""
    print(f"{title}\n{'core':<12}" + "".join(f"{region:>14}" for region in regions))
    for core, *cells in rows:
        print(f"{core:<12}" + "".join(f"{cell:>14}" for cell in cells))


def main() -> None:
    """Prints a table per model."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    missing = images.toolchain_missing()
    if missing:
        print(f"{missing} is not installed: runtime figures left out")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counter = images.Counter(folder)
        checkpoint, rows = train("motion", folder), []
        for core in BOARDS:
            machine = images.MACHINES[core]
            counts = count(counter, machine, pack(checkpoint, core))
            cells = [f"{n / 1e6:.2f}" for n in counts] + ["-"] * (len(REGIONS) - len(counts))
            rows.append([machine.core, *cells, str(code_bytes(machine, folder))])
        title = "motion, packed for each board: millions of instructions (-O2), bytes of all code"
        show(title, [*REGIONS, "code"], rows)
        checkpoint, rows = train("text", folder), []
        for core in TEXT_CORES:
            machine = images.MACHINES[core]
            opened, most, last = count(counter, machine, pack(checkpoint, core))
            counts = (opened, (most + last) / CONTEXT, last)
            rows.append([machine.core, *(f"{n / 1e6:.3f}" for n in counts)])
        show(f"\ntext, over a context of {CONTEXT} characters", TEXT_REGIONS, rows)


if __name__ == "__main__":
    main()
