"""BoardClient against the fake board: every call, every fault of a line."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from fakeboard import FakeBoard, model_file

from ternio.errors import LinkError, ModelError
from ternio.link import session
from ternio.link.client import BoardClient, window_bytes


def window(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, (20, 3)).astype(np.int16)


def expected_logits(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).sum(0) / np.float32(32768)


def test_info_completes_labels_that_did_not_fit_the_frame(fake):
    with BoardClient(fake.port) as board:
        info = board.info()
    assert (info.board, info.model, info.firmware) == ("fake", "demo", "0.1.0")
    assert info.labels == ("sit", "walk", "run")
    assert info.input_scale.tolist() == [0.5, 1.0, 2.0]
    assert info.digest == fake.model[16:48].hex()
    assert (info.arena_bytes, info.slot_bytes, info.blob_bytes) == (1000, 16384, 4096)


def test_info_without_a_model_says_why(fake):
    fake.has_model = False
    with BoardClient(fake.port) as board:
        info = board.info()
        assert info.model == "" and "empty" in info.reason
        with pytest.raises(LinkError, match="no model"):
            board.infer(window())


@pytest.mark.parametrize("buf_size", [128, 160, 512, 4096])
def test_windows_travel_whole_or_in_parts(buf_size):
    x = window(1)
    with FakeBoard(buf_size) as fake, BoardClient(fake.port) as board:
        result = board.infer(x)
        frames = [r for group, command, r in fake.requests if (group, command) == (64, 1)]
    assert np.array_equal(result.logits, expected_logits(x))
    assert result.index == int(expected_logits(x).argmax()) and result.us == 1234
    assert b"".join(r["x"] for r in frames) == x.tobytes()
    assert (len(frames) > 1) == (buf_size < 160)


def test_int8_windows_are_the_upper_byte(fake):
    x = (window(2) // 256).astype(np.int8)
    with BoardClient(fake.port) as board:
        result = board.infer(x)
    assert np.array_equal(result.logits, expected_logits(x.astype(np.int16) * 256))


def test_windows_of_another_type_are_refused_before_sending():
    with pytest.raises(ModelError, match="int16"):
        window_bytes(np.zeros((2, 2), np.float32))


def test_probability_is_the_softmax_of_the_winner(fake):
    with BoardClient(fake.port) as board:
        r = board.infer(window(3))
    z = r.logits.astype(float)
    assert r.probability == pytest.approx(np.exp(z[r.index]) / np.exp(z).sum())


def test_adaptation_from_begin_to_reset(fake):
    with BoardClient(fake.port) as board:
        assert board.adapt_begin(lr=5e-3, seed=7) == (0, 4)
        losses = [board.adapt_step(window(i), i % 3).loss for i in range(4)]
        assert losses == [1.0, 0.5, pytest.approx(1 / 3), 0.25]
        saved = board.adapter_save()
        assert (saved.steps, saved.file_bytes, saved.slot) == (4, 64, "A")
        assert board.adapter_pull() == fake.adapter
        board.adapter_reset()
        with pytest.raises(LinkError, match="no adapter"):
            board.adapter_pull()
        board.adapter_push(b"TADP" + b"\x01" * 60)
    assert fake.adapter == b"TADP" + b"\x01" * 60
    begin = next(r for g, c, r in fake.requests if (g, c) == (64, 2))
    assert begin == {"lr": float(np.float32(5e-3)), "seed": 7}


def test_adapt_step_before_begin_gives_the_boards_refusal(fake):
    with BoardClient(fake.port) as board, pytest.raises(LinkError, match="refused"):
        board.adapt_step(window(), 0)


def test_unknown_option_of_adapt_begin(fake):
    with BoardClient(fake.port) as board, pytest.raises(ModelError, match="momentum"):
        board.adapt_begin(momentum=0.9)


def test_upload_reports_progress_and_arrives(fake):
    data, seen = model_file(3000), []
    with BoardClient(fake.port) as board:
        board.upload_model(data, lambda done, total: seen.append((done, total)))
        assert board.download("/model") == data
    assert fake.model == data
    assert seen[-1] == (3000, 3000) and seen == sorted(seen) and len(seen) > 5


def test_upload_that_broke_off_resumes(fake, monkeypatch):
    monkeypatch.setattr("ternio.link.client.STORAGE_TIMEOUT_S", 0.2)
    data, seen = model_file(3000), []
    fake.lose_upload_after = 1200
    with BoardClient(fake.port) as board, pytest.raises(LinkError, match="no answer"):
        board.upload_model(data)
    fake.lose_upload_after = None
    with BoardClient(fake.port) as board:
        board.upload_model(data, lambda done, total: seen.append(done))
    assert fake.model == data
    assert 700 < seen[0] <= 1200 and len(seen) < 7


def test_another_file_of_the_same_length_starts_again(fake, monkeypatch):
    monkeypatch.setattr("ternio.link.client.STORAGE_TIMEOUT_S", 0.2)
    fake.lose_upload_after = 1200
    with BoardClient(fake.port) as board, pytest.raises(LinkError):
        board.upload_model(model_file(3000, seed=1))
    fake.lose_upload_after = None
    data = model_file(3000, seed=2)
    with BoardClient(fake.port) as board:
        board.upload_model(data)
    assert fake.model == data


def test_refused_upload_keeps_the_old_model(fake):
    old = fake.model
    with BoardClient(fake.port) as board:
        with pytest.raises(LinkError, match="CRC-32 wrong"):
            board.upload_model(b"\0" * 1000)
        with pytest.raises(LinkError, match="the slot has 16384"):
            board.upload_model(bytes(20000))
        with pytest.raises(LinkError, match="empty"):
            board.upload_model(b"")
    assert fake.model == old


def test_lost_and_damaged_answers_are_asked_for_again(fake, monkeypatch):
    with BoardClient(fake.port) as board:
        monkeypatch.setattr("ternio.link.client.COMPUTE_TIMEOUT_S", 0.2)
        fake.lose = 1
        assert np.array_equal(board.infer(window(4)).logits, expected_logits(window(4)))
        fake.damage = 1
        assert np.array_equal(board.infer(window(5)).logits, expected_logits(window(5)))


def test_a_step_is_never_done_twice(fake, monkeypatch):
    with BoardClient(fake.port) as board:
        board.adapt_begin()
        monkeypatch.setattr("ternio.link.client.COMPUTE_TIMEOUT_S", 0.2)
        fake.lose = 1
        with pytest.raises(LinkError, match="no answer"):
            board.adapt_step(window(), 0)
    assert fake.steps == 1


def test_late_answers_of_an_earlier_client_are_skipped(fake):
    fake.stale = b"\x06\x09AAwCAAABAAH/BqD/GQ==\n\x04\x14AAAA\n"
    with BoardClient(fake.port) as board:
        assert board.echo("still here") == "still here"


def test_text_between_frames_is_kept(fake):
    fake.noise = b"hello from the board\r\n"
    with BoardClient(fake.port) as board:
        list(board.lines())
        assert board.echo("x") == "x"
        assert board.info().model == "demo"
        assert list(board.lines()) == ["hello from the board"] * 3


def test_telemetry_lines_and_console_answers_do_not_mix(fake):
    with BoardClient(fake.port) as board:
        board.telemetry(True)
        board.infer(window())
        board.infer(window())
        assert board.console("info") == "board=fake model=demo"
        assert [line[:17] for line in board.lines()] == ['{"event":"infer",'] * 2
        assert board.console("frobnicate").startswith("error: unknown command")
        with pytest.raises(LinkError, match="unknown command frobnicate"):
            board.command("frobnicate now")


def test_half_a_line_typed_by_someone_else_does_not_spoil_the_hello(fake):
    port = os.open(fake.port, os.O_RDWR | os.O_NOCTTY)
    os.write(port, b"half a li")
    os.close(port)
    with BoardClient(fake.port) as board:
        assert board.echo("x") == "x"
        assert list(board.lines()) == []


def test_reset_waits_for_the_banner(fake):
    with BoardClient(fake.port) as board:
        assert board.reset().startswith("ternio 0.1.0 on fake")
        assert board.info().model == "demo"


def test_silent_port_is_one_clear_line(fake):
    fake.mute = True
    with pytest.raises(LinkError) as caught:
        BoardClient(fake.port, hello_timeout_s=0.1)
    assert "no answer" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x80",
        b"\x01",
        b"\xa1",
        b"\xa1\x01\x02",
        b"\xa1\x61x\x9f\xff",
        b"\xbf\x61x",
        b"\xa1\x66labels\x01",
        b"\xa1\x63err\x01",
        b"\xa1\x63err\xa1\x65group\x01",
        b"\xa1\x62rc\x61x",
        b"\xa1\x6aheader_foo\xf6",
        b"\xa1\x66header\xf6",
        b"\xa1\x68sequence\x05",
        b"\xc0\x00" * 40,
        b"\xdb" + b"\xff" * 8,
        b"\x5b" + b"\x7f" * 8,
    ],
    ids=lambda payload: payload[:12].hex() or "empty",
)
def test_answers_that_make_no_sense_are_one_line(fake, payload):
    with BoardClient(fake.port) as board:
        fake.garbage = payload
        for ask in (board.info, lambda: board.infer(window()), lambda: board.download("/model")):
            with pytest.raises(LinkError) as caught:
                ask()
            assert "\n" not in str(caught.value)
        fake.garbage = None
        assert board.info().model == "demo"


def test_endless_text_is_bounded(fake):
    with BoardClient(fake.port) as board:
        # the line holds a few KB only: who writes waits for who reads
        writing = threading.Thread(target=fake.write_all, args=(b"x" * 200_000 + b"\nend\n",))
        writing.start()
        lines = []
        while writing.is_alive() or "end" not in lines:
            lines += board.lines(timeout_s=1.0)
            assert len(board._text) <= session.LINE_BYTES
        writing.join()
    assert lines[-1] == "end"


def test_missing_port_and_busy_port(fake):
    with pytest.raises(LinkError, match="there is no port /dev/nowhere"):
        BoardClient("/dev/nowhere")
    with BoardClient(fake.port), pytest.raises(LinkError, match="in use"):
        BoardClient(fake.port)


def test_board_that_goes_away():
    with FakeBoard() as fake:
        board = BoardClient(fake.port)
    with board, pytest.raises(LinkError, match="closed while in use"):
        board.echo("anyone?")
