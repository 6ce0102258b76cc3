"""A user's folder: data of their own, a state folder of their own, every kind of virtual board."""

from __future__ import annotations

import shutil

import pytest
from road_user import CLASSES, SMALL, User, write_examples


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with tables and what `train` and `pack` make of them: three channels, 30 samples (no
    multiple of the patch), three classes, width 32."""
    folder = tmp_path_factory.mktemp("trained")
    someone = User(folder)
    write_examples(folder / "train.csv", per_class=8, seed=0)
    write_examples(folder / "test.csv", per_class=4, seed=1)
    facts = someone.json("train", "train.csv", "--test", "test.csv", "-o", "mine.ckpt", *SMALL)
    assert facts["test_accuracy"] >= 0.9
    facts = someone.json("pack", "mine.ckpt", "-o", "mine.tern", "--rank", 2)
    assert (facts["channels"], facts["length"], tuple(facts["labels"])) == (3, 30, CLASSES)
    return folder


@pytest.fixture
def user(tmp_path, trained):
    """A user with tables and a model; their boards are stopped in the end."""
    folder = shutil.copytree(trained, tmp_path / "home")
    state = tmp_path / "state"
    yield User(folder, {"TERNIO_STATE_DIR": str(state)})
    from ternio.link.virtual import VirtualBoards

    VirtualBoards(state / "boards").stop_all()


@pytest.fixture(params=["native", pytest.param("netduinoplus2", marks=pytest.mark.emulator)])
def board(request) -> str:
    """Each kind of virtual board."""
    needed = {"native": ["cc"], "netduinoplus2": ["qemu-system-arm", "arm-none-eabi-gcc"]}
    missing = [tool for tool in needed[request.param] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    return request.param
