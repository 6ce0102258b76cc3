"""ternio.runtime: the same runtime behind Python's manners."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from device_example import example, windows
from device_harness import Machine
from device_stream import CONTEXT, language_model

from ternio import runtime
from ternio.errors import BlobError, DataError, RuntimeFault

BLOB = example().build()


@pytest.fixture
def session() -> runtime.Session:
    return runtime.Session(runtime.Model.open(BLOB))


def test_model_says_what_it_is(tmp_path):
    path = tmp_path / "example.tern"
    path.write_bytes(BLOB)
    model = runtime.Model.open(path)
    assert (model.name, model.labels) == ("example", ("class 0", "class 1", "class 2"))
    assert (model.channels, model.length, model.outputs) == (3, 18, 3)
    assert model.digest == BLOB[0x10:0x30] and model.can_adapt
    np.testing.assert_array_equal(model.input_scale, [0.5, 0.5, 0.5])
    assert model.sample_rate_hz == 50.0


def test_logits_are_those_of_the_library(library, session):
    machine = Machine(library, example())
    for window in windows(4):
        got = session.infer(window.reshape(18, 3))
        np.testing.assert_array_equal(got, machine.infer(window))


def test_training_and_its_adapter_are_those_of_the_library(library, session):
    machine = Machine(library, example())
    machine.begin(lr=0.02, beta1=0.8, seed=3)
    session.adapt_begin(lr=0.02, betas=(0.8, 0.999), seed=3)
    for k, window in enumerate(windows(6)):
        assert session.adapt_step(window, k % 3) == machine.step(window, k % 3)[1]
    assert session.adapter_bytes() == machine.export()
    assert session.steps == 6 and session.adapting and session.has_adapter


def test_attach_and_detach(session):
    window = windows(1)[0]
    base = session.infer(window)
    session.adapt_begin("sgd", lr=0.05, seed=1)
    for _ in range(5):
        session.adapt_step(window, 1)
    trained, adapter = session.infer(window), session.adapter_bytes()
    session.detach()
    np.testing.assert_array_equal(session.infer(window), base)
    session.attach(adapter)
    np.testing.assert_array_equal(session.infer(window), trained)
    assert not np.array_equal(base, trained)
    with pytest.raises(BlobError, match="CRC-32"):
        session.attach(adapter[:-1] + bytes([adapter[-1] ^ 1]))
    np.testing.assert_array_equal(session.infer(window), trained)
    assert session.adapter_bytes() == adapter


def test_int8_windows_are_upper_bytes(session):
    window = (windows(1)[0] // 256).astype(np.int8)
    want = session.infer(window.astype(np.int16) * 256)
    np.testing.assert_array_equal(session.infer(window), want)


def test_quantize_saturates_and_refuses_gaps():
    model = runtime.Model.open(BLOB)
    raw = np.zeros((18, 3))
    raw[0] = [1e6, -1e6, 0.26]
    got = model.quantize(raw)
    assert got.dtype == np.int16 and got[0].tolist() == [32767, -32767, 1]
    raw[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        model.quantize(raw)
    with pytest.raises(DataError, match="18 x 3"):
        model.quantize(np.zeros((18, 2)))


@pytest.mark.parametrize(
    ("blob", "text"),
    [
        (b"", "shorter"),
        (BLOB[:-16], "shorter"),
        (BLOB[:-1] + b"\x55", "CRC-32"),
        (b"NOPE" + BLOB[4:], "not a ternio file"),
    ],
)
def test_bad_blobs_raise_one_line(blob, text):
    with pytest.raises(BlobError, match=text) as caught:
        runtime.Model.open(blob)
    assert "\n" not in str(caught.value)


def test_missing_file():
    with pytest.raises(BlobError, match="No such file"):
        runtime.Model.open("/nowhere/model.tern")


def test_wrong_calls_raise_one_line(session):
    window = windows(1)[0]
    with pytest.raises(RuntimeFault, match="out of order"):
        session.adapt_step(window, 0)
    with pytest.raises(RuntimeFault, match="out of order"):
        session.adapter_bytes()
    with pytest.raises(RuntimeFault, match="finite or out of range"):
        session.adapt_begin(lr=-1)
    with pytest.raises(RuntimeFault, match="adam, sgd"):
        session.adapt_begin("chuck")
    with pytest.raises(DataError, match="18 x 3"):
        session.infer(window[:-1])
    with pytest.raises(DataError, match="float64"):
        session.infer(window.astype(float))
    session.adapt_begin()
    with pytest.raises(DataError, match=r"0 \.\. 2"):
        session.adapt_step(window, 3)
    with pytest.raises(RuntimeFault, match="arena"):
        runtime.Session(session.model, arena_bytes=16)


def test_models_and_sessions_outlive_their_names():
    """The blob and the arena stay in place for as long as anything points at them."""
    session = runtime.Session(runtime.Model.open(bytes(BLOB)))
    want = session.infer(windows(1)[0])
    noise = [np.full(len(BLOB), 255, np.uint8) for _ in range(50)]
    np.testing.assert_array_equal(session.infer(windows(1)[0]), want)
    assert noise


def test_classify():
    best, probabilities = runtime.classify([0.0, 2.0, 2.0])
    assert best == 1
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-6)


@pytest.fixture
def stream() -> runtime.Session:
    return runtime.Session(runtime.Model.open(language_model().build()))


def test_a_language_model_says_what_it_is(stream):
    model = stream.model
    assert (model.kind, model.length, model.outputs, model.labels) == ("tokens", CONTEXT, 8, ())
    assert not model.can_adapt and model.input_scale.size == 0 and model.infer_work > 3000
    assert model.tokens("a b\N{EURO SIGN}z") == [2, 1, 3, 5, 7]
    assert model.text([2, 1, 5, 7]) == "a \N{EURO SIGN}\N{REPLACEMENT CHARACTER}"
    with pytest.raises(DataError, match="not text"):
        runtime.Model.open(BLOB).tokens("a")


def test_steps_are_those_of_the_library(library, stream):
    machine = Machine(library, language_model())
    for k, token in enumerate([1, 5, 2, 2]):
        assert stream.position == k
        np.testing.assert_array_equal(stream.step(token), machine.feed(token)[1])
    stream.reset_stream()
    assert stream.position == 0
    with pytest.raises(DataError, match=r"0 \.\. 7"):
        stream.step(8)
    with pytest.raises(RuntimeFault, match="window for a model of tokens"):
        stream.infer(np.zeros(CONTEXT, np.int16))
    for _ in range(CONTEXT):
        stream.step(0)
    with pytest.raises(RuntimeFault, match="context is full"):
        stream.step(0)


def test_generation_goes_on_from_the_last_half_of_a_full_context(stream):
    settings = {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "seed": 4}
    got = list(itertools.islice(stream.generate([1, 2, 3], runtime.Sampler(**settings)), 40))
    text, sampler = [1, 2, 3], runtime.Sampler(**settings)
    start = 0  # of what the context holds
    for token in got:
        session = runtime.Session(stream.model)
        for known in text[start:]:
            logits = session.step(known)
        assert token == sampler(logits[: stream.model.choices])
        text.append(token)
        if len(text) - start > CONTEXT:
            start = len(text) - 1 - CONTEXT // 2
    assert len(set(got)) > 3


def test_sampler_refuses_settings_out_of_range():
    for wrong in (
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"temperature": 1e39},
    ):
        with pytest.raises(DataError, match="expected temperature"):
            runtime.Sampler(**wrong)
