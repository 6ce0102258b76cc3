"""Packed models in the C runtime: accepted, and the same numbers as in the machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compile_models import Shape, pack, transformer, window
from program_machine import Machine
from ternio.blob import AdapterFile, Blob, merge_adapter
from test_compile_programs import GRAPHS, SHAPES, some_factors

runtime = pytest.importorskip("ternio.runtime")

MODELS = {
    **GRAPHS,
    **{f"{s.name}, ternary": transformer(replace(s, ternary=True)) for s in SHAPES},
}


def session(blob: Blob, factors: np.ndarray | None = None):
    made = runtime.Session(runtime.Model.open(blob.encode()))
    if factors is not None:
        file = AdapterFile(blob.digest, factors.astype(np.float32), 7, 0.5)
        made.attach(file.encode())
    return made


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("float_dtype", ["f32", "f16", "i8"])
def test_logits_are_those_of_the_machine(name: str, float_dtype: str) -> None:
    graph = MODELS[name]
    blob = pack(graph, float_dtype=float_dtype)
    factors = some_factors(blob).astype(np.float32)
    x = window(graph, 4)
    for f in (None, factors):
        expected = Machine(blob, f).infer(x)
        np.testing.assert_allclose(session(blob, f).infer(x), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_one_step_of_sgd_moves_the_factors_along_the_gradient(name: str) -> None:
    graph = MODELS[name]
    blob = pack(graph, targets=("*",), rank=3)
    factors = some_factors(blob).astype(np.float32)
    x = window(graph, 4)
    machine = Machine(blob, factors)
    loss = machine.adapt(x, 1)
    board = session(blob, factors)
    board.adapt_begin(optimizer="sgd", lr=1.0, betas=(0.0, 0.0))
    assert board.adapt_step(x, 1) == pytest.approx(loss, rel=0.01)
    moved = AdapterFile.decode(board.adapter_bytes()).factors - factors
    scale = np.abs(machine.gradients).max()
    np.testing.assert_allclose(-moved, machine.gradients, rtol=0.02, atol=5e-3 * scale)


@pytest.mark.parametrize("name", ["every-op", f"{Shape().name}, ternary"])
def test_inference_between_steps_disturbs_nothing(name: str) -> None:
    graph = MODELS[name]
    blob = pack(graph)
    ends = []
    for infer_between in (False, True):
        board = session(blob)
        board.adapt_begin(seed=3)
        for step in range(4):
            board.adapt_step(window(graph, step), step % 2)
            if infer_between:
                board.infer(window(graph, 100 + step))
        ends.append(board.adapter_bytes())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["every-op", "two-views", f"{SHAPES[2].name}, ternary"])
def test_a_merged_blob_answers_bit_for_bit_and_learns_on(name: str) -> None:
    graph = MODELS[name]
    blob = pack(graph, targets=("*",))
    teacher = session(blob)
    teacher.adapt_begin(seed=1)
    for step in range(3):
        teacher.adapt_step(window(graph, step), 1)
    adapter = teacher.adapter_bytes()
    merged = merge_adapter(blob.encode(), adapter)
    x = window(graph, 9)
    expected = teacher.infer(x)
    student = session(Blob.decode(merged))
    assert (student.infer(x) == expected).all()
    student.adapt_begin(seed=2)
    assert (student.infer(x) == expected).all()
    losses = [student.adapt_step(x, 0) for _ in range(30)]
    assert losses[-1] < losses[0]
    twice = Blob.decode(merge_adapter(merged, student.adapter_bytes()))
    assert (session(twice).infer(x) == student.infer(x)).all()
    assert twice.meta["merged_steps"] == [3, 30]
    machine = Machine(twice, some_factors(twice))
    board = session(twice, some_factors(twice))
    machine.adapt(x, 1)
    board.adapt_begin(optimizer="sgd", lr=1.0, betas=(0.0, 0.0))
    board.adapt_step(x, 1)
    start = some_factors(twice).astype(np.float32)
    moved = AdapterFile.decode(board.adapter_bytes()).factors - start
    scale = np.abs(machine.gradients).max()
    np.testing.assert_allclose(-moved, machine.gradients, rtol=0.02, atol=1e-2 * scale)
