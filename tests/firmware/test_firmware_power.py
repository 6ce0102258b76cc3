"""Nothing is lost when power goes at any written byte of an update."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ternio.paths import share_dir

CONFIG = """
#define BOARD_FLASH_BYTES 1024
#define BOARD_FLASH_SLOT_COUNT 2
#define BOARD_FLASH_SLOTS {{1, 0, 512}, {1, 512, 512}}
#define BOARD_RAM_SLOT_COUNT 0
#define BOARD_RAM_SLOTS {{0, 0, 0}}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_updates_survive_a_cut_at_every_byte(tmp_path):
    firmware, device = share_dir("firmware"), share_dir("device")
    (tmp_path / "board_config.h").write_text(CONFIG)
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    command += [f"-I{folder}" for folder in (tmp_path, firmware / "src", device / "include")]
    command += [Path(__file__).with_name("power_cut.c"), firmware / "src" / "storage" / "slots.c"]
    command += [device / "src" / "tr_hash.c", "-o", tmp_path / "power_cut"]
    subprocess.run(command, check=True)
    ran = subprocess.run([tmp_path / "power_cut"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    updating, discarding = map(int, re.findall(r"each of (\d+) bytes", ran.stdout))
    assert updating > 203 + 24 and discarding > 64
