"""The same bits everywhere: checksums from emulated Arm cores against those of this host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from device_example import example, windows
from device_harness import FLAGS, ROOT, compile_c
from device_models import motion, odd, text
from device_stream import language_model

BOARD = Path(__file__).resolve().parent / "board"
ARM = ("arm-none-eabi-gcc", "-mthumb", "-nostartfiles", "--specs=nosys.specs", "--specs=nano.specs")
CORES = {
    "m0": ("mps2-an385", ["-mcpu=cortex-m0", "-mfloat-abi=soft"]),
    "m3": ("mps2-an385", ["-mcpu=cortex-m3", "-mfloat-abi=soft"]),
    "m4f": ("mps2-an386", ["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]),
    "m7": ("mps2-an500", ["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"]),
    "m55": ("mps3-an547", ["-mcpu=cortex-m55", "-mfloat-abi=hard"]),
}
HAVE_EMULATOR = shutil.which("qemu-system-arm") and shutil.which(ARM[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with what data.S includes."""
    folder = tmp_path_factory.mktemp("parity")
    blobs = {
        "example": example(),
        "floats": motion(integer=False),
        "rows": motion(merged=True, side_path=True),
        "odd": odd(),
        "stream": language_model(),
        "text": text(merged=True),
    }
    for name, assembler in blobs.items():
        (folder / f"{name}.tern").write_bytes(assembler.build())
    (folder / "windows.bin").write_bytes(windows(6).tobytes())
    samples = np.random.default_rng(8).standard_normal((2, 600)) * 1500
    (folder / "motion.bin").write_bytes(samples.astype("<i2").tobytes())
    return folder


def host_lines(folder: Path, name: str, *flags: str, compiler=("cc",)) -> list[str]:
    sources = [str(BOARD / part) for part in ("parity.c", "host.c", "data.S")]
    target = folder / name
    compile_c(target, *flags, f"-Wa,-I{folder}", *sources, compiler=compiler)
    return subprocess.run([target], capture_output=True, text=True, check=True).stdout.split("\n")


@pytest.fixture(scope="module")
def reference(data) -> list[str]:
    lines = host_lines(data, "reference", "-O2")
    assert lines.count("status 00000000") == 4 and lines.count("open 00000000") == 4
    assert len(set(lines)) >= 20, "every checksum is there, and none is that of nothing"
    return lines


@pytest.mark.parametrize(
    "flags", ["-O0", "-O3", "-Os", "-DTR_PORTABLE_SQRT -O2", "-DTR_SOFT_FLOAT -O2"]
)
def test_host_optimisation_does_not_matter(data, reference, flags):
    assert host_lines(data, "variant", *flags.split()) == reference


@pytest.mark.skipif(not shutil.which("clang"), reason="clang is not installed")
def test_another_compiler_does_not_matter(data, reference):
    assert host_lines(data, "clang", "-O2", compiler=("clang",)) == reference


@pytest.mark.emulator
@pytest.mark.skipif(not HAVE_EMULATOR, reason="needs qemu-system-arm and arm-none-eabi-gcc")
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("optimise", ["-O2"])
def test_arm_core(data, reference, core, optimise):
    machine, flags = CORES[core]
    image = data / f"{core}.elf"
    sources = [BOARD / "parity.c", BOARD / "start.c", BOARD / "data.S"]
    device = ROOT / "device" / "src"
    sources += [*sorted(device.rglob("*.c")), *sorted(device.rglob("*.S"))]
    command = [*ARM, *FLAGS, *flags, optimise, f"-Wa,-I{data}", f"-T{BOARD}/image.ld"]
    command += [*map(str, sources), "-o", str(image)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    command = ["qemu-system-arm", "-M", machine, "-kernel", image, "-nographic", "-serial", "none"]
    command += ["-monitor", "none", "-semihosting-config", "enable=on,target=native"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.stdout + result.stderr).split("\n") == reference
