"""The integer instructions against NumPy, to the bit: QUANTIZE16, LINEAR_I8, ATTENTION_Q8."""

from __future__ import annotations

import numpy as np
import pytest
from device_assembler import STEP, Assembler, instruction, pad
from device_harness import Machine
from test_device_forward import attention, floats
from test_device_ternary import quantized

RNG = np.random.default_rng(23)
F32 = np.float32


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (4, 8), (13, 9), (24, 65), (512, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_i8(library, inputs, outputs, bias):
    asm = Assembler()
    w = RNG.integers(-128, 128, (outputs, inputs))
    w[0] = 127
    scale, beta = np.abs(floats(outputs, scale=0.01)), floats(outputs)
    b, c = asm.i8(w, scale), asm.f32(beta) if bias else 0
    a, q, dst = asm.room(inputs), asm.q16(inputs), asm.room(outputs + 1)
    asm.infer = [
        instruction("QUANTIZE16", q, a, n=(inputs,)),
        instruction("LINEAR_I8", dst, q, b, c, n=(inputs, outputs)),
    ]
    machine = Machine(library, asm)
    for x in (floats(inputs), np.full(inputs, 3, "f4"), np.zeros(inputs, "f4")):
        machine.put(a, x)
        machine.view(dst, outputs + 1)[outputs] = 77
        machine.infer()
        integers, s = quantized(x, 32767, 1e-30)
        want = (w @ integers).astype("f4") * (scale * (s / F32(32767)))
        want = want + beta if bias else want
        np.testing.assert_array_equal(machine.view(dst, outputs), want)
        assert machine.view(dst, outputs + 1)[outputs] == 77, "wrote behind the last row"


POWERS = np.rint(65534 * 2.0 ** (-np.arange(65) / 64)).astype(np.int64)


def power(x):
    """p of FORMAT.md's integer attention."""
    x = np.minimum(x, 16 * 65536)
    first, second = POWERS[x // 1024 % 64], POWERS[x // 1024 % 64 + 1]
    fraction = first - (first - second) * (x % 1024) // 1024
    return np.where(x < 16 * 65536, (fraction // 2 ** (x // 65536) + 1) // 2, 0)


def attention_q8(q, q_scale, k, k_scale, v, v_scale, heads, kv_heads, seen):
    """One row as FORMAT.md says: q int [heads, w]; k, v int [T, kv_heads, w]; scales [T]."""
    w = q.shape[1]
    u = F32(q_scale) * (F32(np.log2(np.e) / (32767 * 127)) / np.sqrt(F32(w)))
    top, m = k_scale[:seen].max() * u, v_scale[:seen].max()
    e = max(int(F32(top).view("u4")) >> 23, 78)
    kf = np.rint(k_scale[:seen] * (u * F32(2.0) ** (141 - e))).astype(np.int64).clip(None, 32767)
    g = np.rint(v_scale[:seen] * (F32(32767) / m)).astype(np.int64)
    out = np.zeros((heads, w), "f4")
    for h in range(heads):
        own = h * kv_heads // heads
        z = (k[:seen, own].astype(np.int64) @ q[h]) * kf >> 16
        below = z.max() - z
        x = [int(d) << (e - 109) if e >= 109 else int(d) >> (109 - e) for d in below]
        p = power(np.array([min(n, 1 << 30) for n in x]))
        weights = (p * g + 16384) >> 15
        total = weights @ v[:seen, own]
        scale = m * F32(32768 / (32767 * 127)) / F32(p.sum())
        out[h] = total.astype("f4") * scale
    return out


def run_attention(library, q, k, v, heads, kv_heads, causal=1):
    """(machine, result [T, heads * w], and the quantised q, k, v with their scales)."""
    rows, width = q.shape[0], q.shape[1] // heads
    kv = kv_heads * width
    asm = Assembler()
    fq, fk, fv = asm.room(q.size), asm.room(k.size), asm.room(v.size)
    qq = asm.room(bytes_=rows * (2 * pad(heads * width, 8) + 16), align=16)
    kb, vb = asm.q8_block(rows, kv), asm.q8_block(rows, kv)
    dst, scratch, guard = asm.room(q.size), asm.room(3 * rows), asm.room(1)
    asm.infer = [
        instruction("LOOP", n=(rows, 3)),
        instruction("QUANTIZE16", qq | STEP, fq | STEP, n=(heads * width,)),
        instruction("QUANTIZE", kb | STEP, fk | STEP, n=(kv,)),
        instruction("QUANTIZE", vb | STEP, fv | STEP, n=(kv,)),
        instruction("LOOP", n=(rows, 1)),
        instruction(
            "ATTENTION_Q8",
            *(dst | STEP, qq | STEP, kb, vb, scratch),
            n=(heads, kv_heads, width),
            flags=causal,
        ),
    ]
    machine = Machine(library, asm)
    for place, values in ((fq, q), (fk, k), (fv, v), (guard, [77])):
        machine.put(place, values)
    machine.infer()
    assert machine.view(guard, 1)[0] == 77
    return machine.view(dst, q.size).reshape(q.shape)


def reference(q, k, v, heads, kv_heads, causal=1):
    rows, width = q.shape[0], q.shape[1] // heads
    ks = [quantized(row, 127, 1e-5) for row in k]
    vs = [quantized(row, 127, 1e-5) for row in v]
    ki, vi = (np.array([i for i, _ in x]).reshape(rows, kv_heads, width) for x in (ks, vs))
    k_scale, v_scale = (np.array([s for _, s in x], "f4") for x in (ks, vs))
    out = []
    for t in range(rows):
        integers, s = quantized(q[t], 32767, 1e-30)
        seen = t + 1 if causal else rows
        rest = (ki, k_scale, vi, v_scale, heads, kv_heads, seen)
        out.append(attention_q8(integers.reshape(heads, width), s, *rest).ravel())
    return np.array(out)


SHAPES = [(4, 4, 16), (4, 2, 32), (6, 2, 4), (3, 1, 1), (2, 2, 7), (1, 1, 256), (4, 1, 6)]


@pytest.mark.parametrize(("heads", "kv_heads", "width"), SHAPES)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_q8_to_the_bit(library, heads, kv_heads, width, causal):
    for rows, scale in ((1, 1.0), (9, 2.0), (26, 0.1), (12, 40.0)):
        q, k = (floats(rows, h * width, scale=scale) for h in (heads, kv_heads))
        v = floats(rows, kv_heads * width)
        k[::3] *= 0.01
        v[1::4] *= 30
        got = run_attention(library, q, k, v, heads, kv_heads, causal)
        np.testing.assert_array_equal(got, reference(q, k, v, heads, kv_heads, causal))


@pytest.mark.parametrize("rows", [64, 300, 512])
def test_attention_q8_of_extremes(library, rows):
    """Every product at its largest, every weight too: sums that just fit int32."""
    q, k, v = np.ones((rows, 512)), np.ones((rows, 256)), np.ones((rows, 256))
    got = run_attention(library, q, k, v, 2, 1)
    np.testing.assert_array_equal(got, reference(*(x.astype("f4") for x in (q, k, v)), 2, 1))
    np.testing.assert_allclose(got, 1, rtol=1e-4)
    tiny = [(x * 1e-20).astype("f4") for x in (q, k, v)]
    got = run_attention(library, *tiny, 2, 1)
    np.testing.assert_array_equal(got, reference(*tiny, 2, 1))


def test_attention_q8_is_close_to_attention(library):
    heads, kv_heads, width, rows = 4, 2, 32, 128
    q, k = floats(rows, heads * width, scale=1.5), floats(rows, kv_heads * width, scale=1.5)
    v = floats(rows, kv_heads * width)
    got = run_attention(library, q, k, v, heads, kv_heads)
    want = attention(q, k, v, heads, kv_heads, True)
    assert np.abs(got - want).max() < 0.08 and np.abs(got - want).mean() < 0.006


def test_the_power_is_accurate():
    x = np.arange(0, 16 * 65536, 7)
    assert np.abs(power(x) - 32767 * 2.0 ** (-x / 65536)).max() < 1.7


@pytest.mark.parametrize("place", ["q", "k", "v"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attention_q8_passes_on_what_is_not_finite(library, place, bad):
    values = {name: floats(5, 8) for name in "qkv"}
    values[place][2, 3] = bad
    got = run_attention(library, *values.values(), 2, 2)
    assert not np.isfinite(got[2]).any()
    assert np.isfinite(got[:2]).all()
