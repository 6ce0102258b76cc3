"""Weights to and from .safetensors, the file format of the model hubs."""

import json
import sys

import numpy as np
import pytest

import ternio
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
    with pytest.raises(ModelError, match=r"head\.bias: expected finite floating-point"):
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
