"""Programs do what the model does: infer as whole matrices, adapt as finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compile_models import Build, Shape, describe, pack, reference, transformer, window
from program_machine import Machine
from ternio.blob import Blob
from ternio.blob.format import Program
from ternio.compile import Graph, program
from ternio.compile.weights import TensorPool
from ternio.errors import CompileError

SHAPES = [
    Shape(),
    Shape(channels=1, length=7, width=40, heads=2, kv_heads=1, ffn=48, layers=1, classes=2),
    Shape(channels=3, length=20, width=32, heads=4, kv_heads=2, ffn=24, layers=3, classes=10),
    Shape(channels=2, length=12, patch=2, width=24, heads=2, kv_heads=2, ffn=40, causal=False),
    Shape(channels=5, length=9, patch=3, width=16, heads=1, kv_heads=1, ffn=8, interleaved=True),
    Shape(channels=2, length=4, patch=4, width=16, heads=2, kv_heads=2, ffn=16, classes=3),
]
FLOAT = [replace(s, ternary=False) for s in SHAPES if s.length <= 20]


def names(shape: Shape) -> str:
    return shape.name


def every_op() -> Graph:
    """Operations that no transformer above has, values used twice, a long skip connection."""
    b = Build(2, 6, 3, seed=5)
    g = b.graph
    first = b.linear(g.add("input", width=4), "first", 12)
    x = b.norm(first, "layer_norm", "layernorm")
    for n in range(2):
        q, k, v = (b.linear(x, f"{n}.{name}", 12) for name in "qkv")
        attention = {"heads": 3, "kv_heads": 3, "causal": True}
        a = g.add("attention", q, k, v, attrs=attention)
        x = g.add("add", g.add("mul", a, x), g.add("scale", x, attrs={"factor": 0.5}))
        x = g.add("add", x, x)
    x = g.add("add", g.add("gelu", x), g.add("silu", b.linear(x, "hidden", 12)))
    x = g.add("add", x, first)
    x = g.add("mul", x, g.add("relu", b.linear(x, "gate", 12)))
    pooled = g.add("mean_pool", g.add("swiglu", x, first))
    vector = b.linear(b.norm(pooled, "vector_norm"), "vector.q", 8)
    b.linear(g.add("relu", vector), "head", 3)
    return g


def two_views() -> Graph:
    """Self-attention without mask whose K and V have an adapter below them, twice in a row."""
    b = Build(1, 6, 6, seed=7)
    g = b.graph
    x = b.linear(g.add("input", width=1), "q", 8)
    for n in range(2):
        k, v = b.linear(x, f"{n}.k", 8), b.linear(x, f"{n}.v", 8)
        attention = {"heads": 2, "kv_heads": 2, "causal": False}
        x = g.add("add", x, g.add("attention", x, k, v, attrs=attention))
    b.linear(g.add("mean_pool", x), "head", 2)
    return g


GRAPHS = {
    **{s.name: transformer(s) for s in FLOAT},
    "every-op": every_op(),
    "two-views": two_views(),
}


@pytest.mark.parametrize("shape", SHAPES, ids=names)
@pytest.mark.parametrize("ternary", [False, True])
def test_infer_equals_the_model_over_whole_matrices(shape: Shape, ternary: bool) -> None:
    graph = transformer(replace(shape, ternary=ternary))
    x = window(graph)
    got = Machine(pack(graph)).infer(x)
    np.testing.assert_allclose(got, reference(graph, x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", GRAPHS)
def test_infer_of_other_graphs(name: str) -> None:
    graph = GRAPHS[name]
    x = window(graph)
    got = Machine(pack(graph, adapt=False)).infer(x)
    np.testing.assert_allclose(got, reference(graph, x), rtol=1e-6, atol=1e-7)


def some_factors(blob: Blob, seed: int = 1) -> np.ndarray:
    return 0.2 * np.random.default_rng(seed).standard_normal(blob.adapter_floats)


def loss_at(blob: Blob, factors: np.ndarray, x: np.ndarray, label: int) -> float:
    logits = Machine(blob, factors).infer(x)
    top = logits.max()
    return float(np.log(np.exp(logits - top).sum()) + top - logits[label])


def finite_differences(blob: Blob, factors: np.ndarray, x: np.ndarray, label: int, at) -> list:
    found = []
    for index in at:
        ends = []
        for sign in (1, -1):
            moved = factors.copy()
            moved[index] += sign * 1e-5
            ends.append(loss_at(blob, moved, x, label))
        found.append((ends[0] - ends[1]) / 2e-5)
    return found


def probes(blob: Blob) -> np.ndarray:
    """A few factors of each adapter, A and B."""
    random = np.random.default_rng(2)
    parts = []
    for x in blob.adapters:
        parts.append(random.integers(x.a, x.b, 2))
        parts.append(random.integers(x.b, x.b + x.rank * x.outputs, 2))
    return np.unique(np.concatenate(parts))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("targets", [("q", "v", "head"), ("*",)], ids=["qvh", "all"])
def test_gradients_equal_finite_differences(name: str, targets: tuple[str, ...]) -> None:
    graph = GRAPHS[name]
    blob = pack(graph, targets=targets, rank=2)
    x, label, factors = window(graph, 3), 1, some_factors(blob)
    machine = Machine(blob, factors)
    loss = machine.adapt(x, label)
    assert loss == pytest.approx(loss_at(blob, factors, x, label), rel=1e-9)
    at = probes(blob)
    expected = finite_differences(blob, factors, x, label, at)
    scale = np.abs(machine.gradients).max()
    assert scale > 1e-4
    np.testing.assert_allclose(machine.gradients[at], expected, rtol=2e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("name", ["every-op", "two-views", FLOAT[1].name, FLOAT[2].name])
def test_every_choice_of_cutting_and_keeping_gives_the_same_gradients(name: str) -> None:
    graph = GRAPHS[name].with_slots(("*",), 2, 2.0)
    blob = pack(graph, targets=("*",), rank=2)
    x, factors = window(graph, 3), some_factors(blob)
    machine = Machine(blob, factors)
    machine.adapt(x, 1)
    choices = list(program.choices(graph, adapting=True))
    assert len(choices) >= 4
    for choice in choices:
        other = Machine(planned_under(graph, blob, choice), factors)
        other.adapt(x, 1)
        np.testing.assert_allclose(other.gradients, machine.gradients, rtol=1e-9, atol=1e-12)


def planned_under(graph: Graph, blob: Blob, choice: program.Choice) -> Blob:
    """The blob with its adapt program laid out by one choice, not sharing infer's forward."""
    pool = TensorPool(graph, "f32")
    norm = describe(graph).normalisation()
    pool.constant("input.scale", describe(graph).input_scale)
    builder = program._Builder(graph, pool, norm, choice)
    builder.forward(adapting=True)
    builder.backward()
    planned = program._planned(builder, builder.context.listing)
    state = max(planned.bytes, blob.infer_arena)
    arena = state + program.state_bytes(blob.adapter_floats)
    encoded: Program = planned.encode(state)
    tensors = tuple(pool.tensors)
    return Blob.decode(
        replace(
            blob,
            tensors=tensors,
            adapt=encoded,
            infer=blob_infer(graph, pool, norm),
            adapt_arena=arena,
        ).encode()
    )


