"""LoRA on the host: side paths that are trained alone, saved, loaded, merged and taken away."""

import json

import numpy as np
import pytest

import ternio
from ternio import lora, nn, optim
from ternio.checkpoint import Checkpoint, save_checkpoint
from ternio.data import Vocabulary, make_corpus
from ternio.errors import ModelError
from ternio.models import Classifier, ClassifierConfig, LanguageModel, LanguageModelConfig
from ternio.tensor import Tensor
from ternio.train import TextConfig, fit_text

X = np.random.default_rng(0).standard_normal((4, 10, 3))


def build(seed: int = 0, **changes) -> Classifier:
    ternio.manual_seed(seed)
    sizes = {"width": 16, "heads": 2, "layers": 1, "ffn": 24}
    return Classifier(ClassifierConfig(3, 10, 5, **sizes | changes)).eval()


def fill(model, seed: int = 1) -> None:
    """Factors as if they had been trained."""
    rng = np.random.default_rng(seed)
    state = lora.state_dict(model)
    lora.load_state_dict(
        model, {k: rng.normal(0, 0.3, v.shape).astype(np.float32) for k, v in state.items()}
    )


def test_scales_are_floats_of_the_engine():
    for scale in (1e39, float("inf"), float("nan")):
        with pytest.raises(ModelError, match="finite number of float32"):
            lora.add(nn.Sequential(nn.Linear(2, 2)), "*", scale=scale)


def test_every_linear_layer_can_have_factors():
    model = build()
    paths = lora.add(model, ["*"], rank=3)
    linear = [p for p, m in build().named_modules() if isinstance(m, (nn.Linear, nn.BitLinear))]
    assert paths == linear
    assert any("patch_embed" in p for p in paths) and any("down" in p for p in paths)


def test_only_factors_have_optimiser_state():
    model = build()
    lora.add(model, rank=2)
    optimizer = optim.AdamW(model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(names[id(p)] for p in optimizer.params) == sorted(lora.state_dict(model))
    state = optimizer.state_dict()
    count = sum(v.size for k, v in state.items() if k not in ("steps", "lr"))
    assert count == 2 * sum(v.size for v in lora.state_dict(model).values())


def test_saved_factors_come_back(tmp_path):
    model = build()
    base = model.predict(X)
    lora.add(model, ["q", "head"], rank=2, scale=1.5)
    fill(model)
    adapted = model.predict(X)
    path = tmp_path / "m.lora"
    assert lora.save(path, model) == path.stat().st_size
    lora.remove(model)
    np.testing.assert_array_equal(model.predict(X), base)
    assert lora.load(path, model) == ["blocks.0.attention.q", "head"]
    np.testing.assert_array_equal(model.predict(X), adapted)
    fill(model, 2)
    lora.load(path, model)  # instead of those that are there
    np.testing.assert_array_equal(model.predict(X), adapted)
    np.testing.assert_array_equal(build().predict(X), base)
    assert [p.name for p in tmp_path.iterdir()] == ["m.lora"]


def test_merged_float_layers_answer_the_same_and_come_back_to_the_bit():
    model = build(ternary=False)
    base = model.predict(X)
    lora.add(model, rank=2)
    fill(model)
    adapted, digest = model.predict(X), lora.base_digest(model)
    lora.merge(model)
    lora.merge(model)  # once is enough
    model.context.reset()
    model(X)
    assert "lora" not in [node.op for node in model.context.tape()]
    model.context.reset()
    np.testing.assert_allclose(model.predict(X), adapted, rtol=1e-4, atol=1e-5)
    assert np.abs(adapted - base).max() > 0.1
    assert lora.base_digest(model) == digest
    lora.unmerge(model)
    np.testing.assert_array_equal(model.predict(X), adapted)
    lora.merge(model)
    lora.remove(model)
    np.testing.assert_array_equal(model.predict(X), base)


def test_factors_that_come_while_merged_are_taken_up():
    """The model answers with them at once, and is the base again without them."""
    model = build(ternary=False)
    base = model.predict(X)
    lora.add(model, rank=2)
    fill(model, 1)
    lora.merge(model)
    old = model.predict(X)
    fill(model, 2)
    merged = model.predict(X)
    assert np.abs(merged - old).max() > 0.1
    lora.unmerge(model)
    np.testing.assert_allclose(merged, model.predict(X), rtol=1e-4, atol=1e-5)
    lora.merge(model)
    for layer in (model.head, model.blocks[0].attention.q):
        layer.b.numpy()[...] = 0.25
    lora.merge(model)  # factors that were edited
    edited = model.predict(X)
    with pytest.raises(ModelError, match=r"head\.b: expected finite"):
        state = lora.state_dict(model)
        lora.load_state_dict(model, state | {"head.b": np.full(state["head.b"].shape, 1e300)})
    np.testing.assert_array_equal(model.predict(X), edited)
    lora.unmerge(model)
    np.testing.assert_allclose(edited, model.predict(X), rtol=1e-4, atol=1e-5)
    assert np.abs(edited - merged).max() > 0.1
    lora.remove(model)
    np.testing.assert_array_equal(model.predict(X), base)


def test_a_merged_model_takes_no_other_weights():
    """Only its own; unmerged it takes them, and gives them back after the next merge."""
    model, other = build(ternary=False), build(ternary=False, seed=5)
    for each in (model, other):
        lora.add(each, ["head"], rank=2)
        fill(each)
    lora.merge(model)
    before = model.predict(X)
    for name in ("head.base.weight", "head.b"):
        state = model.state_dict() | {name: other.state_dict()[name] + 1}
        with pytest.raises(ModelError, match=rf"{name}: merged with .* lora.unmerge\(\)"):
            model.load_state_dict(state)
    model.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model.predict(X), before)
    lora.unmerge(model)
    model.load_state_dict(other.state_dict())
    lora.merge(model)
    lora.unmerge(model)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


