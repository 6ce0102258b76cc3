"""The golden blob means what it always meant: to Python, to the C loader, to the document."""

from __future__ import annotations

import hashlib
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from compile_models import _OPS
from program_machine import Machine
from ternio.blob import AdapterFile, Blob

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DIGEST = "963d300f1074a6f42805e6e48acbd27b52431bba5988110073d476e9e54201fa"
LOGITS = [-2.795701265335083, -4.992330551147461]
TRAINED = "0e7da09a359426d3a2eccae760b35429d01fc5569a4f739356c702b30adc77a2"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data() -> bytes:
    return (GOLDEN / "tiny.tern").read_bytes()


def test_its_bytes_never_change(data: bytes) -> None:
    assert data[0x10:0x30].hex() == DIGEST
    assert hashlib.sha256(data[0x30:]).hexdigest() == DIGEST


def test_python_reads_it(data: bytes, maker) -> None:
    blob = Blob.decode(data)
    assert blob.encode() == data
    assert (blob.name, blob.labels) == ("tiny", ("no", "yes"))
    assert (blob.io.channels, blob.io.length, blob.io.rate_hz) == (2, 6, 50.0)
    by_name = {t.name: t for t in blob.tensors}
    params = maker.tiny().params
    assert (by_name["patch"].numpy() == params["patch"]).all()
    gamma = by_name["q"].gamma
    expected = np.clip(np.rint(params["q"] / (gamma + 1e-5)), -1, 1)
    assert (by_name["q"].trits() == expected).all()
    assert [x.name for x in blob.adapters] == ["v", "head"]


def test_infer_means_the_model_s_forward(data: bytes, maker) -> None:
    blob, graph = Blob.decode(data), maker.tiny()
    values = []
    x = maker.window() * np.array([2**-9, 2**-10]) + np.array([0.125, -0.25])
    for node in graph.nodes:
        inputs = [values[v] for v in node.inputs]
        params = [graph.params[p].astype(np.float64) for p in node.params]
        done = x.reshape(3, 4) if node.op == "input" else _OPS[node.op](node, *inputs, *params)
        values.append(done)
    np.testing.assert_allclose(Machine(blob).infer(maker.window()), values[-1][0], rtol=1e-6)
    np.testing.assert_allclose(values[-1][0], LOGITS, rtol=1e-5)


def test_the_c_runtime_answers_and_learns_bit_for_bit(data: bytes, maker) -> None:
    runtime = pytest.importorskip("ternio.runtime")
    session = runtime.Session(runtime.Model.open(data))
    logits = session.infer(maker.window())
    assert logits.tobytes() == np.array(LOGITS, np.float32).tobytes()
    session.adapt_begin(seed=5)
    for label in (0, 1, 0):
        session.adapt_step(maker.window(), label)
    factors = AdapterFile.decode(session.adapter_bytes()).factors
    assert hashlib.sha256(factors.tobytes()).hexdigest() == TRAINED


def test_the_document_shows_it(data: bytes, maker) -> None:
    text = maker.DOCUMENT.read_text()
    assert maker.HEADING in text, "run tests/golden/make.py"
    shown = text[text.index(maker.HEADING) :]
    assert shown == maker.example(data), "run tests/golden/make.py"


def test_the_table_of_the_document_describes_its_header(data: bytes) -> None:
    """Offsets as section 1 of the document gives them, by hand."""
    assert data[:4] == b"TERN"
    assert struct.unpack_from("<HHI", data, 4) == (0, 2, len(data))
    digest_end, sections, infer_arena, adapt_arena = struct.unpack_from("<IIII", data, 0x30)
    blob = Blob.decode(data)
    assert (digest_end, sections) == (len(data), 8)
    assert (infer_arena, adapt_arena) == (blob.infer_arena, blob.adapt_arena)
    assert data[0x40:0x60] == b"tiny" + bytes(28)


def test_the_compiler_still_makes_it_today(data: bytes, maker) -> None:
    """Not a promise of the format: when the compiler improves, this test gets a new golden file."""
    assert maker.make().encode() == data
