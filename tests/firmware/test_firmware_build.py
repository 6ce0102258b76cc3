"""The image: built by PlatformIO from nothing, accounted for by part, with a model inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from firmware_boards import blob

from ternio.blob import Blob
from ternio.boards import board_names, load_board
from ternio.compile import account
from ternio.errors import BuildError
from ternio.firmware import pio
from ternio.paths import share_dir

needs_compiler = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="no Arm compiler"
)
SLOT_HEADER_BYTES = 64
SLOT_A = 0x20000  # offset of the first model slot in the image, boards/netduinoplus2.json


@needs_compiler
def test_sizes_by_part():
    built = pio.build("netduinoplus2")
    parts = {name: part["flash"] for name, part in built.sizes.items()}
    link = sum(parts[name] for name in ("link", "cbor", "console", "storage"))
    assert 5_000 < link <= 19 * 1024  # 20 K are promised
    assert 5_000 < parts["inference"] <= 12 * 1024
    assert parts["adaptation"] > 3_000
    assert sum(parts.values()) == pytest.approx(built.bin.stat().st_size, rel=0.03)
    board = load_board("netduinoplus2")
    assert sum(parts.values()) <= board.firmware_bytes
    ram = sum(part["ram"] for part in built.sizes.values()) + board.stack_bytes
    assert board.arena_bytes < ram <= board.ram.bytes


@needs_compiler
@pytest.mark.parametrize("name", [name for name in board_names() if name != "native"])
def test_every_board_is_built_and_fits(name):
    built, board = pio.build(name), load_board(name)
    flash, ram = (sum(part[kind] for part in built.sizes.values()) for kind in ("flash", "ram"))
    assert 40_000 < flash <= board.firmware_bytes
    assert board.arena_bytes < ram + board.stack_bytes <= board.ram.bytes


@needs_compiler
@pytest.mark.parametrize("name", ["microbit", "netduinoplus2"])
def test_the_account_of_pack_is_that_of_the_linker(tmp_path, name):
    """RAM but for the last bytes of the firmware's own variables, flash of the model exactly."""
    board, model = load_board(name), tmp_path / "inside.tern"
    model.write_bytes(blob("inside"))
    parts = {part.name: part.needs for part in account(Blob.decode(blob("inside")), board)}
    sizes = pio.build(board, model).sizes
    linked = sum(part["ram"] for part in sizes.values()) + board.stack_bytes
    assert parts["reserved together"] - 96 <= linked <= parts["reserved together"]
    assert linked <= board.ram.bytes
    arena = parts["arena, reserved"] + parts["input"]
    assert arena < sizes["model service"]["ram"] < arena + 512
    buffers = sizes["link"]["ram"] + sizes["port"]["ram"] - parts["link buffers"]
    assert 0 < buffers < 160
    assert sizes["model"]["flash"] == parts["model slot"] + SLOT_HEADER_BYTES
    image = sum(part["flash"] for other, part in sizes.items() if other != "model")
    at = board.model_slots[0].base - board.flash.base
    content = pio.build(board, model).bin.read_bytes()[:at].rstrip(b"\0")
    assert image == pytest.approx(len(content), abs=256)  # equal strings lie there once


@needs_compiler
def test_a_model_lies_in_its_slot(tmp_path):
    model = tmp_path / "inside.tern"
    model.write_bytes(blob("inside"))
    image = pio.build("netduinoplus2", model).bin.read_bytes()
    assert image[SLOT_A : SLOT_A + 4] == b"TSLT"
    assert image[SLOT_A + 64 :] == blob("inside")
    header = image[SLOT_A : SLOT_A + 20]
    assert int.from_bytes(image[SLOT_A + 20 : SLOT_A + 24], "little") == zlib.crc32(header)


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(BuildError, match=r"no firmware for native"):
        pio.build("native")
    with pytest.raises(BuildError, match=r"cannot read the model .*none\.tern"):
        pio.build("netduinoplus2", tmp_path / "none.tern")
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    with pytest.raises(BuildError, match=r"no C compiler"):
        pio.build_native()


@needs_compiler
def test_pio_run_on_its_own_in_an_empty_folder(tmp_path, monkeypatch):
    """What a user types where PlatformIO has never run."""
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(tmp_path / "core"))
    monkeypatch.setenv("PLATFORMIO_WORKSPACE_DIR", str(tmp_path / "work"))
    pio_program = Path(sys.executable).with_name("pio")
    ran = subprocess.run(
        [pio_program, "run", "-d", share_dir("firmware"), "-e", "netduinoplus2"],
        capture_output=True,
        text=True,
        env={**os.environ, "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "No"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "warning" not in ran.stdout + ran.stderr
    assert (tmp_path / "work" / "build" / "netduinoplus2" / "firmware.elf").is_file()
