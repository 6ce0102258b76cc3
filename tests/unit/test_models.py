"""The classifier: its configuration, what it records, and shapes that do not divide."""

import numpy as np
import pytest

import ternio
from ternio import lora
from ternio.errors import ModelError
from ternio.models import Classifier, ClassifierConfig


def build(seed: int = 0, **changes) -> Classifier:
    ternio.manual_seed(seed)
    return Classifier(ClassifierConfig(**{"channels": 3, "length": 10, "classes": 5} | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"channels": 0}, "channels is 0; expected a whole number in 1..4096"),
        ({"classes": 1}, "classes is 1; expected"),
        ({"layers": 2.5}, "layers is 2.5; expected a whole number"),
        ({"width": True}, "width is True; expected a whole number"),
        ({"patch": 11}, "patch 11 is longer than the window of 10"),
        ({"width": 62}, "width 62 with 4 heads: expected an even width per head"),
        ({"width": 12}, "width 12 with 4 heads: expected an even width per head"),
        ({"kv_heads": 3}, "kv_heads 3 does not divide heads 4"),
        ({"length": 100000, "patch": 1}, "the number of patches, exceeds 65535"),
        ({"rope_base": 0.0}, "out of range"),
    ],
)
def test_configurations_that_cannot_be(changes, expected):
    with pytest.raises(ModelError, match=expected):
        ClassifierConfig(**{"channels": 3, "length": 10, "classes": 5} | changes)


def test_configuration_as_json():
    config = ClassifierConfig(3, 10, 5, kv_heads=2, ternary=False)
    assert ClassifierConfig.from_dict(config.to_dict()) == config
    for change, expected in (
        ({"architecture": "mamba"}, "expected 'classifier'"),
        ({"experts": 8}, "'experts' is unknown"),
        ({"width": "64"}, "expected a number"),
    ):
        with pytest.raises(ModelError, match=expected):
            ClassifierConfig.from_dict(config.to_dict() | change)
    with pytest.raises(ModelError, match="incomplete configuration"):
        ClassifierConfig.from_dict({"architecture": "classifier", "channels": 3})


def test_the_reference_model_has_the_size_it_should():
    parameters, ternary = Classifier(ClassifierConfig(6, 100, 4)).count()
    assert ternary == 81920
    assert parameters == 81920 + (24 * 64 + 64) + 5 * 64 + (64 * 4 + 4)


def test_one_node_per_operation():
    model = build(layers=1)
    model.context.reset()
    model(np.zeros((1, 10, 3)))
    ops = [node.op for node in model.context.tape()]
    model.context.reset()
    attention = ["bitlinear", "rope", "bitlinear", "rope", "bitlinear", "attention", "bitlinear"]
    feed_forward = ["bitlinear", "bitlinear", "swiglu", "bitlinear"]
    block = ["rmsnorm", *attention, "add", "rmsnorm", *feed_forward, "add"]
    assert ops == ["linear", *block, "rmsnorm", "mean_pool", "linear"]


def test_the_last_patch_is_filled_up_with_zeros():
    model = build(patch=4)
    x = np.random.default_rng(0).standard_normal((2, 10, 3))
    rows = model.patches(x).numpy()
    assert rows.shape == (2, 3, 12)
    np.testing.assert_allclose(rows[1, 0], x[1, :4].ravel(), rtol=1e-6)
    np.testing.assert_allclose(rows[1, 2], [*x[1, 8:].ravel(), *[0] * 6], rtol=1e-6)
    with pytest.raises(ModelError, match=r"windows of shape \[2, 9, 3\]; expected \[n, 10, 3\]"):
        model.predict(x[:, :9])


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 40, "heads": 2},
        {"channels": 1, "length": 7, "patch": 4},
        {"layers": 1, "classes": 2, "ffn": 1},
        {"kv_heads": 1},
        {"kv_heads": 2, "causal": False},
        {"patch": 10},
        {"ternary": False, "length": 1, "patch": 1},
    ],
)
def test_odd_shapes(changes):
    model = build(**changes)
    c = model.config
    x = np.random.default_rng(1).standard_normal((3, c.length, c.channels))
    logits = model.predict(x)
    assert logits.shape == (3, c.classes)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(model.predict(x[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    assert not model.context.tape()


def test_causal_models_do_not_look_ahead():
    for causal in (True, False):
        model = build(causal=causal, ternary=False, layers=1, patch=1)
        x = np.random.default_rng(2).standard_normal((1, 10, 3))
        later = x.copy()
        later[0, 9] += 1
        block = model.blocks[0]
        rows = [block(model.patch_embed(model.patches(v))).numpy()[0] for v in (x, later)]
        model.context.reset()
        assert np.array_equal(rows[0][:9], rows[1][:9]) == causal
        assert not np.array_equal(rows[0][9], rows[1][9])


def test_lora_leaves_the_base_alone():
    model = build()
    x = np.random.default_rng(3).standard_normal((4, 10, 3))
    before, state = model.predict(x), model.state_dict()
    paths = lora.add(model, rank=2)
    assert paths == [f"blocks.{i}.attention.{n}" for i in (0, 1) for n in "qv"] + ["head"]
    np.testing.assert_array_equal(model.predict(x), before)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trainable == [f"{p}.{f}" for p in paths for f in "ab"]
    model.head.b.fill_(0.5)
    factors = lora.state_dict(model)
    changed = model.predict(x)
    assert not np.array_equal(changed, before)
    with pytest.raises(ModelError, match="already"):
        lora.add(model)
    lora.remove(model)
    np.testing.assert_array_equal(model.predict(x), before)
    assert model.state_dict().keys() == state.keys()
    lora.add(model, rank=2)
    lora.load_state_dict(model, factors)
    np.testing.assert_array_equal(model.predict(x), changed)
    factors["head.b"] = factors["head.b"][:1]
    with pytest.raises(ModelError, match=r"head\.b: expected shape"):
        lora.load_state_dict(model, factors)


def test_lora_targets_that_match_nothing():
    with pytest.raises(ModelError, match=r"no layer matches \*.query, w; there are patch_embed"):
        lora.add(build(), targets=["*.query", "w"])
    with pytest.raises(ModelError, match=r"LoRA rank 0; expected 1..64"):
        lora.add(build(), rank=0)
