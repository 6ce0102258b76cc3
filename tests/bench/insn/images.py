"""Builds bare programs for the emulated Cortex-M machines and runs them, counting instructions.

Used by the kernel tests and the kernel benchmark; needs `arm-none-eabi-gcc` and `qemu-system-arm`.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KERNEL_SOURCES = [
    path for path in sorted((ROOT / "device/src/kernels").iterdir()) if path.suffix in (".c", ".S")
]
RUNTIME_FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections"]


@dataclass(frozen=True)
class Machine:
    """One emulated machine: its name, core, QEMU arguments, memory in bytes and compiler flags."""

    name: str
    core: str
    qemu: tuple[str, ...]
    flash_bytes: int
    ram_bytes: int
    flags: tuple[str, ...]


M0_FLAGS = ("-mcpu=cortex-m0", "-mfloat-abi=soft")
M4_FLAGS = ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
M7_FLAGS = ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard")
M55_FLAGS = ("-mcpu=cortex-m55", "-mfloat-abi=hard")
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("m0", "Cortex-M0", ("-M", "microbit"), 256 << 10, 16 << 10, M0_FLAGS),
        Machine("m4", "Cortex-M4F", ("-M", "mps2-an386"), 4 << 20, 4 << 20, M4_FLAGS),
        Machine("m7", "Cortex-M7", ("-M", "mps2-an500"), 4 << 20, 4 << 20, M7_FLAGS),
        Machine("m55", "Cortex-M55", ("-M", "mps3-an547"), 512 << 10, 512 << 10, M55_FLAGS),
    )
}


def toolchain_missing() -> str | None:
    """The first tool that is not on PATH, or None."""
    tools = ("arm-none-eabi-gcc", "qemu-system-arm")
    return next((tool for tool in tools if not shutil.which(tool)), None)


def _run(command: list[str], timeout_s: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def build_image(machine: Machine, sources: list[Path], elf: Path, flags: list[str]) -> Path:
    """Compiles C and assembly sources, with the start-up code, into an image for a machine."""
    memory = [f"FLASH_BYTES={machine.flash_bytes}", f"RAM_BYTES={machine.ram_bytes}"]
    command = ["arm-none-eabi-gcc", *machine.flags, "-mthumb", *RUNTIME_FLAGS]
    command += ["-Wall", "-Wextra", "-Werror", f"-I{HERE}", f"-I{ROOT / 'device/include'}"]
    command += [f"-I{ROOT / 'device/src'}", *flags, *map(str, sources), str(HERE / "guest.c")]
    command += [
        "-nostartfiles",
        "--specs=nano.specs",
        "-Wl,--gc-sections",
        f"-T{HERE / 'image.ld'}",
    ]
    command += [f"-Wl,--defsym={symbol}" for symbol in memory]
    _run([*command, "-o", str(elf)])
    return elf


def build_plugin(folder: Path) -> Path:
    """Compiles the counting plugin into a folder and returns its path."""
    plugin = folder / "libcount.so"
    _run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(plugin), str(HERE / "count.c")])
    return plugin


def run_image(machine: Machine, elf: Path, extra: tuple[str, ...] = ()) -> str:
    """Runs an image until it leaves and returns what it said; raises when it failed."""
    command = ["qemu-system-arm", *machine.qemu, "-kernel", str(elf), "-display", "none"]
    command += ["-serial", "none", "-monitor", "none", *extra]
    command += ["-semihosting-config", "enable=on,target=native"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(f"{machine.core}: {said[-2000:]}")
    return said


def count_instructions(machine: Machine, elf: Path, plugin: Path | None) -> tuple[str, list[int]]:
    """Runs an image; returns what it said and the instructions of each marked region.

    Without a plugin the image must have been built with COUNT_WITH_SYSTICK.
    """
    if plugin:
        counts = elf.with_suffix(".count")
        said = run_image(machine, elf, ("-plugin", f"{plugin},out={counts}"))
        return said, [int(line) for line in counts.read_text().split()]
    said = run_image(machine, elf, ("-icount", "shift=0"))
    ticks = [int(line.split()[1]) for line in said.splitlines() if line.startswith("ticks ")]
    said = "".join(line + "\n" for line in said.splitlines() if not line.startswith("ticks "))
    return said, ticks
