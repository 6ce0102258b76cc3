"""Every forward instruction against NumPy in double precision, or in exact integers."""

from __future__ import annotations

import numpy as np
import pytest
from device_assembler import ACC, STEP, Assembler, f32, instruction
from device_harness import Machine

RNG = np.random.default_rng(7)
TOLERANCE = dict(rtol=3e-6, atol=3e-6)


def floats(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype("f4")


def run(library, asm, program, puts=()):
    """Runs a program over an arena with `puts` (operand, values) in place."""
    asm.infer = program
    machine = Machine(library, asm)
    for operand, values in puts:
        machine.put(operand, values)
    machine.infer()
    return machine


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


UNARY = {
    "SILU": lambda x: x * sigmoid(x),
    "GELU": gelu,
    "RELU": lambda x: np.maximum(x, 0),
    "COPY": lambda x: x,
}
BINARY = {
    "ADD": lambda a, b: a + b,
    "MUL": lambda a, b: a * b,
    "SWIGLU": lambda a, b: a * sigmoid(a) * b,
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("in_place", [False, True])
def test_unary(library, op, in_place):
    asm = Assembler()
    n, rows = 7, 5
    a = asm.room(n * rows)
    dst = a if in_place else asm.room(n * rows)
    x = np.concatenate([floats(n * rows - 4, scale=3), np.float32([0, -0.0, 40, -40])])
    code = [instruction("LOOP", n=(rows, 1)), instruction(op, dst | STEP, a | STEP, n=(n,))]
    got = run(library, asm, code, [(a, x)]).view(dst, n * rows)
    np.testing.assert_allclose(got, UNARY[op](x.astype(float)), **TOLERANCE)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("target", ["other", "a", "b"])
def test_binary(library, op, target):
    asm = Assembler()
    n, rows = 6, 3
    a, b, other = asm.room(n * rows), asm.room(n), asm.room(n * rows)
    dst = {"other": other | STEP, "a": a | STEP, "b": b}[target]
    x, y = floats(rows, n), floats(n)
    code = [instruction("LOOP", n=(rows, 1)), instruction(op, dst, a | STEP, b, n=(n,))]
    machine = run(library, asm, code, [(a, x), (b, y)])
    if target == "b":
        for row in x.astype(float):
            y = BINARY[op](row, y.astype(float))
        np.testing.assert_allclose(machine.view(b, n), y, **TOLERANCE)
    else:
        want = BINARY[op](x.astype(float), y.astype(float))
        np.testing.assert_allclose(machine.view(dst, n * rows).reshape(rows, n), want, **TOLERANCE)


def test_scale_copy_zero_accumulate(library):
    asm = Assembler()
    a, dst, blank = asm.room(5), asm.room(5), asm.room(6)
    x, y = floats(5), floats(5)
    code = [
        instruction("SCALE", dst, a, n=(5,), flags=ACC, imm=f32(-0.75)),
        instruction("COPY", dst, a, n=(5,), flags=ACC),
        instruction("ZERO", blank, n=(2, 3)),
    ]
    machine = run(library, asm, code, [(a, x), (dst, y), (blank, np.ones(6))])
    np.testing.assert_array_equal(machine.view(dst, 5), y + x * np.float32(-0.75) + x)
    np.testing.assert_array_equal(machine.view(blank, 6), 0)


@pytest.mark.parametrize(("channels", "length", "patch"), [(3, 10, 4), (1, 7, 3), (6, 8, 2)])
def test_input_normalises_and_pads(library, channels, length, patch):
    rows, width = -(-length // patch), patch * channels
    asm = Assembler(channels, length)
    gain, shift = floats(channels), floats(channels)
    b, c = asm.f32(gain), asm.f32(shift)
    dst = asm.room(rows * width)
    operands = (dst | STEP, asm.input | STEP, b, c)
    asm.infer = [
        instruction("LOOP", n=(rows, 1)),
        instruction("INPUT", *operands, n=(width, channels), imm=channels * length),
    ]
    machine = Machine(library, asm)
    machine.put(dst, np.full(rows * width, np.nan))
    window = RNG.integers(-32768, 32768, (length, channels)).astype("i2")
    machine.infer(window)
    got = machine.view(dst, rows * width)
    want = (window.astype("f4") * gain + shift).ravel()
    np.testing.assert_array_equal(got[: want.size], want)
    np.testing.assert_array_equal(got[want.size :], 0)


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
@pytest.mark.parametrize("bias", ["none", "f32", "f16"])
def test_linear(library, dtype, bias):
    asm = Assembler()
    inputs, outputs = 13, 9
    if dtype == "i8":
        q, scale = RNG.integers(-128, 128, (outputs, inputs)), floats(outputs, scale=0.01)
        b, w = asm.i8(q, scale), q * scale.astype(float)[:, None]
    else:
        w = floats(outputs, inputs)
        if dtype == "f16":
            w[0, :4] = [6e-8, -3e-5, 65504, 0]  # subnormal and largest halves
            w = w.astype("f2").astype("f4")
        b = getattr(asm, dtype)(w)
    beta = floats(outputs).astype("f2").astype("f4")
    c = 0 if bias == "none" else getattr(asm, bias)(beta)
    a, dst = asm.room(inputs), asm.room(outputs)
    x = floats(inputs)
    code = [instruction("LINEAR", dst, a, b, c, n=(inputs, outputs))]
    got = run(library, asm, code, [(a, x)]).view(dst, outputs)
    want = w.astype(float) @ x.astype(float) + (0 if bias == "none" else beta)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_lora_with_tensors(library, dtype):
    asm = Assembler()
    inputs, outputs, rank = 10, 7, 3
    a_w, b_w = floats(rank, inputs).astype("f2"), floats(outputs, rank).astype("f2")
    store = getattr(asm, dtype)
    ta, tb = store(a_w), store(b_w)
    x, y = floats(inputs), floats(outputs)
    a, dst, z = asm.room(inputs), asm.room(outputs), asm.room(rank)
    code = [
        instruction("LORA", dst, a, ta, tb, z, n=(inputs, outputs, rank), imm=f32(1.5)),
    ]
    got = run(library, asm, code, [(a, x), (dst, y)]).view(dst, outputs)
    want = y + 1.5 * (b_w.astype(float) @ (a_w.astype(float) @ x))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gain", ["none", "f32", "f16"])
def test_rmsnorm(library, gain):
    asm = Assembler()
    n = 11
    g = floats(n).astype("f2").astype("f4")
    b = 0 if gain == "none" else getattr(asm, gain)(g)
    a, dst = asm.room(n), asm.room(n)
    x = floats(n, scale=2)
    code = [instruction("RMSNORM", dst, a, b, n=(n,), imm=f32(1e-6))]
    got = run(library, asm, code, [(a, x)]).view(dst, n)
    want = x / np.sqrt(np.mean(x.astype(float) ** 2) + 1e-6) * (1 if gain == "none" else g)
    np.testing.assert_allclose(got, want, **TOLERANCE)


@pytest.mark.parametrize("bias", [False, True])
def test_layernorm(library, bias):
    asm = Assembler()
    n = 12
    g, beta = floats(n), floats(n)
    b, c = asm.f32(g), asm.f32(beta) if bias else 0
    a = asm.room(n)
    x = floats(n, scale=2) + 3
    code = [instruction("LAYERNORM", a, a, b, c, n=(n,), imm=f32(1e-5))]
    got = run(library, asm, code, [(a, x)]).view(a, n)
    d = x.astype(float)
    want = (d - d.mean()) / np.sqrt(d.var() + 1e-5) * g + (beta if bias else 0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def rope(x, frequency, t, head, interleaved, back=False):
    """Rows of heads of `head`, rotated by position t."""
    out = x.astype(float).copy()
    for h in range(0, x.size, head):
        for p, f in enumerate(frequency):
            i, j = (h + 2 * p, h + 2 * p + 1) if interleaved else (h + p, h + p + head // 2)
            angle = -t * float(f) if back else t * float(f)
            c, s = np.cos(angle), np.sin(angle)
            out[i], out[j] = x[i] * c - x[j] * s, x[i] * s + x[j] * c
    return out


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("reverse", [0, 1])
def test_rope(library, flags, reverse):
    asm = Assembler()
    heads, head, rows = 3, 6, 40
    n = heads * head
    frequency = (10000.0 ** (-np.arange(0, head, 2) / head)).astype("f4")
    b, a = asm.f32(frequency), asm.room(n * rows)
    x = floats(rows, n)
    code = [
        instruction("LOOP", n=(rows, 1), flags=reverse),
        instruction("ROPE", a | STEP, a | STEP, b, n=(n, head), flags=flags),
    ]
    got = run(library, asm, code, [(a, x)]).view(a, n * rows).reshape(rows, n)
    for t in range(rows):
        want = rope(x[t], frequency, t, head, flags & 1, flags & 2)
        np.testing.assert_allclose(got[t], want, rtol=1e-5, atol=1e-5)


def attention(q, k, v, heads, kv_heads, causal):
    """q [T, heads * w], k and v [T, kv_heads * w] in double precision."""
    rows, width = q.shape[0], q.shape[1] // heads
    out = np.zeros_like(q, dtype=float)
    for t in range(rows):
        seen = t + 1 if causal else rows
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            g = h * kv_heads // heads
            shared = slice(g * width, (g + 1) * width)
            s = k[:seen, shared].astype(float) @ q[t, own].astype(float) / np.sqrt(width)
            p = np.exp(s - s.max())
            out[t, own] = (p / p.sum()) @ v[:seen, shared]
    return out


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 4, 5), (6, 2, 4), (3, 1, 1)])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(library, heads, kv_heads, width, causal):
    asm = Assembler()
    rows = 9
    q, k = floats(rows, heads * width, scale=2), floats(rows, kv_heads * width, scale=2)
    v = floats(rows, kv_heads * width)
    a, b, c = asm.room(q.size), asm.room(k.size), asm.room(v.size)
    dst, scratch = asm.room(q.size), asm.room(rows)
    operands = (dst | STEP, a | STEP, b, c, scratch)
    code = [
        instruction("LOOP", n=(rows, 1)),
        instruction("ATTENTION", *operands, n=(heads, kv_heads, width), flags=causal),
    ]
    got = run(library, asm, code, [(a, q), (b, k), (c, v)]).view(dst, q.size).reshape(q.shape)
    want = attention(q, k, v, heads, kv_heads, causal)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("rows", [1, 6])
def test_meanpool(library, reverse, rows):
    asm = Assembler()
    n = 5
    a, dst = asm.room(n * rows), asm.room(n)
    x = floats(rows, n)
    code = [
        instruction("LOOP", n=(rows, 1), flags=reverse),
        instruction("MEANPOOL", dst, a | STEP, n=(n,)),
    ]
    got = run(library, asm, code, [(a, x), (dst, np.full(n, 9))]).view(dst, n)
    np.testing.assert_allclose(got, x.astype(float).mean(0), **TOLERANCE)


def test_loops_run_forwards_and_backwards(library):
    """A running sum seen from both ends: the second loop must visit the last row first."""
    asm = Assembler()
    rows = 4
    a, total, seen = asm.room(rows), asm.room(1), asm.room(rows)
    code = [
        instruction("ZERO", total, n=(1, 1)),
        instruction("LOOP", n=(rows, 2), flags=1),
        instruction("ADD", total, total, a | STEP, n=(1,)),
        instruction("COPY", seen | STEP, total, n=(1,)),
        instruction("SCALE", total, total, n=(1,), imm=f32(2.0)),
    ]
    machine = run(library, asm, code, [(a, [1, 10, 100, 1000])])
    np.testing.assert_array_equal(machine.view(seen, rows), [1111, 1110, 1100, 1000])
    assert machine.view(total, 1)[0] == 2222


def test_infer_copies_from_an_overlapping_address(library):
    asm = Assembler(channels=1, length=8)
    one, zero, dst = asm.f32([[1.0]]), asm.f32([[0.0]]), asm.room(8)
    asm.infer = [instruction("INPUT", dst, asm.input, one, zero, n=(8, 1), imm=8)]
    machine = Machine(library, asm)
    machine.view(asm.input, 12, "i2")[:] = np.arange(12)
    logits = library.ffi.new("const float **")
    window = library.pointer(machine.view(asm.input, 8, "i2", 6), "const int16_t *")
    assert library.c.tr_infer(machine.session, window, 8, logits) == 0
    np.testing.assert_array_equal(machine.view(dst, 8), np.arange(3, 11))


def test_classify_takes_the_lowest_of_equals(library):
    logits = np.float32([1, 3, 3, -2])
    probabilities = np.zeros(4, "f4")
    best = library.c.tr_classify(
        library.pointer(logits, "float *"), 4, library.pointer(probabilities, "float *")
    )
    assert best == 1
    want = np.exp(logits.astype(float) - 3)
    np.testing.assert_allclose(probabilities, want / want.sum(), rtol=1e-6)
