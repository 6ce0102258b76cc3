"""BoardClient with the real firmware: the same bits as here, telemetry, models in turn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternio.errors import LinkError
from ternio.link.client import BoardClient
from ternio.link.teach import step_order, teach
from ternio.runtime import Model, Session


def windows(count: int) -> np.ndarray:
    values = np.random.default_rng(5).integers(-20000, 20000, (count, 20, 3))
    return values.astype(np.int16)


@pytest.fixture
def client(running, blob):
    with BoardClient(running.port) as opened:
        opened.upload_model(blob)
        yield opened


def test_info_says_what_the_blob_says(client, blob):
    info, model = client.info(), Model.open(blob)
    assert info.digest == model.digest.hex() and info.blob_bytes == len(blob)
    assert (info.channels, info.length, info.outputs) == (3, 20, 3)
    assert info.labels == ("sit", "walk", "run") == model.labels
    assert np.array_equal(info.input_scale, model.input_scale)
    assert (info.infer_arena, info.adapt_arena) == (model.infer_arena, model.adapt_arena)
    assert client.channel_names() == model.channel_names() == ("x", "y", "z")
    assert info.rate_hz == 25.0 and info.adapter == "none" and info.slot_bytes >= len(blob)


def test_logits_are_those_of_the_runtime_here_bit_for_bit(client, blob):
    session = Session(Model.open(blob))
    for window in windows(5):
        answer = client.infer(window)
        assert answer.logits.tobytes() == session.infer(window).tobytes()
        assert answer.index == answer.logits.argmax() and answer.us >= 0
    coarse = (windows(1)[0] // 256).astype(np.int8)
    assert client.infer(coarse).logits.tobytes() == session.infer(coarse).tobytes()


def test_adapters_are_those_of_the_runtime_here_bit_for_bit(client, blob):
    x, y = windows(6), np.array([0, 1, 2, 0, 1, 2])
    session = Session(Model.open(blob))
    session.adapt_begin(lr=0.01, seed=9)
    losses = [session.adapt_step(x[i], int(y[i])) for i in step_order(6, 15, 9)]
    before = client.infer(x[0]).logits
    log = teach(client, x, y, 15, 0.01, 9)
    assert [step.loss for step in log] == losses
    assert [step.step for step in log] == list(range(1, 16))
    assert client.adapter_pull() == session.adapter_bytes()
    assert client.adapter_save().steps == 15
    pulled = client.adapter_pull()
    assert client.infer(x[0]).logits.tobytes() == session.infer(x[0]).tobytes()
    client.adapter_reset()
    assert client.infer(x[0]).logits.tobytes() == before.tobytes()
    client.adapter_push(pulled)
    assert client.info().adapter == "attached" and client.info().steps == 15
    assert client.infer(x[0]).logits.tobytes() == session.infer(x[0]).tobytes()


def test_a_new_model_takes_the_place_of_the_old(client, other_blob):
    progress = []
    client.upload_model(other_blob, lambda done, total: progress.append((done, total)))
    assert client.info().model == "small2"
    assert progress[-1] == (len(other_blob), len(other_blob))
    assert client.download("/model") == other_blob


def test_an_adapter_of_another_model_is_refused(client, other_blob):
    teach(client, windows(1), np.array([0]), 1, 0.01, 0)
    client.adapter_save()
    adapter = client.adapter_pull()
    client.upload_model(other_blob)
    with pytest.raises(LinkError, match="refused") as caught:
        client.adapter_push(adapter)
    assert "\n" not in str(caught.value)
    assert client.info().adapter == "none"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty header", "too large"])
def test_bad_models_are_refused_and_the_old_one_answers(client, blob, damage):
    first = client.infer(windows(1)[0]).logits
    bad = {
        "truncated": blob[:-16],
        "flipped": blob[:300] + bytes([blob[300] ^ 1]) + blob[301:],
        "empty header": bytes(len(blob)),
        "too large": blob + bytes(client.info().slot_bytes),
    }[damage]
    with pytest.raises(LinkError, match="refused"):
        client.upload_model(bad)
    assert client.info().model == "small1"
    assert client.infer(windows(1)[0]).logits.tobytes() == first.tobytes()


def test_an_upload_that_broke_off_goes_on(client, other_blob):
    def stop_half_way(done: int, total: int) -> None:
        if done > total // 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        client.upload_model(other_blob, stop_half_way)
    assert client.info().model == "small1"
    offsets = []
    client.upload_model(other_blob, lambda done, total: offsets.append(done))
    assert client.info().model == "small2"
    assert offsets[0] > len(other_blob) // 2


def test_telemetry_lines_come_between_frames_and_stop(client):
    client.telemetry(True)
    x = windows(3)
    answers = [client.infer(window) for window in x]
    teach(client, x, np.array([0, 1, 2]), 2, 0.01, 0)
    events = [json.loads(line) for line in client.lines(timeout_s=0.5)]
    infers = [event for event in events if event["event"] == "infer"]
    assert [event["index"] for event in infers] == [answer.index for answer in answers]
    for event, answer in zip(infers, answers, strict=True):
        assert event["p"] == pytest.approx(answer.probability, abs=2e-4)
        assert event["us"] == answer.us
    assert [event["step"] for event in events if event["event"] == "adapt"] == [1, 2]
    client.telemetry(False)
    client.infer(x[0])
    assert list(client.lines(timeout_s=0.2)) == []


def test_console_and_frames_agree(client):
    x = windows(1)[0]
    answer = client.infer(x)
    label = client.info().labels[answer.index]
    assert client.console("infer").startswith(f"class={label} p={answer.probability:.3f}"[:-1])
    assert client.console("labels") == "0=sit 1=walk 2=run"
    assert client.console("nonsense").startswith("error: ")
    with pytest.raises(LinkError, match="waits for byte 18"):
        client.infer(x[:3])
