"""Virtual boards for the firmware's tests, one of each kind, freshly started."""

from __future__ import annotations

import shutil

import firmware_boards as under_test
import pytest

from ternio.link.client import BoardClient
from ternio.link.virtual import VirtualBoards


def _skip_without_tools(name: str) -> None:
    tools = ["cc"] if name == "native" else ["qemu-system-arm", "arm-none-eabi-gcc"]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


EMULATED = ["netduinoplus2", "microbit", "mps2_an500", "mps3_an547"]


@pytest.fixture(params=[*(pytest.param(b, marks=pytest.mark.emulator) for b in EMULATED), "native"])
def board_name(request) -> str:
    """Each emulated board in turn."""
    _skip_without_tools(request.param)
    return request.param


@pytest.fixture
def virtual(tmp_path):
    """A folder of virtual boards, all stopped afterwards."""
    boards = VirtualBoards(tmp_path / "boards")
    boards.folder.mkdir()
    yield boards
    boards.stop_all()


@pytest.fixture
def running(virtual, board_name):
    """A freshly started board without a model."""
    return under_test.start(virtual, board_name)


@pytest.fixture
def console(running):
    """The text side of a freshly started board."""
    opened = under_test.Console.open(running.port)
    yield opened
    opened.close()


@pytest.fixture
def client(running):
    """The frame side of a freshly started board."""
    with BoardClient(running.port) as opened:
        yield opened
