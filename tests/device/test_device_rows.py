"""Integer rows against NumPy, to the bit, and against what they stand for, to the steps of int8."""

from __future__ import annotations

import numpy as np
import pytest
from device_assembler import STEP, Assembler, f32, instruction, pad
from device_harness import Machine
from test_device_forward import floats, rope, sigmoid
from test_device_ternary import adversarial, quantized

RNG = np.random.default_rng(29)
F32 = np.float32
FULL = 127 << 16


def put_q16(machine, operand, q, s):
    machine.view(operand, pad(len(q), 8), "i2")[:] = 0
    machine.view(operand, len(q), "i2")[:] = q
    machine.view(operand, 1, "f4", 2 * pad(len(q), 8))[0] = s


def get_q16(machine, operand, n):
    padded = machine.view(operand, pad(n, 8), "i2")
    assert not padded[n:].any()
    return padded[:n].astype(int), machine.view(operand, 1, "f4", 2 * pad(n, 8))[0]


def get_q8(machine, operand, n):
    padded = machine.view(operand, pad(n, 64), "i1")
    assert not padded[n:].any()
    return padded[:n].astype(int), machine.view(operand, 1, "f4", pad(n, 64))[0]


def narrow(v):
    """(q, F) of FORMAT.md."""
    factor = FULL // max(int(np.abs(v).max()), 1)
    return (v * factor + 32768) >> 16, factor


