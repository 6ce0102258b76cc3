"""What the model `motion` costs on every core: instructions to open, infer and adapt; code size."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from insn import images

REGIONS = ["open", "infer", "infer with adapter", "adapt step"]
CORES = ["m4", "m7", "m55"]  # an M0 of 16 KB has no room for the arena of an adaptation


def motion_blob(folder: Path) -> Path:
    """Trains `motion` for a few steps (its weights do not matter here) and packs it."""
    ternio = Path(sys.executable).with_name("ternio")
    checkpoint, blob = folder / "motion.ckpt", folder / "motion.tern"
    for arguments in (
        ["train", "motion", "--steps", "20", "-o", checkpoint],
        ["pack", checkpoint, "-o", blob],
    ):
        subprocess.run([ternio, *arguments], check=True, capture_output=True)
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


def main() -> None:
    """Prints one row per core."""
    missing = images.toolchain_missing()
    if missing:
        print(f"{missing} is not installed: runtime figures left out")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counter = images.Counter(folder)
        sources = [images.HERE / "runtime_bench.c", blob_source(motion_blob(folder), folder)]
        sources += [*sorted((images.ROOT / "device/src").glob("*.c")), *images.KERNEL_SOURCES]
        print("motion: millions of instructions (-O2), and bytes of runtime code")
        print(f"{'core':<12}" + "".join(f"{region:>20}" for region in [*REGIONS, "code"]))
        for core in CORES:
            machine = images.MACHINES[core]
            counts = counter.count(machine, counter.build(machine, sources, f"{core}.elf", []))
            cells = "".join(f"{count / 1e6:20.2f}" for count in counts)
            print(f"{machine.core:<12}{cells}{code_bytes(machine, folder):20d}")


if __name__ == "__main__":
    main()