def test_merged_for_good():
    model = build(ternary=False)
    lora.add(model, rank=2)
    fill(model)
    with pytest.raises(ModelError, match="its factors would be lost"):
        lora.remove(model, keep=True)
    lora.merge(model)
    adapted = model.predict(X)
    lora.remove(model, keep=True)
    assert not lora.has_factors(model)
    np.testing.assert_array_equal(model.predict(X), adapted)
    assert all(p.requires_grad for p in model.parameters())


def test_ternary_layers_are_not_merged():
    model = build()
    lora.add(model, ["head", "q"], rank=2)
    fill(model)
    before = model.predict(X)
    with pytest.raises(ModelError, match=r"blocks\.0\.attention\.q: a ternary layer cannot"):
        lora.merge(model)
    np.testing.assert_array_equal(model.predict(X), before)
    lora.remove(model)
    lora.add(model, ["head"], rank=2)  # the head is float
    lora.merge(model)


def test_files_that_do_not_fit(tmp_path):
    model = build()
    lora.add(model, rank=2)
    path = tmp_path / "m.lora"
    lora.save(path, model)
    with np.load(path) as archive:
        arrays = dict(archive)
    for other in (build(seed=1), build(layers=2), build(ternary=False, seed=3)):
        before = other.predict(X)
        with pytest.raises(ModelError, match=r"m\.lora: trained on another model"):
            lora.load(path, other)
        np.testing.assert_array_equal(other.predict(X), before)
        assert not lora.has_factors(other)
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:cut])
        with pytest.raises(ModelError, match=r"m\.lora: damaged"):
            lora.load(path, model)
    arrays["factor/head.b"] = arrays["factor/head.b"][:1]
    np.savez(tmp_path / "short.npz", **arrays)
    with pytest.raises(ModelError, match="do not fit the layers"):
        lora.load(tmp_path / "short.npz", model)
    with pytest.raises(ModelError, match="cannot be read"):
        lora.load(tmp_path / "none.lora", model)
    with pytest.raises(ModelError, match="no LoRA factors to save"):
        lora.save(path, build())


def test_a_language_model_learns_through_its_factors():
    ternio.manual_seed(0)
    text = "abcabdabe" * 60
    vocabulary = Vocabulary.characters(text)
    model = LanguageModel(
        LanguageModelConfig(len(vocabulary), 16, width=16, heads=2, layers=1, ffn=16)
    )
    lora.add(model, ["*"], rank=4)
    before = {n: p.numpy().copy() for n, p in model.named_parameters() if not p.requires_grad}
    corpus = make_corpus(text, "abc", 16, vocabulary)
    result = fit_text(model, corpus, TextConfig(steps=60, batch=8, lr=2e-2, warmup=0))
    assert result.validation[-1][1] < result.loss[0] - 0.5
    for name, value in before.items():
        np.testing.assert_array_equal(dict(model.named_parameters())[name].numpy(), value)


def test_checkpoints_hold_no_factors(tmp_path):
    model = build()
    lora.add(model, rank=2)
    with pytest.raises(ModelError, match="the model has LoRA factors"):
        save_checkpoint(tmp_path / "m.ckpt", Checkpoint(model))


class Nested(nn.Module):
    """Layers in a list, a dictionary and a tuple, and parameters in a list."""

    def __init__(self) -> None:
        self.steps = [nn.Linear(4, 8), [nn.Linear(8, 8)]]
        self.named = {"out": nn.BitLinear(8, 4)}
        self.fixed = (nn.Linear(4, 4),)
        self.gains = [nn.Parameter(4)]

    def forward(self, x):
        return self.fixed[0](self.named["out"](self.steps[1][0](self.steps[0](x)))) + self.gains[0]


