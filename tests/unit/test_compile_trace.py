"""From a Python model to a blob: the tape is lowered, and a board computes what the engine does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("ternio._engine")

from compile_models import describe
from ternio import functional as F
from ternio import lora, nn
from ternio.blob import AdapterFile
from ternio.checkpoint import Checkpoint
from ternio.compile import Options, pack_checkpoint, pack_graph
from ternio.compile.trace import engine_quantizer, trace
from ternio.context import Context
from ternio.data import InputDescription
from ternio.errors import CompileError
from ternio.models import Classifier, ClassifierConfig
from ternio.runtime import Model, Session
from ternio.tensor import Tensor

EXACT = Options(float_dtype="f32", kv="float", integer_rows=False)

CONFIGS = {
    "motion": ClassifierConfig(6, 100, 4),
    "odd": ClassifierConfig(1, 7, 2, width=40, layers=1, heads=2, kv_heads=1, ffn=24),
    "ten classes": ClassifierConfig(3, 30, 10, patch=7, width=32, heads=4, kv_heads=2, ffn=40),
    "full": ClassifierConfig(2, 16, 3, patch=2, width=32, layers=3, heads=2, causal=False, ffn=16),
    "one row": ClassifierConfig(2, 4, 5, width=16, layers=2, heads=2, ffn=16),
}


def checkpoint_of(config: ClassifierConfig, **changes) -> Checkpoint:
    values = {**config.to_dict(), **changes}
    with Context(seed=3):
        model = Classifier(ClassifierConfig.from_dict(values)).eval()
    channels = tuple(f"c{i}" for i in range(config.channels))
    scale = np.linspace(0.5, 1.0, config.channels).astype(np.float32) * 1e-3
    mean = np.linspace(-0.3, 0.4, config.channels).astype(np.float32)
    inputs = InputDescription(channels, config.length, 25.0, mean, scale * 1000, scale)
    labels = tuple(f"label {i}" for i in range(config.classes))
    return Checkpoint(model, labels, inputs, "traced")


def window_of(config: ClassifierConfig, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(-2500, 2500, (config.length, config.channels)).astype(np.int16)


def normalised(checkpoint: Checkpoint, q: np.ndarray) -> np.ndarray:
    inputs = checkpoint.inputs
    return (q * inputs.gain + inputs.shift).astype(np.float32)[None]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ternary", [True, False])
def test_the_board_answers_as_the_engine(name: str, ternary: bool) -> None:
    config = CONFIGS[name]
    checkpoint = checkpoint_of(config, ternary=ternary)
    blob = pack_checkpoint(checkpoint, EXACT)
    assert blob.labels == checkpoint.labels
    assert blob.io.patch == config.patch
    assert blob.meta["channels"] == list(checkpoint.inputs.channels)
    board = Session(Model.open(blob.encode()))
    for seed in range(3):
        q = window_of(config, seed)
        expected = checkpoint.model.predict(normalised(checkpoint, q))[0]
        tolerance = 2e-2 if ternary else 1e-4  # a value on the edge between two int8 steps may tip
        np.testing.assert_allclose(board.infer(q), expected, rtol=tolerance, atol=tolerance)
        as_usual = Session(Model.open(pack_checkpoint(checkpoint).encode()))
        far = 0.05 * max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(as_usual.infer(q), expected, atol=far)


def test_ternary_weights_are_the_engine_s_to_the_last_bit() -> None:
    checkpoint = checkpoint_of(CONFIGS["motion"])
    blob = pack_checkpoint(checkpoint)
    parameters = dict(checkpoint.model.named_parameters())
    ternary = [t for t in blob.tensors if t.dtype == "T2"]
    assert len(ternary) == 14
    for t in ternary:
        trits, gamma = engine_quantizer(parameters[f"{t.name}.weight"].numpy())
        assert (t.trits() == trits).all()
        assert t.gamma == gamma


def host_gradients(checkpoint: Checkpoint, q: np.ndarray, label: int, blob, factors) -> np.ndarray:
    """Gradients of the same factors by the engine's tape."""
    model = checkpoint.model
    with model.context:
        lora.add(model, [x.name for x in blob.adapters], rank=4, scale=2.0)
        state = {}
        for x in blob.adapters:
            a = factors[x.a : x.b].reshape(x.rank, x.inputs)
            state[f"{x.name}.a"] = a
            end = x.b + x.rank * x.outputs
            state[f"{x.name}.b"] = factors[x.b : end].reshape(x.outputs, x.rank)
        lora.load_state_dict(model, state)
        model.context.reset()
        logits = model(normalised(checkpoint, q))
        F.cross_entropy(logits, Tensor(np.array([label], np.int32))).backward()
        found = dict(model.named_parameters())
        parts = [found[f"{x.name}.{name}"].grad.reshape(-1) for x in blob.adapters for name in "ab"]
        lora.remove(model)
        return np.concatenate(parts)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("ternary", [True, False])
