"""Extra script of the environments that use PlatformIO's official platforms: our sources, flags and
linker script with their compiler and upload tools (stlink, dfu, jlink)."""

import sys
from pathlib import Path

Import("env")  # noqa: F821

sys.path.insert(0, str(Path(env.subst("$PROJECT_DIR")) / "platform"))  # noqa: F821
import ternio_build  # noqa: E402

ternio_build.configure(env, emulated=False)  # noqa: F821
sizes = env.VerboseAction(ternio_build.print_sizes, "Sizes in bytes")  # noqa: F821
env.AddPostAction("$BUILD_DIR/firmware.elf", sizes)  # noqa: F821
