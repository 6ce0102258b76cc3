"""SCons script of the local platform `ternio`: firmware.elf and firmware.bin with arm-none-eabi-gcc
from PATH; `upload` starts the emulated board and waits for its banner."""

import shutil
import sys
from pathlib import Path

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Builder, Default, DefaultEnvironment

env = DefaultEnvironment()
sys.path.insert(0, str(Path(env.subst("$PROJECT_DIR")) / "platform"))
import ternio_build  # noqa: E402

if not shutil.which("arm-none-eabi-gcc"):
    raise SystemExit(
        "error: arm-none-eabi-gcc is not on PATH: "
        "install gcc-arm-none-eabi and libnewlib-arm-none-eabi"
    )

env.Replace(
    AR="arm-none-eabi-gcc-ar",
    AS="arm-none-eabi-gcc",
    CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++",
    LINK="arm-none-eabi-gcc",
    OBJCOPY="arm-none-eabi-objcopy",
    RANLIB="arm-none-eabi-gcc-ranlib",
    SIZETOOL="arm-none-eabi-size",
    ARFLAGS=["rc"],
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
)
env.Append(
    ASFLAGS=["-x", "assembler-with-cpp"],
    BUILDERS={
        "ElfToBin": Builder(
            action=env.VerboseAction("$OBJCOPY -O binary $SOURCES $TARGET", "Building $TARGET"),
            suffix=".bin",
        )
    },
)
ternio_build.configure(env, emulated=True)

elf = env.BuildProgram()
env.Depends(elf, ternio_build.__file__)  # which says how sizes are counted
image = env.ElfToBin("$BUILD_DIR/firmware", elf)
buildprog = env.Alias("buildprog", image)
env.AddPostAction(elf, env.VerboseAction(ternio_build.print_sizes, "Sizes in bytes"))

start = env.VerboseAction(
    f'"$PYTHONEXE" -m ternio.firmware start {env["BOARD"]} $SOURCE', "Starting the virtual board"
)
upload = env.AddPlatformTarget("upload", elf, [start], "Start the emulated board with this image")
AlwaysBuild(upload)

if "nobuild" not in COMMAND_LINE_TARGETS:
    Default(buildprog)