def test_the_board_learns_along_the_engine_s_gradient(name: str, ternary: bool) -> None:
    config = CONFIGS[name]
    checkpoint = checkpoint_of(config, ternary=ternary)
    blob = pack_checkpoint(checkpoint, EXACT)
    random = np.random.default_rng(1)
    factors = (0.1 * random.standard_normal(blob.adapter_floats)).astype(np.float32)
    q, label = window_of(config, 5), config.classes - 1
    expected = host_gradients(checkpoint, q, label, blob, factors)
    board = Session(Model.open(blob.encode()))
    board.attach(AdapterFile(blob.digest, factors, 0, 0.0).encode())
    board.adapt_begin(optimizer="sgd", lr=1.0, betas=(0.0, 0.0))
    board.adapt_step(q, label)
    moved = factors - AdapterFile.decode(board.adapter_bytes()).factors
    error = np.linalg.norm(moved - expected) / np.linalg.norm(expected)
    assert error < (0.05 if ternary else 1e-3)


def test_side_paths_on_the_host_become_slots_or_stay_as_trained() -> None:
    checkpoint = checkpoint_of(CONFIGS["odd"], ternary=False)
    model, q = checkpoint.model, window_of(CONFIGS["odd"])
    with model.context:
        lora.add(model, ["blocks.0.attention.k"], rank=2, scale=0.5)
    fresh = pack_checkpoint(checkpoint, replace(EXACT, targets=("head",)))
    assert [(x.rank, x.scale) for x in fresh.adapters] == [(2, 0.5), (4, 2.0)]
    factors = dict(model.named_parameters())["blocks.0.attention.k.b"]
    factors.numpy()[...] = 0.3
    trained = pack_checkpoint(checkpoint, replace(EXACT, targets=("head",)))
    assert [x.rank for x in trained.adapters] == [4]
    answers = [Session(Model.open(b.encode())).infer(q) for b in (fresh, trained)]
    expected = model.predict(normalised(checkpoint, q))[0]
    np.testing.assert_allclose(answers[1], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


class Net(nn.Module):
    """A body between two linear layers."""

    def __init__(self, body) -> None:
        self.embed, self.head, self.body = nn.Linear(2, 8), nn.Linear(8, 3), body

    def forward(self, x):
        h = self.embed(x if isinstance(x, Tensor) else Tensor(x))
        return self.head(F.mean_pool(self.body(h)))


class Positions(nn.Module):
    def __init__(self) -> None:
        self.table = nn.Parameter(4, 8)

    def forward(self, x):
        return x + self.table


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (F.softmax, r"^softmax \(after embed\): a board has no instruction"),
        (lambda h: h + Tensor(np.ones((1, 4, 8), np.float32)), "add .*neither computed nor the"),
        (lambda h: F.rope(h, 4, 100.0, offset=3), "rope .*positions start at 3"),
        (
            lambda h: h.reshape(1, 2, 16).reshape(1, 4, 8),
            r"reshape .*only the input may change its shape",
        ),
        (Positions, "add .*same shape"),
    ],
)
def test_what_a_board_cannot_run_is_refused_by_name(body, text: str) -> None:
    with Context():
        model = Net(body() if isinstance(body, type) else body)
        with pytest.raises(CompileError, match=text):
            trace(model, channels=2, length=4)


def test_a_plain_network_without_time_is_lowered_too() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            self.hidden, self.head = nn.BitLinear(10, 16), nn.Linear(16, 3)

        def forward(self, x):
            flat = Tensor(np.asarray(x, np.float32)).reshape(len(x), 10)
            return self.head(self.hidden(flat).relu())

    with Context(seed=2):
        graph = trace(Plain(), channels=2, length=5)
    blob = pack_graph(graph, describe(graph), Options(quantizer=engine_quantizer))
    assert all(i.op != 1 for i in blob.infer.code)
    board = Session(Model.open(blob.encode()))
    x = window_of(ClassifierConfig(2, 5, 3))
    board.adapt_begin()
    losses = [board.adapt_step(x, 1) for _ in range(20)]
    assert losses[-1] < losses[0] / 2


def test_tracing_leaves_the_model_as_it_was() -> None:
    checkpoint = checkpoint_of(CONFIGS["odd"])
    checkpoint.model.train()
    checkpoint.model.context.recording = False
    trace(checkpoint.model, 1, 7)
    assert checkpoint.model.training
    assert not checkpoint.model.context.recording
