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
    has_dsp: bool = False


KNOWN_LOOPS = [30, 3000, 150000]  # instructions of the regions of known_loop.c

M0_FLAGS = ("-mcpu=cortex-m0", "-mfloat-abi=soft")
M4_FLAGS = ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
M7_FLAGS = ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard")
M55_FLAGS = ("-mcpu=cortex-m55", "-mfloat-abi=hard")
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("m0", "Cortex-M0", ("-M", "microbit"), 256 << 10, 16 << 10, M0_FLAGS),
        Machine("m4", "Cortex-M4F", ("-M", "mps2-an386"), 4 << 20, 4 << 20, M4_FLAGS, True),
        Machine("m7", "Cortex-M7", ("-M", "mps2-an500"), 4 << 20, 4 << 20, M7_FLAGS, True),
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


class Counter:
    """Counts the instructions of marked regions, exactly by the plugin of count.c.

    Where QEMU refuses the plugin (its interface changes with QEMU's version), SysTick measures them
    under `-icount`, to some tens of instructions.
    """

    def __init__(self, folder: Path) -> None:
        """Builds the plugin in `folder` and tries it."""
        self.folder = folder
        self.plugin = folder / "libcount.so"
        self.exact = True
        self._per_tick: dict[str, float] = {}
        try:
            _run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(self.plugin), str(HERE / "count.c")])
            self.count_known_loops(MACHINES["m4"])
        except (RuntimeError, OSError):
            self.exact = False

    def build(
        self, machine: Machine, sources: list[Path], name: str, flags: list[str] | None = None
    ) -> Path:
        """Compiles an image whose marks suit this way of counting."""
        counting = [] if self.exact else ["-DCOUNT_WITH_SYSTICK"]
        return build_image(machine, sources, self.folder / name, [*(flags or []), *counting])

    def count(self, machine: Machine, elf: Path) -> list[int]:
        """Runs an image; the instructions of each marked region."""
        if self.exact:
            counts = elf.with_suffix(".count")
            run_image(machine, elf, ("-plugin", f"{self.plugin},out={counts}"))
            return [int(line) for line in counts.read_text().split()]
        if machine.name not in self._per_tick:
            self._per_tick[machine.name] = 1.0
            self._per_tick[machine.name] = KNOWN_LOOPS[-1] / self.count_known_loops(machine)[-1]
        said = run_image(machine, elf, ("-icount", "shift=0")).splitlines()
        ticks = [int(line.split()[1]) for line in said if line.startswith("ticks ")]
        return [round(count * self._per_tick[machine.name]) for count in ticks]

    def count_known_loops(self, machine: Machine) -> list[int]:
        """The counts of known_loop.c, which should be KNOWN_LOOPS."""
        elf = self.build(machine, [HERE / "known_loop.c"], f"{machine.name}_loop.elf")
        return self.count(machine, elf)