def blob_infer(graph: Graph, pool: TensorPool, norm: program.Normalisation) -> Program:
    """`infer` over the same tensor directory; only its window and logits matter here."""
    return program.plan_infer(graph, pool, norm).encode()


def test_ternary_gradients_are_close_to_those_of_their_float_surrogate() -> None:
    """The straight-through backward: gradients of the model with float weights gamma * trits, as
    far as the int8 activations and int16 errors let it be."""
    shape = Shape(channels=2, length=12, width=32, heads=2, kv_heads=2, ffn=32)
    graph = transformer(shape)
    surrogate = transformer(replace(shape, ternary=False))
    blob = pack(graph)
    for t in blob.tensors:
        if t.dtype == "T2":
            surrogate.params[f"{t.name}.weight"] = t.numpy()
    factors = 0.3 * some_factors(blob)
    machines = [Machine(pack(g), factors) for g in (graph, surrogate)]
    for machine in machines:
        machine.adapt(window(graph), 0)
    ours, theirs = (m.gradients for m in machines)
    assert np.linalg.norm(ours - theirs) < 0.1 * np.linalg.norm(theirs)


def test_layers_below_the_first_adapter_get_no_backward() -> None:
    graph = transformer(Shape(layers=3, length=12))
    ops_of = lambda blob: [i.op for i in blob.adapt.code]
    last_only = pack(graph, targets=("layers.2.q",))
    head_only = pack(graph, targets=("head",))
    attention_backward = 70
    assert ops_of(last_only).count(attention_backward) == 1
    assert ops_of(head_only).count(attention_backward) == 0
    assert len(head_only.adapt.code) == 3  # CROSS_ENTROPY, LORA_BWD, OPTIMIZE


def test_motion_is_as_small_as_promised() -> None:
    blob = pack(transformer(Shape()), float_dtype="f16")
    assert len(blob.encode()) <= 32 * 1024
    assert blob.infer_arena <= 24 * 1024
    assert blob.adapt_arena <= 84 * 1024
    assert blob.adapter_floats == 2320
    assert pack(transformer(Shape()), adapt=False).infer_arena <= 24 * 1024


def test_a_limit_buys_less_work() -> None:
    graph = transformer(Shape(layers=3, length=40)).with_slots(("q", "v", "head"), 4, 2.0)
    norm = describe(graph).normalisation()
    small = program.plan_both(graph, TensorPool(graph), norm)[1]
    roomy = program.plan_both(graph, TensorPool(graph), norm, limit=1 << 20)[1]
    assert roomy.bytes >= small.bytes
    assert roomy.macs <= small.macs


def test_ternary_weights_of_zeros_or_tiny_values_keep_their_meaning() -> None:
    graph = transformer(replace(SHAPES[1], ternary=True))
    graph.params["layers.0.q.weight"][:] = 0
    graph.params["layers.0.o.weight"] *= np.float32(1e-6)
    x = window(graph)
    blob = pack(graph)
    gamma = {t.name: t.gamma for t in blob.tensors}
    assert 0 < gamma["layers.0.o"] < 1e-6
    assert gamma["layers.0.q"] > 0
    np.testing.assert_allclose(Machine(blob).infer(x), reference(graph, x), rtol=1e-6, atol=1e-7)


def test_refusals_are_one_clear_line() -> None:
    graph = transformer(SHAPES[1])
    with pytest.raises(CompileError, match=r"no linear layer matches .*nothing.*the model has"):
        pack(graph, targets=("nothing",))
    with pytest.raises(CompileError, match="rank 65"):
        pack(graph, rank=65)
    with pytest.raises(CompileError, match="f8"):
        pack(graph, float_dtype="f8")
    graph.params["head.weight"][0, 0] = np.nan
    with pytest.raises(CompileError, match=r"head\.weight.*not finite"):
        pack(graph)
    no_pool = Build(1, 4, 4)
    no_pool.linear(no_pool.graph.add("input", width=1), "head", 2)
    with pytest.raises(CompileError, match="pooling"):
        pack(no_pool.graph)
