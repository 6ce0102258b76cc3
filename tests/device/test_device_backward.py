"""Every backward instruction against central differences of its forward in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from device_assembler import ACC, STEP, Assembler, f32, instruction
from device_harness import backward_machine
from test_device_forward import attention, gelu, rope, sigmoid

RNG = np.random.default_rng(23)
TOLERANCE = dict(rtol=2e-5, atol=2e-5)


def floats(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype("f4")


def gradient(function, x, dy, step=1e-6):
    """d(sum(function(x) * dy)) / dx by central differences."""
    x = x.astype(float)
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        out[index] = np.sum((function(up) - function(down)) * dy) / (2 * step)
    return out


def rmsnorm(x, g, eps=1e-5):
    return x / np.sqrt(np.mean(x**2) + eps) * g


def layernorm(x, g, eps=1e-5):
    return (x - x.mean()) / np.sqrt(x.var() + eps) * g


ROWWISE = {
    "SILU_BWD": lambda x, g: x * sigmoid(x),
    "GELU_BWD": lambda x, g: gelu(x),
    "RELU_BWD": lambda x, g: np.maximum(x, 0),
    "RMSNORM_BWD": rmsnorm,
    "LAYERNORM_BWD": layernorm,
}


@pytest.mark.parametrize("op", ROWWISE)
@pytest.mark.parametrize("target", ["other", "acc", "a", "dy"])
def test_rowwise(library, op, target):
    asm = Assembler()
    n, rows = 8, 3
    norm = "NORM" in op
    g = floats(n)
    b = asm.f32(g) if norm else 0
    a, c, other = asm.room(n * rows), asm.room(n * rows), asm.room(n * rows)
    dst = {"a": a, "dy": c}.get(target, other)
    x, dy, before = floats(rows, n), floats(rows, n), floats(rows, n)
    code = [
        instruction("LOOP", n=(rows, 1), flags=1),
        instruction(
            op,
            *(dst | STEP, a | STEP, b, c | STEP),
            n=(n,),
            flags=ACC * (target == "acc"),
            imm=f32(1e-5) if norm else 0,
        ),
    ]
    puts = [(other, before), (a, x), (c, dy)]
    got = backward_machine(library, asm, code, puts).view(dst, n * rows).reshape(rows, n)
    for t in range(rows):
        want = gradient(lambda v: ROWWISE[op](v, g), x[t], dy[t])
        want = want + before[t] if target == "acc" else want
        np.testing.assert_allclose(got[t], want, **TOLERANCE)


def test_rmsnorm_without_gain(library):
    asm = Assembler()
    a, c, dst = asm.room(6), asm.room(6), asm.room(6)
    x, dy = floats(6), floats(6)
    code = [instruction("RMSNORM_BWD", dst, a, 0, c, n=(6,), imm=f32(1e-5))]
    got = backward_machine(library, asm, code, [(a, x), (c, dy)]).view(dst, 6)
    np.testing.assert_allclose(got, gradient(lambda v: rmsnorm(v, 1), x, dy), **TOLERANCE)


@pytest.mark.parametrize("in_place", [False, True])
def test_swiglu(library, in_place):
    asm = Assembler()
    n = 7
    a, b, c = asm.room(n), asm.room(n), asm.room(n)
    da, db = (a, b) if in_place else (asm.room(n), asm.room(n))
    x, y, dy = floats(n, scale=2), floats(n), floats(n)
    code = [instruction("SWIGLU_BWD", da, a, b, c, db, n=(n,))]
    machine = backward_machine(library, asm, code, [(a, x), (b, y), (c, dy)])
    want = gradient(lambda v: v * sigmoid(v) * y, x, dy)
    np.testing.assert_allclose(machine.view(da, n), want, **TOLERANCE)
    np.testing.assert_allclose(machine.view(db, n), dy * (x * sigmoid(x)), **TOLERANCE)


def test_rope_back_is_the_transpose(library):
    asm = Assembler()
    n, head, rows = 8, 4, 5
    frequency = np.float32([1.0, 0.1])
    b, a = asm.f32(frequency), asm.room(n * rows)
    dy = floats(rows, n)
    code = [
        instruction("LOOP", n=(rows, 1), flags=1),
        instruction("ROPE", a | STEP, a | STEP, b, n=(n, head), flags=2),
    ]
    got = backward_machine(library, asm, code, [(a, dy)]).view(a, n * rows).reshape(rows, n)
    for t in range(rows):
        want = gradient(lambda v, t=t: rope(v, frequency, t, head, False), np.zeros(n), dy[t])
        np.testing.assert_allclose(got[t], want, **TOLERANCE)


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
@pytest.mark.parametrize("accumulate", [0, ACC])
def test_linear_transposed(library, dtype, accumulate):
    asm = Assembler()
    inputs, outputs = 6, 11
    if dtype == "i8":
        q, scale = RNG.integers(-128, 128, (outputs, inputs)), floats(outputs, scale=0.01)
        b, w = asm.i8(q, scale), q * scale.astype(float)[:, None]
    else:
        w = floats(outputs, inputs).astype("f2").astype("f4")
        b = getattr(asm, dtype)(w)
    a, dst = asm.room(outputs), asm.room(inputs)
    dy, before = floats(outputs), floats(inputs)
    code = [instruction("LINEAR_T", dst, a, b, n=(inputs, outputs), flags=accumulate)]
    got = backward_machine(library, asm, code, [(a, dy), (dst, before)]).view(dst, inputs)
    want = w.T.astype(float) @ dy + (before if accumulate else 0)
    np.testing.assert_allclose(got, want, **TOLERANCE)


@pytest.mark.parametrize("target", ["none", "store", "acc"])
@pytest.mark.parametrize("form", ["adapter", "tensors"])
def test_lora(library, target, form):
    """Two rows: gradients of the factors add up over rows, gradients at x do not."""
    asm = Assembler()
    inputs, outputs, rank, scale, rows = 6, 5, 3, 1.5, 2
    asm.adapter(2, 3, 1)  # so that the adapter under test does not start at 0
    a_w, b_w = floats(rank, inputs), floats(outputs, rank)
    if form == "adapter":
        b, c = asm.adapter(inputs, outputs, rank), 0
    else:
        b, c = asm.f32(a_w), asm.f32(b_w)
    x, dy, before = floats(rows, inputs), floats(rows, outputs), floats(rows, inputs)
    a, d = asm.room(x.size), asm.room(dy.size)
    dst, e = asm.room(x.size), asm.room(2 * rank)
    operands = (dst | STEP if target != "none" else 0, a | STEP, b, c, d | STEP, e)
    flags = ACC * (target == "acc")
    dims = (inputs, outputs, rank)
    code = [
        instruction("LOOP", n=(rows, 1), flags=1),
        instruction("LORA_BWD", *operands, n=dims, flags=flags, imm=f32(scale)),
    ]
    # a fresh adapter has B = 0: one step of training fills it, then the real one is checked
    puts = [(a, x), (d, dy), (dst, before)]
    machine = backward_machine(library, asm, code, puts)
    if form == "adapter":
        first = 1 * (2 + 3)
        machine.state(0)[first:] = np.concatenate([a_w.ravel(), b_w.ravel()])
        machine.put(dst, before)
        assert machine.step()[0] == "TR_OK"
        grads = machine.state(2)  # momentum 0: the first moments are the gradients
        got_a = grads[first : first + a_w.size].reshape(a_w.shape)
        got_b = grads[first + a_w.size :].reshape(b_w.shape)
        np.testing.assert_array_equal(grads[:first], 0)
        a64, b64 = a_w.astype(float), b_w.astype(float)
        want = gradient(lambda v: scale * x @ v.T @ b64.T, a64, dy)
        np.testing.assert_allclose(got_a, want, **TOLERANCE)
        want = gradient(lambda v: scale * x @ a64.T @ v.T, b64, dy)
        np.testing.assert_allclose(got_b, want, **TOLERANCE)
        np.testing.assert_array_equal(machine.state(1), 0)
    got = machine.view(dst, x.size).reshape(x.shape)
    want = gradient(lambda v: scale * v @ a_w.T.astype(float) @ b_w.T.astype(float), x, dy)
    if target != "none":
        np.testing.assert_allclose(got, want + (before if target == "acc" else 0), **TOLERANCE)
    else:
        np.testing.assert_array_equal(got, before)


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(2, 2, 3), (4, 2, 2), (3, 1, 4)])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(library, heads, kv_heads, width, causal):
    asm = Assembler()
    rows = 5
    q, dy = floats(rows, heads * width), floats(rows, heads * width)
    k, v = floats(rows, kv_heads * width), floats(rows, kv_heads * width)
    a, b, c, d = asm.room(q.size), asm.room(k.size), asm.room(v.size), asm.room(q.size)
    dq, dk, dv = asm.room(q.size), asm.room(k.size), asm.room(v.size)
    scratch = asm.room(2 * rows)
    operands = (dq | STEP, a | STEP, b, c, d | STEP, dk, dv)
    code = [
        instruction("ZERO", dk, n=(k.size, 1)),
        instruction("ZERO", dv, n=(v.size, 1)),
        instruction("LOOP", n=(rows, 1), flags=1),
        instruction(
            "ATTENTION_BWD",
            *operands,
            n=(heads, kv_heads, width),
            flags=causal,
            imm=scratch & (STEP - 1),
        ),
    ]
    machine = backward_machine(library, asm, code, [(a, q), (b, k), (c, v), (d, dy)])
    settings = (heads, kv_heads, causal)
    for operand, value, function in (
        (dq, q, lambda z: attention(z, k, v, *settings)),
        (dk, k, lambda z: attention(q, z, v, *settings)),
        (dv, v, lambda z: attention(q, k, z, *settings)),
    ):
        got = machine.view(operand, value.size).reshape(value.shape)
        np.testing.assert_allclose(got, gradient(function, value, dy), **TOLERANCE)
