"""A fake board, virtual boards of a folder of their own, and a small model for the tests of the
link.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakeboard import FakeBoard

from ternio.boards import load_board
from ternio.link.virtual import VirtualBoards

TOOLS = {"native": ["cc"], "netduinoplus2": ["qemu-system-arm", "arm-none-eabi-gcc"]}


@pytest.fixture
def fake():
    """A board that is only pretended."""
    with FakeBoard() as board:
        yield board


def small_model(seed: int) -> bytes:
    """An untrained classifier of 3 channels x 20 samples into 3 classes, packed."""
    from ternio import data, manual_seed
    from ternio.checkpoint import Checkpoint
    from ternio.compile import pack_checkpoint
    from ternio.models import Classifier, ClassifierConfig

    manual_seed(seed)
    config = ClassifierConfig(channels=3, length=20, classes=3, width=32, layers=1, heads=2, ffn=32)
    ones = np.ones(3, np.float32)
    inputs = data.InputDescription(("x", "y", "z"), 20, 25.0, 0 * ones, ones, ones / 8192)
    labels = ("sit", "walk", "run")
    return pack_checkpoint(Checkpoint(Classifier(config), labels, inputs, f"small{seed}")).encode()


@pytest.fixture(scope="session")
def blob() -> bytes:
    """The small model."""
    return small_model(1)


@pytest.fixture(scope="session")
def other_blob() -> bytes:
    """Another of the same shape."""
    return small_model(2)


@pytest.fixture
def virtual(tmp_path):
    """A folder of virtual boards, all stopped afterwards."""
    boards = VirtualBoards(tmp_path / "boards")
    yield boards
    boards.stop_all()


@pytest.fixture(scope="session")
def native_program() -> Path:
    """The native board's program."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    from ternio.firmware import pio

    return pio.build_native()


@pytest.fixture
def native(virtual, native_program):
    """The native board, running, without a model."""
    return virtual.start(load_board("native"), native_program)


@pytest.fixture(
    params=["native", pytest.param("netduinoplus2", marks=pytest.mark.emulator)],
)
def running(request, virtual, native_program):
    """Each kind of virtual board, running, without a model."""
    missing = [tool for tool in TOOLS[request.param] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    from ternio.firmware import pio

    board = load_board(request.param)
    image = native_program if board.is_native else pio.build(board).elf
    return virtual.start(board, image)
