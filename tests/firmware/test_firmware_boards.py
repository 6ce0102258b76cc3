"""Every board gives the same answers: text commands, frames, updates, adaptation."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from firmware_boards import Console, blob, motion_shaped, sizeable, start, window
from smpclient.generics import success
from smpclient.requests.file_management import FileHashChecksum, FileStatus, FileUpload
from smpclient.requests.os_management import MCUMgrParametersRead, OSApplicationInfoRead
from smpclient.requests.statistics_management import GroupData, ListOfGroups

from ternio.boards import load_board
from ternio.compile import Options
from ternio.errors import LinkError
from ternio.link.client import BoardClient
from ternio.link.messages import Execute
from ternio.runtime import Model, Session

STORAGE = {"native": "file", "microbit": "flash"}  # the others: "ram"


def reference(data: bytes) -> Session:
    """The same model in this process, with the arena that it needs."""
    return Session(Model(data))


# ---- a board without a model ------------------------------------------------------------------


def test_console_of_a_bare_board(console, board_name):
    about = console.ask("info")
    assert f"board={board_name} version=0.1.0 model=none reason=no-model-in-any-slot" in about
    assert (
        f"slot=none storage={STORAGE.get(board_name, 'ram')}" in about and "adapter=none" in about
    )
    assert console.ask("infer") == "error: no model on this board"
    assert console.ask("frobnicate now").startswith("error: unknown command; type help: frobnicate")
    assert console.ask("  help").startswith("commands: help; info; labels; put OFFSET N N ...")
    assert console.ask("telemetry maybe") == "error: telemetry takes on or off"
    assert re.fullmatch(
        r"uptime_ms=\d+ infers=0 steps=0 frames=0 .*rx_lost=0 .*", console.ask("stats")
    )


def test_line_ends_and_long_lines(console):
    console.send(b"\r\n\n\rhelp\r\nhelp\nhelp\r")
    assert [line[:9] for line in console.lines(3)] == ["commands:"] * 3
    console.send(b"x" * 480 + b"\n" + b"y" * 481 + b"\n" + b"help\n")
    long, longer, after = console.lines(3)
    assert long.startswith("error: unknown command")
    assert longer == "error: line longer than 480 characters"
    assert after.startswith("commands:")


def test_standard_frames(client, board_name):
    ask = client._ask
    assert client.echo("Grüße, " + "x" * 300) == "Grüße, " + "x" * 300
    parameters = ask(MCUMgrParametersRead())
    frame_bytes = load_board(board_name).frame_bytes
    assert (parameters.buf_size, parameters.buf_count) == (frame_bytes, 1)
    assert ask(OSApplicationInfoRead(format="sni")).output == f"ternio {board_name} {board_name}"
    assert ask(ListOfGroups()).stat_list == ("ternio",)
    assert ask(GroupData(name="ternio")).fields["frames"] >= 4
    with pytest.raises(LinkError, match="group 2, code 2"):
        ask(GroupData(name="other"))
    with pytest.raises(LinkError, match="group 0, code 2"):
        ask(OSApplicationInfoRead(format="?"))


# ---- a model ----------------------------------------------------------------------------------


def test_upload_infer_and_replace(client, running):
    first, second = blob("first"), blob("second", seed=2)
    client.upload_model(first)
    about = client.info()
    assert (about.model, about.outputs, about.slot) == ("first", 3, "A")
    assert about.labels == ("still", "left turn", "right")
    x = window(36)
    assert client.infer(x).logits.tobytes() == reference(first).infer(x).tobytes()
    client.upload_model(second)
    about = client.info()
    assert (about.model, about.slot) == ("second", "B")
    assert client.infer(x).logits.tobytes() == reference(second).infer(x).tobytes()
    assert client.download("/model") == second
    banner = client.reset()
    assert "model second, 3 classes" in banner
    assert client.infer(x).logits.tobytes() == reference(second).infer(x).tobytes()


def test_a_bad_file_leaves_the_old_model(client):
    good, x = blob("good"), window(36)
    client.upload_model(good)
    before = client.infer(x).logits.tobytes()
    broken = bytearray(blob("broken", seed=3))
    broken[-1] ^= 1
    with pytest.raises(LinkError, match=r"refused the file: .*checksum|CRC"):
        client.upload("/model", bytes(broken))
    with pytest.raises(LinkError, match="refused the file: not a ternio"):
        client.upload("/model", b"not a model at all" * 20)
    with pytest.raises(LinkError, match="refused the file: too large for a slot"):
        client.upload("/model", bytes(5 << 20))
    with pytest.raises(LinkError, match="group 8, code 2"):
        client.upload("/etc", good)
    with pytest.raises(LinkError, match="group 8, code 3"):
        client.download("/adapter")
    assert client.info().model == "good"
    assert client.infer(x).logits.tobytes() == before
    assert "good" in client.reset()


def test_every_damaged_header_field_is_refused(client):
    """Also blobs cut short and blobs with bytes behind them; the old model goes on answering."""
    good, x = blob("good"), window(36)
    client.upload_model(good)
    before = client.infer(x).logits.tobytes()
    victim = blob("victim", seed=9)
    damaged = [victim[:-16], victim + bytes(16), victim[:96]]
    for offset in range(0, 0x60, 4):
        changed = bytearray(victim)
        changed[offset + 1] ^= 0x10
        damaged.append(bytes(changed))
    for data in damaged:
        with pytest.raises(LinkError, match="refused the file: "):
            client.upload("/model", data)
    assert client.info().model == "good"
    assert client.infer(x).logits.tobytes() == before


# Length of a model's window, and why it is refused.
TOO_MUCH = {
    "microbit": (400, "arena"),
    "netduinoplus2": (4000, "arena"),
    "mps2_an500": (4000, "one run"),
    "mps3_an547": (8000, "one run"),
    "native": (30000, "one run"),
}


def test_a_model_too_large_or_too_slow_is_refused(client, board_name):
    length, why = TOO_MUCH[board_name]
    with pytest.raises(LinkError, match=f"refused the file: {why}"):
        client.upload("/model", blob("wide", length=length))
    assert client.info().model == ""


def test_text_commands_on_a_model(client, running, board_name):
    data, x = blob("spoken"), window(36, seed=4)
    client.upload_model(data)
    console = Console.open(running.port)
    try:
        assert console.ask("labels") == "0=still 1=left-turn 2=right"
        assert console.ask("infer") == "error: window incomplete"
        assert console.ask("put 0 " + " ".join(map(str, x[:20]))) == "ok 20"
        assert console.ask("put 30 1") == "error: leaves a gap in the window"
        assert console.ask("put 20 " + " ".join(map(str, x[20:]))) == "ok 36"
        assert console.ask("put 35 1 2") == "error: beyond the end of the window"
        assert console.ask("put 0 32768") == "error: not an int16 number: 32768"
        assert console.ask("put 0 " + " ".join(map(str, x))) == "ok 36"
        logits = reference(data).infer(x)
        best = int(np.argmax(logits))
        p = float(np.exp(logits[best] - np.logaddexp.reduce(logits.astype(np.float64))))
        said = console.ask("infer")
        name = ("still", "left-turn", "right")[best]
        found = re.fullmatch(rf"class={name} p=(\d\.\d{{4}}) us=\d+", said)
        assert found and abs(float(found[1]) - p) < 1e-3, said
        assert console.ask("telemetry on") == "ok"
        console.send(b"infer\n")
        event, answer = console.lines(2)
        assert event.startswith('{"event":"infer","class":"') and answer.startswith("class=")
        assert console.ask("telemetry off") == "ok"
        assert console.ask("adapt nowhere") == "error: no such class: nowhere"
        if not load_board(board_name).adapts:
            assert (
                console.ask("adapt right") == "error: the model was packed without an adapt program"
            )
            return
        assert re.fullmatch(r"step=1 loss=\d+\.\d{4} us=\d+", console.ask("adapt right"))
        assert re.fullmatch(r"step=2 loss=\d+\.\d{4} us=\d+", console.ask("adapt 2"))
        assert console.ask("adapter").startswith("adapter=training steps=2 floats=")
        assert re.fullmatch(r"saved steps=2 bytes=\d+ slot=A", console.ask("adapter save"))
    finally:
        console.close()


# ---- adaptation -------------------------------------------------------------------------------


def test_adaptation_is_the_same_bit_for_bit(client, board_name):
    if not load_board(board_name).adapts:
        pytest.skip("built without adaptation")
    data = motion_shaped()
    client.upload_model(data)
    session = reference(data)
    plain = client.infer(window(600)).logits.tobytes()
    assert plain == session.infer(window(600)).tobytes()
    session.adapt_begin(lr=0.005, seed=11)
    assert client.adapt_begin(lr=0.005, seed=11) == (0, client.info().adapter_floats)
    for step in range(4):
        x = window(600, seed=step)
        there = client.adapt_step(x, step % 4)
        here = session.adapt_step(x, step % 4)
        assert np.float32(there.loss) == np.float32(here) and there.step == step + 1
    assert client.adapter_pull() == session.adapter_bytes()
    tuned = session.infer(window(600)).tobytes()
    assert client.infer(window(600)).logits.tobytes() == tuned != plain
    saved = client.adapter_save()
    assert (saved.steps, saved.slot) == (4, "A")
    assert client.info().adapter == "attached"
    stored = client.adapter_pull()
    assert stored == session.adapter_bytes()
    client.reset()
    assert client.info().adapter == "attached"
    assert client.infer(window(600)).logits.tobytes() == tuned
    client.adapter_reset()
    assert client.info().adapter == "none"
    assert client.infer(window(600)).logits.tobytes() == plain
    client.reset()
    assert client.info().adapter == "none"
    client.adapter_push(stored)
    assert client.infer(window(600)).logits.tobytes() == tuned
    client.upload_model(blob("other"))
    assert client.info().adapter == "none"
    with pytest.raises(LinkError, match="refused the file: the adapter belongs to another model"):
        client.adapter_push(stored)


def test_a_kilobyte_of_stack_is_left(client, board_name):
    """With the reference model's shape, packed for the board, after upload, inference and text."""
    board = load_board(board_name)
    if board.is_native:
        pytest.skip("a process has stack enough")
    room = board.arena_beside(2 * 600)
    data = motion_shaped(Options(adapt=board.adapts, arena_limit=room))
    client.upload_model(data)
    x = window(600, seed=1)
    assert client.infer(x).logits.tobytes() == reference(data).infer(x).tobytes()
    for line in ("infer", "info", "help", "put 0 1", "adapt 0", "labels"):
        client._ask(Execute(argv=line.split(" ")))
    counters = client._ask(GroupData(name="ternio")).fields
    assert 1024 <= counters["stack_free"] < board.stack_bytes


