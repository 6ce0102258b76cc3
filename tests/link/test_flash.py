"""What `flash` decides: send, keep, or build; a real board is played by the fake one."""

from __future__ import annotations

import json

import pytest

from ternio.boards import load_board
from ternio.errors import BlobError, BoardError, BuildError, FitError, LinkError, PortError
from ternio.firmware import pio
from ternio.link.client import DIGEST
from ternio.link.find import ask
from ternio.link.flash import flash
from ternio.paths import share_dir


@pytest.fixture
def board(tmp_path):
    """A board on the desk that no emulator knows: the reference board under the fake one's name."""
    manifest = json.loads((share_dir("boards") / "netduinoplus2.json").read_text("utf-8"))
    del manifest["ternio"]["emulator"]
    (tmp_path / "fake.json").write_text(json.dumps(manifest))
    return load_board(tmp_path / "fake.json")


@pytest.fixture
def model(tmp_path, blob):
    path = tmp_path / "small.tern"
    path.write_bytes(blob)
    return path


@pytest.fixture
def uploads(fake, blob, monkeypatch):
    """Calls of the build with upload, after which the fake board runs the model."""
    calls = []

    def upload(board, path, port):
        calls.append((board.name, path, port))
        fake.mute, fake.has_model, fake.model = False, True, path.read_bytes()
        return pio.BuildResult(path, path, {"model": {"flash": len(blob), "ram": 0}})

    monkeypatch.setattr(pio, "upload", upload)
    return calls


def test_a_firmware_that_answers_gets_the_blob_only(fake, board, model, blob, uploads):
    fake.has_model = False
    done = flash(board, model, port=fake.port)
    assert (done.how, done.port, done.sizes) == ("sent", fake.port, {})
    assert fake.model == blob and done.info.digest == blob[DIGEST].hex()
    again = flash(board, model, port=fake.port)
    assert again.how == "kept" and uploads == []


def test_a_bare_board_gets_firmware_and_model(fake, board, model, blob, uploads):
    fake.mute = True
    done = flash(board, model, port=fake.port)
    assert done.how == "built" and done.sizes["model"]["flash"] == len(blob)
    assert uploads == [("fake", model, fake.port)]


def test_full_builds_although_a_firmware_answers(fake, board, model, uploads):
    assert flash(board, model, port=fake.port, full=True).how == "built" and len(uploads) == 1


def test_another_board_at_the_port(fake, board, model, uploads):
    fake.name = "feather"
    old = fake.model
    with pytest.raises(BoardError, match="is feather, not fake"):
        flash(board, model, port=fake.port)
    assert fake.model == old and uploads == []


def test_a_model_too_large_for_a_slot_says_what_to_do(fake, board, model, uploads):
    fake.slot_bytes = 1024
    with pytest.raises(BoardError, match="takes 1024: --full"):
        flash(board, model, port=fake.port)
    assert uploads == []


def test_an_upload_that_fails_leaves_the_old_model(fake, board, model, monkeypatch):
    fake.mute = True
    old = fake.model

    def upload(*_):
        raise BuildError("no probe found")

    monkeypatch.setattr(pio, "upload", upload)
    with pytest.raises(BuildError, match="no probe found"):
        flash(board, model, port=fake.port)
    assert fake.model == old


def test_a_board_that_runs_something_else_afterwards(fake, board, model, monkeypatch):
    result = pio.BuildResult(model, model, {})
    monkeypatch.setattr(pio, "upload", lambda *_: result)
    with pytest.raises(LinkError, match="fake runs demo"):
        flash(board, model, port=fake.port, full=True)


def test_without_a_port_nothing_can_be_checked(board, model, monkeypatch):
    monkeypatch.setattr(pio, "upload", lambda *_: pio.BuildResult(model, model, {}))
    with pytest.raises(LinkError, match="give --port"):
        flash(board, model)


def test_what_is_no_model_or_too_large_is_refused_before_anything_is_done(
    fake, board, model, blob, uploads, tmp_path
):
    (tmp_path / "bad.tern").write_bytes(blob[:-16] + bytes(16))
    with pytest.raises(BlobError):
        flash(board, tmp_path / "bad.tern", port=fake.port)
    with pytest.raises(BoardError, match="cannot read the model"):
        flash(board, tmp_path / "none.tern", port=fake.port)
    manifest = json.loads(board.path.read_text())
    manifest["ternio"]["arena_bytes"] = 1024
    board.path.write_text(json.dumps(manifest))
    with pytest.raises(FitError, match="bytes"):
        flash(load_board(board.path), model, port=fake.port)
    assert uploads == [] and not [r for group, _, r in fake.requests if group == 8]


def test_a_port_that_cannot_be_opened_builds_nothing(board, model, uploads, tmp_path):
    for port, why in ((tmp_path / "none", "there is no port"), ("/dev/null", "cannot open")):
        with pytest.raises(PortError, match=why):
            flash(board, model, port=str(port))
    assert uploads == []


def test_a_port_that_is_away_after_the_upload_is_waited_for(fake, board, model, blob, monkeypatch):
    """As the USB of a board that starts anew."""
    seen = []

    def away_at_first(port, timeout_s=0.5):
        seen.append(port)
        if len(seen) in (2, 3):
            raise PortError("there is no port")
        return ask(port, timeout_s)

    def upload(board, path, port):
        fake.mute, fake.has_model, fake.model = False, True, blob
        return pio.BuildResult(path, path, {})

    fake.mute = True
    monkeypatch.setattr(pio, "upload", upload)
    monkeypatch.setattr("ternio.link.flash.ask", away_at_first)
    assert flash(board, model, port=fake.port).how == "built" and len(seen) == 4