@pytest.mark.parametrize("layout", ["t2", "t2d"])
@pytest.mark.parametrize(("cols", "rows"), [(8, 8), (64, 24), (258, 9), (259, 9), (700, 17)])
def test_ternary16(library, layout, cols, rows):
    w = adversarial(rows, cols)
    asm = Assembler()
    b, a, dst = getattr(asm, layout)(w, 0.21), asm.q8(cols), asm.q16(rows)
    d, e = asm.scratch(cols), asm.room(rows)
    asm.infer = [instruction("TERNARY16", dst, a, b, 0, d, e, n=(cols, rows))]
    machine = Machine(library, asm)
    for q in (RNG.integers(-127, 128, cols), w[0] * 127):
        machine.view(a, pad(cols, 64), "i1")[:cols] = q
        machine.view(a, 1, "f4", pad(cols, 64))[0] = 0.37
        machine.infer()
        h = 0
        while 127 * cols >= 32768 << h:
            h += 1
        got, s = get_q16(machine, dst, rows)
        np.testing.assert_array_equal(got, (w @ q + (1 << h) // 2) >> h)
        scale = F32(0.21) * F32(0.37) / F32(127) * F32(32767 << h)
        assert s == scale and np.abs(got).max() <= 32767
        want = (w @ q) * (0.21 * 0.37 / 127)
        np.testing.assert_allclose(got * (float(s) / 32767), want, atol=0.51 * 2**h * 0.21 / 300)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rope16(library, interleaved):
    heads, head, rows = 3, 8, 30
    n = heads * head
    frequency = (100.0 ** (-np.arange(0, head, 2) / head)).astype("f4")
    asm = Assembler()
    b = asm.f32(frequency)
    a = asm.room(bytes_=rows * (2 * pad(n, 8) + 16), align=16)
    asm.infer = [
        instruction("LOOP", n=(rows, 1)),
        instruction("ROPE16", a | STEP, a | STEP, b, n=(n, head), flags=interleaved),
    ]
    machine = Machine(library, asm)
    x = RNG.integers(-32767, 32768, (rows, n))
    x[0] = 32767
    for t in range(rows):
        put_q16(machine, a + t * (2 * pad(n, 8) + 16) // 4, x[t], 3.0)
    machine.infer()
    for t in range(rows):
        got, s = get_q16(machine, a + t * (2 * pad(n, 8) + 16) // 4, n)
        assert s == F32(3.0) * F32(65536 / 32767)
        want = rope(x[t], frequency, t, head, interleaved)
        np.testing.assert_allclose(got * (float(s) / 3), want, atol=4.5)


@pytest.mark.parametrize("n", [1, 63, 64, 130])
def test_narrow(library, n):
    asm = Assembler()
    a, dst = asm.q16(n), asm.q8(n)
    asm.infer = [instruction("NARROW", dst, a, n=(n,))]
    machine = Machine(library, asm)
    for v in (RNG.integers(-32767, 32768, n), RNG.integers(-9, 10, n), np.zeros(n, int)):
        machine.view(dst, pad(n, 64), "u1")[:] = 0xA5
        put_q16(machine, a, v, 1.7)
        machine.infer()
        got, s = get_q8(machine, dst, n)
        q, factor = narrow(v)
        np.testing.assert_array_equal(got, q)
        assert s == F32(1.7) * (F32(FULL / 32767) / F32(factor))
        np.testing.assert_allclose(got * float(s) / 127, v * (1.7 / 32767), atol=0.6 * s / 127)


LOGISTIC = np.rint(32768 / (1 + np.exp(-np.arange(177) / 16))).astype(int)


def swiglu_q8(g, g_scale, u, u_scale):
    """(q, s) of FORMAT.md."""
    unit = F32(g_scale) * F32(16384 / 32767)
    e = min(max(int(unit.view("u4")) >> 23, 14), 141)
    m = int(np.rint(unit * F32(2.0) ** (141 - e)))
    x = np.abs(g) * m >> min(141 - e, 31)
    i = np.minimum(x // 1024, 175)
    y = LOGISTIC[i] + ((LOGISTIC[i + 1] - LOGISTIC[i]) * (x % 1024) >> 10)
    y = np.where(x // 1024 >= 176, LOGISTIC[176], y)
    y = np.where(g < 0, 32768 - y, y)
    p = ((g * y + 16384) >> 15) * u
    top, h = int(np.abs(p).max()), 0
    while top >> h >= 32768:
        h += 1
    factor = FULL // ((top >> h) + 1)
    scale = (F32(g_scale) / F32(32767)) * (F32(u_scale) / F32(32767))
    return ((p >> h) * factor + 32768) >> 16, scale * (F32(FULL * 2**h) / F32(factor))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 0.5, 7.0, 90.0, 1e6])
def test_swiglu_q8(library, scale):
    n = 90
    asm = Assembler()
    a, b, d, dst = asm.q16(n), asm.q16(n), asm.room(n), asm.q8(n)
    asm.infer = [instruction("SWIGLU_Q8", dst, a, b, 0, d, n=(n,))]
    machine = Machine(library, asm)
    for g, u in [
        (RNG.integers(-32767, 32768, n), RNG.integers(-32767, 32768, n)),
        (RNG.integers(-300, 301, n), RNG.integers(-90, 91, n)),
        (np.full(n, 32767), np.full(n, -32767)),
        (np.zeros(n, int), np.zeros(n, int)),
    ]:
        put_q16(machine, a, g, scale)
        put_q16(machine, b, u, 0.8)
        machine.infer()
        got, s = get_q8(machine, dst, n)
        q, want_s = swiglu_q8(g, scale, u, 0.8)
        np.testing.assert_array_equal(got, q)
        assert s == want_s and np.abs(got).max() <= 127
        x = g * (scale / 32767)
        with np.errstate(over="ignore"):
            want = x * sigmoid(x) * (u * (0.8 / 32767))
        step = max(np.abs(want).max() / 127, float(s) / 127)
        assert np.abs(got * float(s) / 127 - want).max() < 0.65 * step + 1e-4 * np.abs(x).max()


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("n", [1, 64, 130])
def test_norm_q8(library, gain, n):
    asm = Assembler()
    g = RNG.integers(-32767, 32768, n)
    b = asm.i16(g[None], [0.0001]) if gain else 0
    a, d, dst = asm.room(n), asm.room(n), asm.q8(n)
    asm.infer = [instruction("NORM_Q8", dst, a, b, 0, d, n=(n,), imm=f32(1e-5))]
    machine = Machine(library, asm)
    for x in (floats(n), floats(n, scale=1e-4), floats(n, scale=1e6), np.zeros(n, "f4")):
        machine.put(a, x)
        machine.infer()
        got, s = get_q8(machine, dst, n)
        v, largest = quantized(x, 32767, 1e-30)
        u = largest / F32(32767)
        squares = int((v.astype(np.int64) ** 2).sum())
        total = F32(squares >> 16) * F32(65536) + F32(squares & 0xFFFF)
        r = F32(1) / np.sqrt(total * (u * u) / F32(n) + F32(1e-5))
        if gain:
            v = (v * g + 16384) >> 15
            r = r * (F32(0.0001) * F32(32768))
        q, factor = narrow(v)
        np.testing.assert_array_equal(got, q)
        assert s == u * r * (F32(FULL) / F32(factor))
        want = x / np.sqrt(np.mean(x.astype(float) ** 2) + 1e-5) * (g * 0.0001 if gain else 1)
        step = np.abs(want).max() / 127
        assert np.abs(got * float(s) / 127 - want).max() <= 0.53 * step + 1e-30


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_pass_on_what_is_not_finite(library, bad):
    asm = Assembler()
    a, d, dst, q = asm.room(9), asm.room(9), asm.q8(9), asm.q16(9)
    asm.infer = [
        instruction("NORM_Q8", dst, a, 0, 0, d, n=(9,), imm=f32(1e-5)),
        instruction("QUANTIZE16", q, a, n=(9,)),
    ]
    machine = Machine(library, asm)
    machine.put(a, [1, bad] + [2] * 7)
    machine.infer()
    assert np.isnan(get_q8(machine, dst, 9)[1])
    for op, operands in (("NARROW", (dst, q)), ("SWIGLU_Q8", (dst, q, q, 0, d))):
        asm.infer = [*asm.infer[:2], instruction(op, *operands, n=(9,))]
        machine = Machine(library, asm)
        machine.put(a, [1, bad] + [2] * 7)
        machine.infer()
        assert not np.isfinite(get_q8(machine, dst, 9)[1]), op


@pytest.mark.parametrize(("n", "outputs", "rank"), [(64, 64, 4), (24, 40, 1), (70, 9, 7)])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_lora16(library, n, outputs, rank, kind):
    asm = Assembler()
    a, dst, z, x, y = asm.q8(n), asm.q16(outputs), asm.room(rank), asm.room(n), asm.room(outputs)
    factors = floats(rank, n, scale=0.3), floats(outputs, rank, scale=0.3)
    b, c = (getattr(asm, kind)(f) for f in factors)
    dims, scale = (n, outputs, rank), 0.75
    asm.infer = [instruction("LORA16", dst, a, b, c, z, x, y, n=dims, imm=f32(scale))]
    machine = Machine(library, asm)
    big_a, big_b = (f.astype("f2").astype("f4") if kind == "f16" else f for f in factors)
    for base in (RNG.integers(-32767, 32768, outputs), np.zeros(outputs, int)):
        q = RNG.integers(-127, 128, n)
        machine.view(a, pad(n, 64), "i1")[:n] = q
        machine.view(a, 1, "f4", pad(n, 64))[0] = 0.9
        put_q16(machine, dst, base, 2.5)
        machine.infer()
        sums = np.zeros(rank, "f4")
        for k in range(n):
            sums = sums + big_a[:, k] * F32(q[k])
        sums = sums * (F32(0.9) / F32(127))
        path = np.zeros(outputs, "f4")
        for r in range(rank):
            path = path + big_b[:, r] * sums[r]
        want, s = quantized(
            base.astype("f4") * (F32(2.5) / F32(32767)) + F32(scale) * path, 32767, 1e-30
        )
        got, got_s = get_q16(machine, dst, outputs)
        np.testing.assert_array_equal(got, want)
        assert got_s == s


def test_lora16_of_an_adapter_that_is_not_there_changes_nothing(library):
    asm = Assembler()
    a, dst = asm.q8(8), asm.q16(8)
    slot = asm.adapter(8, 8, 2)
    places = [asm.room(n) for n in (2, 8, 8)]
    asm.infer = [instruction("LORA16", dst, a, slot, 0, *places, n=(8, 8, 2), imm=f32(1.0))]
    machine = Machine(library, asm)
    put_q16(machine, dst, np.arange(8), 1.5)
    machine.infer()
    got, s = get_q16(machine, dst, 8)
    assert (got == np.arange(8)).all()
    assert s == F32(1.5)