def test_layers_in_lists_and_dictionaries():
    model = Nested()
    assert "gains.0" in model.state_dict() and "named.out.weight" in model.state_dict()
    with pytest.raises(ModelError, match=r"fixed\.0"):
        lora.add(model, "*")
    assert all(p.requires_grad for p in model.parameters()) and not lora.has_factors(model)
    assert lora.add(model, ["steps.*", "out"]) == ["steps.0", "steps.1.0", "named.out"]
    x = Tensor(np.ones((2, 4), np.float32))
    before = model(x).numpy().copy()
    for name, factor in lora.state_dict(model).items():
        assert factor.any() == name.endswith(".a")
    lora.remove(model)
    np.testing.assert_array_equal(model(x).numpy(), before)


def test_names_with_dots(tmp_path):
    """Of keys of dictionaries, where they are like the path of another layer too."""
    model = nn.Sequential(nn.Linear(4, 4))
    model.named = {"x.y": nn.BitLinear(4, 4), "x": {"z": nn.Linear(4, 4)}, 3: [nn.Linear(4, 4)]}
    layers = [model.named["x.y"], model.named["x"]["z"], model.named[3][0]]
    paths = ["named.x.y", "named.x.z", "named.3.0"]
    assert lora.add(model, "named.*") == paths
    assert isinstance(model.named["x.y"], lora.LoRALinear)
    lora.save(tmp_path / "m.lora", model)
    lora.remove(model)
    assert lora.load(tmp_path / "m.lora", model) == paths
    lora.remove(model)
    assert [model.named["x.y"], model.named["x"]["z"], model.named[3][0]] == layers


def test_a_layer_that_is_in_a_tuple_as_well():
    """It cannot be replaced there."""
    model = nn.Sequential(nn.Linear(4, 4))
    model.all = (model.layers[0],)
    with pytest.raises(ModelError, match=r"layers\.0: cannot be replaced"):
        lora.add(model, "layers.*")
    assert not lora.has_factors(model) and all(p.requires_grad for p in model.parameters())


def test_what_was_frozen_stays_frozen():
    """Whether factors are put on a part and taken from the whole, or the reverse."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    whole, part = model, model.layers[1]
    for layer in (model.layers[0], part.layers[0]):
        layer.weight.requires_grad = False

    def trained():
        return [name for name, p in model.named_parameters() if p.requires_grad]

    before = trained()
    for added, removed in ((part, whole), (whole, whole), (part, part)):
        lora.add(added, "*")
        assert trained() != before
        lora.remove(removed)
        assert trained() == before
    lora.add(model, "layers.1.layers.1")
    lora.remove(part)
    assert trained() == [name for name in before if name.startswith("layers.1")]
    lora.add(model, "*")
    lora.remove(model)
    assert trained() == before
    lora.remove(model)  # without factors
    assert trained() == before


@pytest.mark.parametrize(
    "options", [{"rank": 2.5}, {"scale": float("nan")}, {"targets": "nothing"}], ids=str
)
def test_what_cannot_be_added_changes_nothing(options):
    model = Nested()
    with pytest.raises(ModelError):
        lora.add(model, **{"targets": "out", **options})
    assert all(p.requires_grad for p in model.parameters()) and not lora.has_factors(model)


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        self.first = nn.Linear(3, 3)
        self.head = self.first

    def forward(self, x):
        return self.head(self.first(x))


def test_a_layer_of_two_names_gets_one_side_path():
    model, x = Twice(), Tensor(np.ones((2, 3), np.float32))
    model.first.bias.requires_grad = False
    before = model(x).numpy().copy()
    lora.add(model, "*", rank=2)
    assert model.first is model.head
    for factor in (model.first.a, model.first.b):
        factor.numpy()[...] = 0.5
    beside = model(x).numpy().copy()
    assert not np.array_equal(beside, before)
    lora.merge(model)
    np.testing.assert_allclose(model(x).numpy(), beside, rtol=1e-5)
    lora.remove(model)
    np.testing.assert_array_equal(model(x).numpy(), before)
    assert not model.first.bias.requires_grad and model.first.weight.requires_grad


def test_a_shared_weight_is_not_merged():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model.layers[1].weight = model.layers[0].weight
    lora.add(model, "layers.0")
    with pytest.raises(ModelError, match="another layer's as well"):
        lora.merge(model)


def test_damaged_files_are_refused(tmp_path):
    model, path = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), tmp_path / "x.lora"
    lora.add(model, "*", rank=np.int64(2))
    fill(model)
    lora.save(path, model)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    lora.remove(model)
    before, refused = model.state_dict(), 0
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)
        try:
            lora.load(path, model)
            lora.remove(model)
        except ModelError:
            refused += 1
            assert not lora.has_factors(model)
    assert refused > 200
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("layers", [[], "q", 3, {"layers.0": [float("inf"), 1.0]}, {"layers.0": 2}])
def test_nonsense_about_the_layers_is_refused(tmp_path, layers):
    model, path = nn.Sequential(nn.Linear(8, 8)), tmp_path / "x.lora"
    about = {"format": lora.FORMAT, "base": lora.base_digest(model), "layers": layers}
    data = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, about=data)
    with pytest.raises(ModelError, match=r"x\.lora: damaged"):
        lora.load(path, model)
