"""A board comes back: from a hang by its watchdog, from corrupted state by a fault, and from a long
generation when somebody else wants to talk."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from firmware_boards import Console, blob, language, window

from ternio.boards import load_board
from ternio.firmware import pio
from ternio.link.client import BoardClient
from ternio.runtime import Model, Session

emulated = [
    pytest.mark.emulator,
    pytest.mark.skipif(
        shutil.which("arm-none-eabi-nm") is None or shutil.which("qemu-system-arm") is None,
        reason="needs an Arm compiler and QEMU",
    ),
]
CTRL_C = b"\x03"
FAULTING = ["netduinoplus2", "microbit", "mps3_an547"]  # where nothing is; mps2 reads zeros there
WATCHED = ["mps2_an500", "mps3_an547"]  # QEMU 7.2 models no watchdog of the others


class Debugger:
    """QEMU's stub for GDB: while it is open, the board stands still."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))

    def __enter__(self) -> Debugger:
        self.run("?")
        self.run("qXfer:features:read:target.xml:0,ff0")  # else it writes no registers
        return self

    def __exit__(self, *_: object) -> None:
        self.run("D")
        self.socket.close()

    def run(self, command: str) -> bytes:
        """One packet there, and the one that answers it; not the news that the board stopped."""
        packet = f"${command}#{sum(command.encode()) & 255:02x}"
        self.socket.sendall(packet.encode())
        while True:
            answer = self.packet()
            if command == "?" or not answer.startswith(b"T"):
                return answer

    def packet(self) -> bytes:
        data = b""
        while data[-3:-2] != b"#":
            data += self.socket.recv(1)
        self.socket.sendall(b"+")
        return data.partition(b"$")[2][:-3]

    def write(self, address: int, data: bytes) -> None:
        assert self.run(f"M{address:x},{len(data):x}:{data.hex()}") == b"OK"

    def jump(self, address: int) -> None:
        assert self.run(f"Pf={address.to_bytes(4, 'little').hex()}") == b"OK"


def debugged(virtual, folder: Path, name: str, *more: str):
    """A board with a model in its image and a debugger's door."""
    (folder / "model.tern").write_bytes(blob("steady"))
    board, door = load_board(name), folder / "gdb"
    extra = ["-gdb", f"unix:{door},server=on,wait=off", *more]
    image = pio.build(board, folder / "model.tern").elf
    return virtual.start(board, image, extra_args=extra), door, image


def banner(port: str, timeout_s: float) -> str:
    """The line of a board that started anew."""
    console, end = Console.open(port), time.monotonic() + timeout_s
    try:
        while time.monotonic() < end:
            line = console.lines(1, timeout_s)[0]
            if line.startswith("ternio "):
                return line
    finally:
        console.close()
    raise AssertionError("the board did not come back")


def answers_as_before(port: str) -> str:
    """Infers as the runtime here does; the console's `info`."""
    with BoardClient(port) as client:
        x = window(36)
        here = Session(Model(blob("steady"))).infer(x).tobytes()
        assert client.infer(x).logits.tobytes() == here
        return client.command("info")


@pytest.mark.parametrize("name", [pytest.param(b, marks=emulated) for b in WATCHED])
def test_the_watchdog_ends_a_hang(virtual, tmp_path, name):
    """Thirty seconds of the board, made short by a clock of 256 ns an instruction."""
    running, door, _ = debugged(virtual, tmp_path, name, "-icount", "shift=8,sleep=off")
    answers_as_before(running.port)
    place = load_board(name).ram.base  # the bottom of the stack, which nothing reaches
    with Debugger(door) as debugger:
        debugger.write(place, b"\xfe\xe7")  # a branch to itself
        debugger.jump(place)
    assert "model steady" in banner(running.port, 30)
    assert f"restarted_after=watchdog-at-0x{place:08x}" in answers_as_before(running.port)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(b, marks=emulated) for b in WATCHED])
def test_a_reader_that_went_away_is_no_hang(virtual, tmp_path, name):
    """A cable pulled while the board writes: the emulated UART waits, longer than the watchdog."""
    running = virtual.start(
        load_board(name), pio.build(name).elf, extra_args=["-icount", "shift=10,sleep=off"]
    )
    console = Console.open(running.port)
    before = _uptime_ms(running.port)
    console.send(b"help\n" * 150)  # and more answers than a pseudo-terminal holds
    console.close()
    time.sleep(20)  # of this computer, for more than 30 of the board
    assert _uptime_ms(running.port) > before + 31_000
    with BoardClient(running.port) as client:
        assert "restarted_after" not in client.command("info")


def _uptime_ms(port: str) -> int:
    with BoardClient(port) as client:
        return int(re.search(r"uptime_ms=(\d+)", client.command("stats"))[1])


@pytest.mark.parametrize("name", [pytest.param(b, marks=emulated) for b in FAULTING])
def test_corrupted_state_ends_in_a_restart(virtual, tmp_path, name):
    """Every pointer of the running model leads to where no memory is."""
    running, door, image = debugged(virtual, tmp_path, name)
    answers_as_before(running.port)
    symbols = subprocess.run(
        ["arm-none-eabi-nm", "-S", image], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    address, size, *_ = next(line for line in symbols if line.endswith(" b session")).split()
    with Debugger(door) as debugger:
        debugger.write(int(address, 16), b"\x30" * int(size, 16))
    console = Console.open(running.port)
    console.send(b"infer\n")
    console.close()
    assert "model steady" in banner(running.port, 20)
    assert "restarted_after=fault-at-0x" in answers_as_before(running.port)


# ---- interrupting -----------------------------------------------------------------------------


@pytest.fixture
def writing(running):
    """The console of a board that has begun to write a million characters."""
    with BoardClient(running.port) as client:
        client.upload_model(language())
    console = Console.open(running.port)
    console.send(b"telemetry on\ngenerate 1000000 prompt It is\n")
    assert console.lines() == ["ok"]
    seen = b""
    while len(seen) < 40:
        seen += os.read(console.descriptor, 1) if _readable(console) else b""
    yield console
    console.close()


def _readable(console: Console) -> bool:
    return bool(select.select([console.descriptor], [], [], 20)[0])


def test_ctrl_c_ends_a_generation(writing):
    writing.send(CTRL_C)
    event, rest = writing.lines(2)
    assert event.count('{"event":"generate","tokens":') == 1 and rest == ""
    assert writing.ask("info").startswith("board=")
    writing.send(b"half a line" + CTRL_C)
    assert writing.ask("help").startswith("commands: ")


def test_a_tool_ends_a_generation(writing, running):
    with BoardClient(running.port) as client:
        assert client.info().model == "text"
        client.telemetry(False)
        assert client.prompt("It is") == 5


def test_a_generation_that_no_answer_holds_ends(client):
    client.upload_model(language())
    said = client.command("generate 1000000 prompt It is")
    assert 100 < len(said) < load_board(client.info().board).frame_bytes
    assert client.command("help").startswith("commands: ")
