"""Programs with integer rows, int8 keys and values, int8 float layers and split gates; streams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compile_models import Shape, describe, language_model, pack, reference, transformer, window
from program_machine import Machine
from ternio.blob import AdapterFile, Blob, disassemble, merge_adapter
from ternio.blob.opcodes import Op
from ternio.compile import Options, pack_graph
from ternio.errors import CompileError
from test_compile_programs import GRAPHS, SHAPES

runtime = pytest.importorskip("ternio.runtime")

TEXT = Shape(length=12, width=32, heads=4, kv_heads=2, ffn=48)
MICROBIT_ARENA = 10784
INTEGER = {"kv": "auto", "integer_rows": True, "float_dtype": "i8"}  # what `ternio pack` does
INTEGER_ROWS = {Op.TERNARY16, Op.NARROW, Op.SWIGLU_Q8, Op.NORM_Q8}


def ops_of(blob: Blob) -> list[int]:
    return [i.op for i in blob.infer.code]


def run(blob: Blob, x: np.ndarray) -> np.ndarray:
    return runtime.Session(runtime.Model.open(blob.encode())).infer(x)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
@pytest.mark.parametrize("kv", ["float", "int8"])
@pytest.mark.parametrize("float_dtype", ["f32", "i8"])
@pytest.mark.parametrize("arena", [None, 1])
def test_every_packing_means_the_model(
    shape: Shape, kv: str, float_dtype: str, arena: int | None
) -> None:
    graph = transformer(replace(shape, ternary=False))
    blob = pack(graph, adapt=False, kv=kv, float_dtype=float_dtype, arena_limit=arena)
    x = window(graph, 6)
    expected = reference(graph, x)
    got = Machine(blob).infer(x)
    far = 0.03 if (kv, float_dtype) != ("float", "f32") else 1e-6
    assert np.abs(got - expected).max() <= far * max(np.abs(expected).max(), 1)
    assert (Op.ATTENTION_Q8 in ops_of(blob)) == (kv == "int8")
    assert (Op.LINEAR_I8 in ops_of(blob)) == (float_dtype == "i8")


@pytest.mark.parametrize("name", [*GRAPHS, "motion"])
@pytest.mark.parametrize("adapt", [False, True])
def test_the_runtime_does_what_the_machine_does(name: str, adapt: bool) -> None:
    graph = GRAPHS.get(name) or transformer(Shape())
    blob = pack(graph, adapt=adapt, kv="int8", float_dtype="i8", arena_limit=1)
    x = window(graph, 4)
    expected = Machine(blob).infer(x)
    scale = max(np.abs(expected).max(), 1)
    np.testing.assert_allclose(run(blob, x), expected, rtol=5e-3, atol=2e-3 * scale)


def test_motion_fits_sixteen_kilobytes() -> None:
    graph = transformer(Shape())
    plain = pack(graph, adapt=False, kv="int8")
    small = pack(graph, adapt=False, float_dtype="i8", kv="int8", arena_limit=MICROBIT_ARENA)
    assert small.infer_arena <= MICROBIT_ARENA < plain.infer_arena
    assert pack(graph, adapt=False, **INTEGER).infer_arena <= MICROBIT_ARENA
    assert "gate.0-88" in "\n".join(disassemble(small, small.infer))
    x = window(graph, 1)
    whole = pack(graph, adapt=False, float_dtype="i8", kv="int8")
    assert run(small, x).tobytes() == run(whole, x).tobytes()


def test_the_window_lies_where_keys_will_grow() -> None:
    blob = pack(transformer(Shape()), adapt=False, kv="int8")
    stored = (i for i in blob.infer.code if i.op in (Op.QUANTIZE, Op.NARROW))
    keys = [i.dst for i in stored if i.dst >> 28 & 1]
    starts = [4 * (word & 0xFFFFFFF) for word in keys]
    window_start = 4 * blob.infer.window
    assert any(start + 32 * 24 == window_start for start in starts)


@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("kv", ["float", "int8"])
@pytest.mark.parametrize("float_dtype", ["f32", "i8"])
@pytest.mark.parametrize("rows", [False, True])
def test_streams_answer_each_token(ternary: bool, kv: str, float_dtype: str, rows: bool) -> None:
    graph = language_model(replace(TEXT, ternary=ternary))
    blob = pack(graph, kv=kv, float_dtype=float_dtype, integer_rows=rows)
    blob = Blob.decode(blob.encode())
    assert bool(INTEGER_ROWS & set(ops_of(blob))) == (rows and ternary)
    tokens = np.random.default_rng(8).integers(0, 20, TEXT.length)
    machine = Machine(blob)
    got = np.array([machine.step(int(t)) for t in tokens])
    expected = reference(graph, tokens)
    exact = (kv, float_dtype, rows) == ("float", "f32", False)
    if exact or not ternary:
        far = 1e-6 if exact else 0.03
        assert np.abs(got - expected).max() <= far * np.abs(expected).max()
    session = runtime.Session(runtime.Model.open(blob.encode()))
    board = np.array([session.step(int(t)) for t in tokens])
    np.testing.assert_allclose(board, got, rtol=5e-3, atol=5e-3 * np.abs(got).max())
    session.reset_stream()
    again = np.array([session.step(int(t)) for t in tokens])
    assert again.tobytes() == board.tobytes()


def test_arithmetic_does_not_depend_on_the_memory_of_a_board() -> None:
    graph = transformer(Shape())
    x = window(graph, 5)
    small = pack(graph, adapt=False, kv="auto", arena_limit=100)
    large = pack(graph, adapt=False, kv="auto", arena_limit=30000)
    assert small.infer_arena == large.infer_arena - 320
    assert run(small, x).tobytes() == run(large, x).tobytes()
    blobs = [pack(graph, adapt=adapt, arena_limit=n, **INTEGER) for adapt, n in ((0, 1), (1, None))]
    assert run(blobs[0], x).tobytes() == run(blobs[1], x).tobytes()
    assert Op.ATTENTION_Q8 in ops_of(pack(language_model(TEXT), **INTEGER))
    assert Op.ATTENTION in ops_of(pack(language_model(TEXT)))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
@pytest.mark.parametrize("adapter", [False, True])
def test_integer_rows_mean_the_model(shape: Shape, adapter: bool) -> None:
    graph = transformer(replace(shape, ternary=True))
    blob = pack(graph, **INTEGER)
    exact = pack(graph, float_dtype="i8")
    assert set(ops_of(blob)) >= INTEGER_ROWS | {Op.LORA16, Op.ROPE16}
    assert not INTEGER_ROWS & set(ops_of(exact))
    x = window(graph, 6)
    factors = None
    if adapter:
        factors = np.random.default_rng(2).standard_normal(blob.adapter_floats) * 0.2
        factors = factors.astype(np.float32).astype(np.float64)
    machine = Machine(blob, factors)
    got, near = machine.infer(x), Machine(exact, factors).infer(x)
    scale = max(np.abs(near).max(), 1)
    assert np.abs(got - near).max() <= 0.08 * scale
    again = Machine(Blob.decode(blob.encode()), factors).infer(x)
    assert (got == again).all()
    session = runtime.Session(runtime.Model.open(blob.encode()))
    if adapter:
        made = AdapterFile(blob.digest, factors.astype(np.float32), 1, 0.5)
        session.attach(made.encode())
        merged = Blob.decode(merge_adapter(blob.encode(), made.encode()))
        assert run(merged, x).tobytes() == session.infer(x).tobytes()
    np.testing.assert_allclose(session.infer(x), got, rtol=5e-3, atol=5e-3 * scale)


def test_rows_stay_floats_where_a_reader_wants_floats() -> None:
    graph = transformer(Shape())
    blob = pack(graph, adapt=True, targets=("o", "down"), **INTEGER)
    code = ops_of(blob)
    assert Op.LORA in code
    assert Op.LORA16 not in code
    assert Op.SWIGLU in code  # `down` has a slot, which reads floats
    assert Op.SWIGLU_Q8 not in code
    assert Op.ROPE16 in code
    x = window(graph, 1)
    np.testing.assert_allclose(run(blob, x), Machine(blob).infer(x), rtol=5e-3, atol=0.02)
    float_keys = ops_of(pack(graph, adapt=False, **{**INTEGER, "kv": "float"}))
    assert Op.ROPE in float_keys
    assert {Op.NORM_Q8, Op.SWIGLU_Q8} <= set(float_keys)


def test_text_fits_the_memory_of_a_small_board() -> None:
    shape = Shape(length=128, width=128, layers=4, kv_heads=2, ffn=256)
    blob = pack(language_model(shape, 96), **INTEGER)
    assert blob.infer_arena <= 88 * 1024
    assert len(blob.encode()) <= 192 * 1024


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
@pytest.mark.parametrize("options", [{"kv": "int8"}, INTEGER], ids=["int8 keys", "integers"])
def test_adapting_goes_on_from_integers_in_floats(shape: Shape, options: dict) -> None:
    graph = transformer(shape)
    exact, short = pack(graph), pack(graph, **options)
    assert len(short.adapt.code) < len(exact.adapt.code) + len(exact.infer.code)
    factors = 0.2 * np.random.default_rng(3).standard_normal(exact.adapter_floats)
    machines = [Machine(blob, factors) for blob in (exact, short)]
    losses = [m.adapt(window(graph, 3), 1) for m in machines]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    one, other = (m.gradients for m in machines)
    assert one @ other > 0.98 * np.linalg.norm(one) * np.linalg.norm(other)


def test_what_cannot_be_held_as_int8_is_said() -> None:
    long = transformer(Shape(length=600, patch=1, layers=1))
    with pytest.raises(CompileError, match="at most 512 rows"):
        pack(long, kv="int8")
    assert Op.ATTENTION in ops_of(pack(long, adapt=False, arena_limit=1000))
    with pytest.raises(CompileError, match="'int4': one of auto, float, int8"):
        pack(long, kv="int4")


@pytest.mark.parametrize("adapt", [False, True])
def test_merged_rows_change_nothing_but_the_layout(adapt: bool) -> None:
    graph = transformer(SHAPES[2])
    plain, merged = (pack(graph, adapt=adapt, merge_rows=m) for m in (False, True))
    kinds = [t.dtype for t in merged.tensors]
    assert "T2D" in kinds
    assert "T2" not in kinds
    x = window(graph, 2)
    assert run(plain, x).tobytes() == run(Blob.decode(merged.encode()), x).tobytes()
    assert Machine(merged).infer(x) == pytest.approx(Machine(plain).infer(x), abs=0)
    if adapt:
        sessions = [runtime.Session(runtime.Model.open(b.encode())) for b in (plain, merged)]
        for session in sessions:
            session.adapt_begin()
        for label in (0, 1, 2):
            losses = [session.adapt_step(x, label) for session in sessions]
            assert losses[0] == losses[1]


def test_streams_are_refused_in_one_line() -> None:
    graph = language_model(TEXT)
    with pytest.raises(CompileError, match="20 outputs"):
        pack_graph(graph, describe(transformer(Shape())), Options(adapt=False))
    with pytest.raises(CompileError, match="cannot adapt"):
        pack(graph, adapt=True)
    graph = language_model(TEXT)
    at = next(i for i, n in enumerate(graph.nodes) if n.op == "attention")
    attrs = {**graph.nodes[at].attrs, "causal": False}
    graph.nodes[at] = replace(graph.nodes[at], attrs=attrs)
    with pytest.raises(CompileError, match="still to come"):
        pack(graph)
