"""Nothing is lost when power goes at any written byte of an update."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from firmware_boards import blob, sizeable

from ternio.boards import load_board
from ternio.errors import LinkError
from ternio.firmware import pio
from ternio.link.client import BoardClient
from ternio.paths import share_dir

CONFIG = """
#define BOARD_FLASH_BASE {base}u
#define BOARD_FLASH_BYTES {bytes}
#define BOARD_FLASH_SLOT_COUNT 2
#define BOARD_FLASH_SLOTS {{{{1, {base} + {slot}, {slot}}}, {{1, {base} + 2 * {slot}, {slot}}}}}
#define BOARD_RAM_SLOT_COUNT 0
#define BOARD_RAM_SLOTS {{{{0, 0, 0}}}}
"""
FLASHES = {  # base, bytes of all, bytes of a slot: whole erase units
    "plain": (0, 2048, 512),
    "stm32f4": (0x08000000, 0x10000, 0x4000),
    "nrf51": (0x00100000, 4096, 1024),
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("flash", FLASHES)
def test_updates_survive_a_cut_at_every_write(tmp_path, flash):
    """On a flash of bytes, and with the drivers of the chips on models of their controllers."""
    firmware, device, here = share_dir("firmware"), share_dir("device"), Path(__file__).parent
    base, size, slot = FLASHES[flash]
    (tmp_path / "board_config.h").write_text(CONFIG.format(base=base, bytes=size, slot=slot))
    (tmp_path / "cortexm.h").write_text('#include "power_cut_chip.h"\n')
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    folders = (tmp_path, here, firmware / "src", device / "include")
    command += [f"-I{folder}" for folder in folders]
    command += [here / "power_cut.c", firmware / "src" / "storage" / "slots.c"]
    if flash == "plain":
        command += [here / "power_cut_plain.c"]
    else:
        driver = firmware / "ports" / flash / "flash.c"
        command += [f"-DMODEL_{flash.upper()}", here / "power_cut_chip.c", driver]
    command += [device / "src" / "tr_hash.c", "-o", tmp_path / "power_cut"]
    subprocess.run(command, check=True)
    ran = subprocess.run([tmp_path / "power_cut"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    updating, discarding = map(int, re.findall(r"each of (\d+) writes", ran.stdout))
    unit = 1 if flash == "plain" else 4  # and words of ones are not counted
    assert updating > (203 + 24 - 48) // unit and discarding > 64 // unit


# ---- the nRF51's own flash, as QEMU models it ---------------------------------------------------

SLOTS_BASE, FLASH_END = 0x10000, 0x40000  # boards/microbit.json


class Monitor:
    """QEMU's machine protocol over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.run("qmp_capabilities")

    def run(self, command: str, **arguments) -> None:
        self.file.write(json.dumps({"execute": command, "arguments": arguments}))
        self.file.flush()
        while "return" not in (answer := json.loads(self.file.readline())):
            assert "event" in answer, answer

    def save_slots(self, path: Path) -> None:
        """All slots as they are at this instant."""
        self.run("stop")
        size = FLASH_END - SLOTS_BASE
        self.run("memsave", val=SLOTS_BASE, size=size, filename=str(path))
        self.run("cont")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def instants_of_an_update(virtual, folder: Path, old: bytes, new: bytes) -> list[bytes]:
    """Different contents of the slots while `new` replaces `old`, in order."""
    image = pio.build("microbit").elf
    arguments = ["-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
    running = virtual.start(load_board("microbit"), image, extra_args=arguments)
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        monitor = Monitor(folder / "qmp")
        while not done.is_set():
            monitor.save_slots(folder / "slots")
            content = (folder / "slots").read_bytes()
            if not seen or seen[-1] != content:
                seen.append(content)
            time.sleep(0.002)
        monitor.close()

    with BoardClient(running.port) as client:
        client.upload_model(old)
        watcher = threading.Thread(target=watch)
        watcher.start()
        client.upload_model(new)
        time.sleep(0.1)
        done.set()
        watcher.join()
    virtual.stop_all()
    return seen


@pytest.mark.emulator
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no QEMU for Arm")
def test_flash_of_the_microbit_survives_power_cuts(virtual, tmp_path):
    old, new = blob("old"), sizeable()
    instants = instants_of_an_update(virtual, tmp_path, old, new)
    assert len(instants) > 8
    chosen = {i * (len(instants) - 1) // 7 for i in range(8)}
    models = []
    for i in sorted(chosen):
        (tmp_path / "slots").write_bytes(instants[i])
        load = f"loader,file={tmp_path / 'slots'},addr={SLOTS_BASE:#x},force-raw=on"
        image = pio.build("microbit").elf
        running = virtual.start(load_board("microbit"), image, extra_args=["-device", load])
        with BoardClient(running.port) as client:
            about = client.info()
            assert about.digest in (old[0x10:0x30].hex(), new[0x10:0x30].hex())
            models.append(about.model)
            if about.model == "old":
                client.upload_model(new)
                assert client.info().model == "sizeable"
    assert (models[0], models[-1]) == ("old", "sizeable")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_file_of_the_native_board_survives_kills(virtual):
    """The process ends without warning at six places of an update, which then goes on."""
    board, program = load_board("native"), pio.build_native()
    old, new = blob("old"), sizeable()
    running = virtual.start(board, program, fresh=True)
    with BoardClient(running.port) as client:
        client.upload_model(old)
    firsts = []
    for stop in range(6):
        told: list[int] = []

        def kill(
            done: int, total: int, stop: int = stop, pid: int = running.pid, told: list = told
        ) -> None:
            told.append(done)
            if done >= total * (2 * stop + 1) // 12:
                os.kill(pid, signal.SIGKILL)

        with BoardClient(running.port) as client, pytest.raises(LinkError):
            client.upload("/model", new, kill)
        firsts.append(told[0])
        running = virtual.start(board, program)
        with BoardClient(running.port) as client:
            assert client.info().model == "old"
    with BoardClient(running.port) as client:
        client.upload_model(new)
        assert client.info().model == "sizeable"
    assert firsts[2:] == sorted(set(firsts[2:])) and firsts[2] > firsts[0], "it began anew"
