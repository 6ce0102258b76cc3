"""Checkpoints: what goes in comes out, and nothing that is damaged or foreign is taken for one."""

import json
import random

import numpy as np
import pytest

from ternio import data
from ternio.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ternio.data import InputDescription
from ternio.errors import ModelError
from ternio.models import Classifier, ClassifierConfig


def make() -> Checkpoint:
    config = ClassifierConfig(2, 6, 3, patch=2, width=8, layers=1, heads=2, ffn=8)
    inputs = InputDescription(
        ("a", "b"), 6, 25.0, *(np.float32(v) for v in ([1, 2], [3, 4], [0.1, 1 / 3]))
    )
    loss = np.float32([2.0, 1.0])
    return Checkpoint(
        Classifier(config), ("x", "y", "z"), inputs, "tiny", loss, {"seed": 1}, {"lr": 0.1}
    )


def test_round_trip(tmp_path):
    given = make()
    path = tmp_path / "m.ckpt"
    assert save_checkpoint(path, given) == path.stat().st_size
    found = load_checkpoint(path)
    x = np.random.default_rng(0).standard_normal((3, 6, 2))
    np.testing.assert_array_equal(found.model.predict(x), given.model.predict(x))
    assert (found.labels, found.name, found.report) == (("x", "y", "z"), "tiny", {"seed": 1})
    assert found.training == {"lr": 0.1}
    assert found.config == given.config
    assert (found.inputs.channels, found.inputs.rate_hz) == (("a", "b"), 25.0)
    np.testing.assert_array_equal(found.inputs.input_scale, given.inputs.input_scale)
    np.testing.assert_array_equal(found.loss, given.loss)
    assert not found.model.training
    assert [p.name for p in tmp_path.iterdir()] == ["m.ckpt"]


def test_unwritable(tmp_path):
    with pytest.raises(ModelError, match="cannot be written"):
        save_checkpoint(tmp_path / "none" / "m.ckpt", make())


def test_truncated_and_corrupted_files(tmp_path):
    path = tmp_path / "m.ckpt"
    save_checkpoint(path, make())
    content = path.read_bytes()
    bad = tmp_path / "bad.ckpt"
    for cut in (0, 3, 4, 100, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:cut])
        with pytest.raises(ModelError, match=r"bad\.ckpt") as caught:
            load_checkpoint(bad)
        assert "\n" not in str(caught.value)
    rng = random.Random(0)
    given = load_checkpoint(path).model.state_dict()
    for _ in range(150):
        at = rng.randrange(len(content))
        changed = content[at] ^ (1 << rng.randrange(8))
        bad.write_bytes(content[:at] + bytes([changed]) + content[at + 1 :])
        try:
            found = load_checkpoint(bad)
        except ModelError:
            continue
        for name, value in found.model.state_dict().items():
            np.testing.assert_array_equal(value, given[name])


def test_foreign_files(tmp_path):
    for name, content in (("a.txt", b"hello"), ("a.pkl", b"\x80\x04K\x01."), ("b.tern", b"TERN")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="not a ternio checkpoint"):
            load_checkpoint(tmp_path / name)
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    with pytest.raises(ModelError, match="not a ternio checkpoint"):
        load_checkpoint(tmp_path / "data.npz")
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_python_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(tmp_path / "m.ckpt.npz", checkpoint=np.array([Bomb()], dtype=object))
    with pytest.raises(ModelError, match="damaged"):
        load_checkpoint(tmp_path / "m.ckpt.npz")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": "other"}, "not a ternio checkpoint"),
        ({"version": 2}, "checkpoint version 2; this ternio reads 1"),
        ({"labels": ["x", "y"]}, "2 labels for 3 outputs"),
        ({"labels": ["x", "y", "y"]}, "3 labels for 3 outputs"),
        ({"labels": None}, "lacks or garbles"),
        ({"report": None}, "lacks or garbles"),
        ({"model": {"architecture": "mamba"}}, "this version knows classifier, language_model"),
        ({"model": 3}, "lacks or garbles"),
        ({"inputs": {}}, "input description"),
        ({"inputs.length": 7}, "the input description does not fit the model"),
        ({"inputs.std": [1, 0]}, "must be above 0"),
        ({"model.width": 4096, "model.ffn": 16384}, "a larger model than the file holds"),
        ({"model.layers": 0}, "layers is 0"),
        ({"model.classes": 4, "labels": list("wxyz")}, r"head\.weight: expected shape \[4, 8\]"),
    ],
)
def test_inconsistent_files(tmp_path, change, expected):
    path = tmp_path / "m.ckpt"
    save_checkpoint(path, make())
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(arrays["checkpoint"].tobytes())
    for name, value in change.items():
        section, _, key = name.partition(".")
        if key:
            about[section][key] = value
        else:
            about[section] = value
    arrays["checkpoint"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ModelError, match=expected):
        load_checkpoint(path)


def test_not_finite_weights_are_refused(tmp_path):
    given = make()
    given.model.head.weight.fill_(np.nan)
    save_checkpoint(tmp_path / "m.ckpt", given)
    with pytest.raises(ModelError, match=r"head\.weight: expected finite"):
        load_checkpoint(tmp_path / "m.ckpt")


def test_reference_inputs_survive(tmp_path):
    train, _ = data.basic_motions()
    inputs = InputDescription.from_training(train)
    again = InputDescription.from_dict(json.loads(json.dumps(inputs.to_dict())))
    for name in ("mean", "std", "input_scale"):
        np.testing.assert_array_equal(getattr(again, name), getattr(inputs, name))