def test_an_adapter_from_elsewhere(client):
    data, x = blob("taught"), window(36)
    session = reference(data)
    session.adapt_begin(lr=0.01)
    for label in (0, 1, 2):
        session.adapt_step(window(36, seed=label), label)
    tuned = session.infer(x).tobytes()
    client.upload_model(data)
    plain = client.infer(x).logits.tobytes()
    client.adapter_push(session.adapter_bytes())
    client.reset()
    assert client.info().adapter == "attached"
    assert client.infer(x).logits.tobytes() == tuned != plain
    client.adapter_reset()
    assert client.infer(x).logits.tobytes() == plain


# ---- broken and repeated uploads ----------------------------------------------------------------


def _send_part(client: BoardClient, name: str, data: bytes, stop: int) -> None:
    """The first bytes of an upload, up to `stop`, in blocks of 256."""
    for off in range(0, stop, 256):
        extra = {"len": len(data)} if off == 0 else {}
        block = data[off : min(off + 256, stop)]
        answer = client._ask(FileUpload(name=name, off=off, data=block, **extra))
        assert answer.off == off + len(block)


@pytest.mark.parametrize("reset", [False, True], ids=["link lost", "board reset"])
def test_an_interrupted_upload_goes_on(client, reset):
    old, new = blob("old"), sizeable()
    client.upload_model(old)
    _send_part(client, "/model", new, 20 * 256)
    assert client.info().model == "old"
    if reset:
        assert "model old" in client.reset()
    seen: list[int] = []
    client.upload("/model", new, lambda done, total: seen.append(done))
    assert 20 * 256 - 64 < seen[0] <= 20 * 256
    assert client.info().digest == new[0x10:0x30].hex()


