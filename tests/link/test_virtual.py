"""Virtual boards: found while they run, forgotten when they end, never in the user's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ternio.boards import load_board
from ternio.errors import BoardError, LinkError
from ternio.link.client import BoardClient
from ternio.link.find import choose_port, find_boards
from ternio.link.virtual import VirtualBoards

NATIVE = load_board("native")


def script(path: Path, text: str) -> Path:
    """An executable that stands in for the native board's program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def wait_until(condition, seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_board_runs_until_it_is_stopped(running, virtual):
    assert virtual.running() == [running] and virtual.get(running.name) == running
    with BoardClient(running.port) as client:
        assert client.info().board == running.board
    assert virtual.stop(running.name) is True
    assert virtual.running() == [] and virtual.stop(running.name) is False
    with pytest.raises(LinkError):
        BoardClient(running.port)


def test_clients_come_and_go(running):
    for text in ("one", "two", "three"):
        with BoardClient(running.port) as client:
            assert client.echo(text) == text


def test_a_reset_keeps_the_port(running):
    with BoardClient(running.port) as client:
        assert f" on {running.board}:" in client.reset()
        assert client.echo("back") == "back"


def test_a_board_that_was_killed_is_forgotten(running, virtual):
    os.kill(running.pid, signal.SIGKILL)
    assert wait_until(lambda: virtual.running() == [])
    assert not (virtual.folder / f"{running.name}.json").exists()


def test_starting_again_replaces_the_old_one(native, virtual, native_program):
    again = virtual.start(NATIVE, native_program)
    assert again.pid != native.pid and virtual.running() == [again]
    with pytest.raises(ProcessLookupError):
        os.kill(native.pid, 0)


def test_two_boards_of_a_kind_by_name(virtual, native_program):
    names = ["left", "right"]
    boards = [virtual.start(NATIVE, native_program, name=name) for name in names]
    assert [board.name for board in virtual.running()] == names
    assert boards[0].port != boards[1].port
    assert sorted(virtual.stop_all()) == names


def test_a_board_outlives_the_program_that_started_it(virtual, native_program):
    code = (
        "import sys; from ternio.boards import load_board\n"
        "from ternio.link.virtual import VirtualBoards\n"
        "from pathlib import Path\n"
        "VirtualBoards(Path(sys.argv[1])).start(load_board('native'), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(virtual.folder), str(native_program)]
    subprocess.run(command, check=True)
    (board,) = virtual.running()
    with BoardClient(board.port) as client:
        assert client.echo("still here") == "still here"
    assert virtual.stop("native") and virtual.running() == []


def test_flash_of_the_native_board_outlives_it_until_fresh(virtual, native_program, blob):
    board = virtual.start(NATIVE, native_program)
    with BoardClient(board.port) as client:
        client.upload_model(blob)
    for fresh, model in ((False, "small1"), (True, "")):
        board = virtual.start(NATIVE, native_program, fresh=fresh)
        with BoardClient(board.port) as client:
            assert client.info().model == model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo cannot open the thing >&2; exit 3", "did not start: cannot open the thing"),
        ("exit 0", "did not start: it said nothing"),
        ("sleep 30", "did not start: it said nothing"),
        ("echo native board on /dev/null; sleep 30", "printed no banner within"),
    ],
)
def test_a_board_that_does_not_start_is_one_line(virtual, tmp_path, text, words):
    image = script(tmp_path / "board", text)
    with pytest.raises(BoardError, match=words) as caught:
        virtual.start(NATIVE, image, timeout_s=0.4)
    assert "\n" not in str(caught.value)
    assert virtual.running() == []


@pytest.mark.emulator
def test_an_image_that_qemu_cannot_load(virtual, tmp_path):
    image = tmp_path / "none.elf"
    image.write_bytes(b"")
    with pytest.raises(BoardError, match="the virtual board netduinoplus2"):
        virtual.start(load_board("netduinoplus2"), image, timeout_s=3.0)
    assert virtual.running() == []


def test_what_is_missing_is_named(virtual, tmp_path, native_program, monkeypatch):
    with pytest.raises(BoardError, match="there is no image"):
        virtual.start(NATIVE, tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match="not installed: install QEMU"):
        virtual.start(load_board("netduinoplus2"), native_program)
    desk = replace(load_board("netduinoplus2"), emulator={})
    with pytest.raises(BoardError, match="has no emulator"):
        virtual.start(desk, native_program)


def test_damaged_notes_are_dropped(native, virtual):
    (virtual.folder / "broken.json").write_text("{")
    (virtual.folder / "old.json").write_text(json.dumps({"pid": 1}))
    assert virtual.running() == [native]
    assert [note.stem for note in virtual.folder.glob("*.json")] == ["native"]


def test_the_port_is_chosen_by_what_runs(virtual, native_program, monkeypatch):
    monkeypatch.setattr("ternio.link.find.serial_ports", lambda: [])
    assert choose_port(None, "/dev/x", virtual) == "/dev/x"
    with pytest.raises(LinkError, match="no board answers"):
        choose_port(None, None, virtual)
    left = virtual.start(NATIVE, native_program, name="left")
    assert choose_port(None, None, virtual) == left.port
    assert choose_port("native", None, virtual) == left.port
    with pytest.raises(LinkError, match="no netduinoplus2 board answers"):
        choose_port("netduinoplus2", None, virtual)
    right = virtual.start(NATIVE, native_program, name="right")
    assert choose_port("right", None, virtual) == right.port
    for board in (None, "native"):
        with pytest.raises(LinkError, match="several boards"):
            choose_port(board, None, virtual)
    assert {found.virtual for found in find_boards(virtual)} == {"left", "right"}


def test_the_default_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("TERNIO_STATE_DIR", str(tmp_path))
    assert VirtualBoards().folder == tmp_path / "boards"
    assert VirtualBoards().running() == []
