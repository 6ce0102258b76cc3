"""`device/` as a PlatformIO library: its example, built by `pio run` for this computer and for a
board, prints what the runtime answers here. PlatformIO's own platforms come from its registry, so
small ones stand in for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from firmware_boards import motion_shaped

from ternio.blob import Blob
from ternio.blob.c_array import c_array
from ternio.firmware import platformio
from ternio.paths import share_dir
from ternio.runtime import Model, Session

BOARD = Path(__file__).resolve().parents[1] / "device" / "board"  # start-up by semihosting
PLATFORM = '{"name": "NAME", "title": "NAME", "version": "0.1.0", "packages": {}}'
PLATFORM_PY = """from platformio.public import PlatformBase
class NamePlatform(PlatformBase):
    pass
"""
BUILDER = """from SCons.Script import Default, DefaultEnvironment
env = DefaultEnvironment()
env.Replace(PROGNAME="program", CC=PREFIX + "gcc", AR=PREFIX + "ar", RANLIB=PREFIX + "ranlib",
            AS=PREFIX + "gcc", LINK=PREFIX + "gcc", ARFLAGS=["rc"])
env.Append(ASFLAGS=["-x", "assembler-with-cpp"], CFLAGS=["-std=c99"], CCFLAGS=FLAGS,
           LINKFLAGS=LINKFLAGS)
env.Append(ASPPFLAGS=FLAGS)
"""
FOR_BOARD = 'env.BuildSources("$BUILD_DIR/board", START, "+<start.c>")\n'
WRITE = r"""/* stdout by semihosting */
void board_print(const char *text);
int _write(int file, const char *text, int count);
int _write(int file, const char *text, int count) {
    for (int i = 0; i < count; i++) board_print((const char[]){text[i], 0});
    return (void)file, count;
}
"""


def platform(folder: Path, name: str, prefix: str, flags: list[str], link: list[str], rest: str):
    """A PlatformIO platform with a compiler from PATH."""
    (folder / name / "builder").mkdir(parents=True)
    (folder / name / "platform.json").write_text(PLATFORM.replace("NAME", name))
    (folder / name / "platform.py").write_text(PLATFORM_PY.replace("Name", name.capitalize()))
    facts = f"PREFIX, FLAGS, LINKFLAGS, START = {prefix!r}, {flags}, {link}, {str(BOARD)!r}\n"
    builder = facts + BUILDER + rest + "Default(env.BuildProgram())\n"
    (folder / name / "builder" / "main.py").write_text(builder)


def built(tmp_path: Path, config: str | None = None) -> Path:
    """The example's program, with motion.h where its platformio.ini says. `config`: another one."""
    include = tmp_path / "include"
    include.mkdir()
    (include / "motion.h").write_text(c_array(Blob.decode(motion_shaped())))
    platformio.ensure_platformio()
    example = share_dir("device") / "examples" / "classify"
    command = [Path(sys.executable).with_name("pio"), "run", "-d", example]
    if config is not None:
        (tmp_path / "other.ini").write_text(config)
        command += ["-c", tmp_path / "other.ini"]
    places = {"WORKSPACE": "work", "PLATFORMS": "platforms", "INCLUDE": "include"}
    settings = {f"PLATFORMIO_{key}_DIR": str(tmp_path / name) for key, name in places.items()}
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "warning" not in ran.stdout + ran.stderr
    (program,) = (tmp_path / "work" / "build").glob("*/program*")
    return program


def expected() -> str:
    """What the example prints, by the runtime in this process."""
    model = Model(motion_shaped())
    samples = (np.arange(600, dtype=np.uint32) * 7919 % 8000).astype(np.int16) - np.int16(4000)
    logits = Session(model).infer(samples)
    thousands = (np.float32(1000) * logits).astype(np.int32)
    lines = [f"{name} {n}/1000" for name, n in zip(model.labels, thousands, strict=True)]
    return "\n".join([*lines, f"class {model.labels[int(logits.argmax())]}", ""])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_the_example_on_this_computer(tmp_path):
    strict = ["-Wall", "-Wextra", "-O2"]
    platform(tmp_path / "platforms", "native", "", strict, [], "")
    ran = subprocess.run([built(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, expected())


@pytest.mark.emulator
@pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
    reason="needs an Arm compiler and QEMU",
)
def test_the_example_on_a_board(tmp_path):
    core = ["-mthumb", "-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard"]
    strict = [*core, "-Wall", "-Wextra", "-O2", "-ffunction-sections"]
    link = [*core, "-nostartfiles", "--specs=nosys.specs", f"-T{BOARD / 'image.ld'}"]
    link += ["-Wl,--gc-sections,--no-warn-rwx-segments"]
    (tmp_path / "write.c").write_text(WRITE)
    rest = FOR_BOARD + f'env.BuildSources("$BUILD_DIR/write", {str(tmp_path)!r}, "+<write.c>")\n'
    platform(tmp_path / "platforms", "bare", "arm-none-eabi-", strict, link, rest)
    library = share_dir("device")
    program = built(tmp_path, f"[env:bare]\nplatform = bare\nlib_deps = symlink://{library}\n")
    command = ["qemu-system-arm", "-M", "mps2-an500", "-kernel", program, "-display", "none"]
    command += ["-serial", "none", "-monitor", "none"]
    command += ["-semihosting-config", "enable=on,target=native"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert expected() in (ran.stdout + ran.stderr).replace("\r", "")