def test_another_file_starts_anew(client):
    _send_part(client, "/model", sizeable(), 16 * 256)
    other = blob("other")
    seen: list[int] = []
    client.upload("/model", other, lambda done, total: seen.append(done))
    assert seen[0] < 16 * 256 and client.info().model == "other"
    answer = client._ask(FileUpload(name="/adapter", off=0, data=b"", len=64))
    assert answer.off == 0
    with pytest.raises(LinkError, match="group 8, code 12"):
        client._ask(FileUpload(name="/adapter", off=0, data=bytes(65), len=64))


def test_checksums(client):
    data = blob("summed")
    client.upload_model(data)
    assert client._ask(FileStatus(name="/model")).len == len(data)
    crc = client._ask(FileHashChecksum(name="/model"))
    assert success(crc) and crc.output == zlib.crc32(data)
    part = client._ask(FileHashChecksum(name="/model", type="crc32", off=100, len=50))
    assert (part.output, part.len, part.off) == (zlib.crc32(data[100:150]), 50, 100)


# ---- a model in the image ---------------------------------------------------------------------


def test_a_model_built_into_the_image(virtual, tmp_path, board_name):
    if board_name == "native":
        pytest.skip("the native board has no image")
    built_in = tmp_path / "model.tern"
    built_in.write_bytes(blob("inside"))
    running = start(virtual, board_name, built_in)
    with BoardClient(running.port) as client:
        about = client.info()
        slots = ("A", "B") if about.storage == "flash" else ("builtin", "A")
        assert (about.model, about.slot) == ("inside", slots[0])
        client.upload_model(blob("newer", seed=5))
        assert (client.info().model, client.info().slot) == ("newer", slots[1])
        assert "model newer" in client.reset()
