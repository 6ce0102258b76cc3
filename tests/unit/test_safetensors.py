"""Weights to and from .safetensors, the file format of the model hubs."""

import json
import struct
import sys

import numpy as np
import pytest

import ternio
from ternio import nn
from ternio.checkpoint import export_safetensors, import_safetensors
from ternio.errors import ModelError
from ternio.models import Classifier, ClassifierConfig, LanguageModel, LanguageModelConfig

safetensors = pytest.importorskip("safetensors.numpy")
SMALL = {"width": 8, "heads": 2, "layers": 1, "ffn": 8}


def build(seed: int = 0, **changes) -> Classifier:
    ternio.manual_seed(seed)
    return Classifier(ClassifierConfig(2, 6, 3, **SMALL | changes))


@pytest.mark.parametrize("kind", ["classifier", "language model"])
def test_round_trip(tmp_path, kind):
    given = build() if kind == "classifier" else LanguageModel(LanguageModelConfig(9, **SMALL))
    path = tmp_path / "m.safetensors"
    assert export_safetensors(path, given) == path.stat().st_size
    found = import_safetensors(path)
    assert found.config == given.config
    for name, value in given.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], value)
    assert safetensors.load_file(path).keys() == given.state_dict().keys()
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_weights_from_elsewhere(tmp_path):
    path = tmp_path / "m.safetensors"
    state = {n: v.astype(np.float16) for n, v in build(1).state_dict().items()}
    safetensors.save_file(state, path)
    with pytest.raises(ModelError, match=r"m\.safetensors: does not say which model"):
        import_safetensors(path)
    model = build()
    assert import_safetensors(path, model) is model
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name].astype(np.float32))


@pytest.mark.parametrize(
    "module",
    [
        lambda: nn.Linear(3, 2),
        lambda: nn.BitLinear(3, 2),
        lambda: nn.Conv1d(2, 3, 4, bias=False),
        lambda: nn.Embedding(5, 3),
        lambda: nn.LayerNorm(3),
        lambda: nn.Sequential(nn.RMSNorm(4), nn.Dropout(0.1), nn.SwiGLU(4, 6)),
        lambda: nn.Block(4, nn.Attention(4, 2, qk_norm=True), nn.GEGLU(4, 6, ternary=False)),
        lambda: nn.Dropout(0.5),
    ],
)
def test_modules_of_any_kind(tmp_path, module):
    path, given, taken = tmp_path / "m.safetensors", module(), module()
    export_safetensors(path, given)
    assert import_safetensors(path, taken) is taken
    for name, value in given.state_dict().items():
        np.testing.assert_array_equal(taken.state_dict()[name], value)
    with pytest.raises(ModelError, match="does not say which model it is of; give one"):
        import_safetensors(path)


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_precisions_that_numpy_lacks(tmp_path, kind, size):
    path, model = tmp_path / "m.safetensors", nn.Linear(2, 1, bias=False)
    values = np.array([[1.5, -3.0]], np.float32)
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()[: 2 * size]
    entry = {"dtype": kind, "shape": [1, 2], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    if kind == "BF16":
        np.testing.assert_array_equal(import_safetensors(path, model).weight.numpy(), values)
    else:
        with pytest.raises(ModelError, match=r"^m\.safetensors: weight: stored as F8_E4M3"):
            import_safetensors(path, model)


@pytest.mark.parametrize("wrong", [np.float64(1e300), np.float16(np.inf), np.float32(np.nan)])
def test_values_that_are_no_weights(tmp_path, wrong):
    path, model = tmp_path / "m.safetensors", nn.Linear(2, 1, bias=False)
    safetensors.save_file({"weight": np.full((1, 2), wrong)}, path)
    with pytest.raises(ModelError, match=r"^m\.safetensors: weight: expected finite"):
        import_safetensors(path, model)


class Tied(nn.Module):
    """A weight of two names, and a layer of two."""

    def __init__(self) -> None:
        self.emb, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.emb.weight
        self.first = nn.Linear(4, 4)
        self.again = [self.first]


def test_shared_weights_come_under_any_of_their_names(tmp_path):
    """PyTorch's state_dict has them under all, files of the hubs often under one."""
    path, given, taken = tmp_path / "m.safetensors", Tied(), Tied()
    own = given.state_dict()
    assert sorted(own) == ["emb.weight", "first.bias", "first.weight"]
    both = {"head.weight": own["emb.weight"].copy(), "again.0.bias": own["first.bias"].copy()}
    other = both | {name: own[name] for name in ("first.weight", "first.bias")}
    for state in (own | both, other):
        for p in taken.parameters():
            p.fill_(0.0)
        safetensors.save_file(state, path)
        import_safetensors(path, taken)
        for name, value in taken.state_dict().items():
            np.testing.assert_array_equal(value, own[name])
    before = taken.state_dict()
    both["head.weight"][2, 1] += 1
    safetensors.save_file(own | {"emb.weight": own["emb.weight"] + 2} | both, path)
    with pytest.raises(
        ModelError, match=r"emb\.weight and head\.weight are one parameter here; their values"
    ):
        import_safetensors(path, taken)
    with pytest.raises(ModelError, match=r"missing: first\.bias; not in the model: third"):
        taken.load_state_dict({"third" if n == "first.bias" else n: v for n, v in own.items()})
    for name, value in taken.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_files_that_do_not_fit(tmp_path):
    path, model = tmp_path / "m.safetensors", build()
    export_safetensors(path, model)
    before = model.state_dict()
    for other, expected in (({"layers": 2}, "missing: blocks.1"), ({"ffn": 4}, "expected shape")):
        with pytest.raises(ModelError, match=expected):
            import_safetensors(path, build(**other))
    content = path.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for wrong in (b"", b"PK\x03\x04", content[:100], content[:-1], content + b"x"):
        bad.write_bytes(wrong)
        with pytest.raises(ModelError, match=r"bad\.safetensors: not a sound") as caught:
            import_safetensors(bad, model)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot be read"):
        import_safetensors(tmp_path / "none.safetensors", model)
    with pytest.raises(ModelError, match="cannot be written"):
        export_safetensors(tmp_path / "none" / "m.safetensors", model)
    state = before | {"head.bias": np.arange(3)}
    safetensors.save_file(state, path)
    with pytest.raises(
        ModelError, match=r"head\.bias: stored as I64; expected F16, BF16, F32, F64"
    ):
        import_safetensors(path, model)
    for config in ("{}", "[1]", "{", json.dumps(model.config.to_dict() | {"width": 4096})):
        safetensors.save_file(before, path, metadata={"format": "ternio", "model": config})
        with pytest.raises(ModelError, match=r"^m\.safetensors: "):
            import_safetensors(path)
    for name, value in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], value)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModelError, match=r"pip install 'ternio\[safetensors\]'"):
        import_safetensors(tmp_path / "m.safetensors")
