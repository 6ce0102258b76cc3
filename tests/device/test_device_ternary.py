"""Quantisation and ternary products: exact integers, whatever the weights and activations."""

from __future__ import annotations

import numpy as np
import pytest
from device_assembler import ACC, Assembler, instruction, pad
from device_harness import Machine, backward_machine

RNG = np.random.default_rng(11)


def quantized(x, top, floor):
    """(integers, scale) in float32, as FORMAT.md says."""
    s = max(np.abs(x).max(), np.float32(floor)).astype("f4")
    return np.rint(x * (np.float32(top) / s)).astype(int), s


def adversarial(rows, cols):
    """Trits: random, with a row of all +1, one of all -1 and one of zeros where there is room."""
    w = RNG.integers(-1, 2, (rows, cols))
    for row, value in zip(range(rows), (1, -1, 0), strict=False):
        w[row] = value
    return w


def run_ternary(library, w, q, s, gamma):
    """TERNARY over activations written into the arena as they are."""
    rows, cols = w.shape
    asm = Assembler()
    b, a, dst = asm.t2(w, gamma), asm.q8(cols), asm.room(rows + 1)
    d = asm.scratch(cols)
    asm.infer = [instruction("TERNARY", dst, a, b, 0, d, n=(cols, rows))]
    machine = Machine(library, asm)
    machine.view(a, pad(cols, 64), "i1")[:cols] = q
    machine.view(a, 1, "f4", pad(cols, 64))[0] = s
    machine.view(dst, rows + 1)[rows] = 77
    machine.infer()
    assert machine.view(dst, rows + 1)[rows] == 77, "wrote behind the last row"
    return machine.view(dst, rows)


@pytest.mark.parametrize("first", range(1, 201, 8))
def test_ternary_all_column_counts(library, first):
    for cols in range(first, first + 8):
        rows = 1 + cols % 23
        w = adversarial(rows, cols)
        for q in (RNG.integers(-127, 128, cols), RNG.choice([-127, 127], cols), w[0] * 127):
            s, gamma = np.float32(0.37), np.float32(0.21)
            got = run_ternary(library, w, q, s, gamma)
            scale = gamma * s / np.float32(127)
            np.testing.assert_array_equal(got, (w @ q).astype("f4") * scale, err_msg=f"{cols}")


def test_ternary_large(library):
    w = adversarial(130, 700)
    q = np.full(700, 127)
    got = run_ternary(library, w, q, np.float32(127), np.float32(1))
    np.testing.assert_array_equal(got, w @ q)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 130])
def test_quantize(library, n):
    asm = Assembler()
    a, dst = asm.room(n), asm.q8(n)
    asm.infer = [instruction("QUANTIZE", dst, a, n=(n,))]
    machine = Machine(library, asm)
    for x in (RNG.standard_normal(n), np.zeros(n), np.full(n, 1e-7), np.linspace(-127, 127, n)):
        x = x.astype("f4")
        machine.view(dst, pad(n, 64) + 16, "u1")[:] = 0xA5
        machine.put(a, x)
        machine.infer()
        q, s = quantized(x, 127, 1e-5)
        got = machine.view(dst, pad(n, 64), "i1")
        np.testing.assert_array_equal(got[:n], q)
        np.testing.assert_array_equal(got[n:], 0)
        assert machine.view(dst, 1, "f4", pad(n, 64))[0] == s


def test_quantize_rounds_half_to_even(library):
    asm = Assembler()
    x = np.float32([127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -126.5])
    a, dst = asm.room(8), asm.q8(8)
    asm.infer = [instruction("QUANTIZE", dst, a, n=(8,))]
    machine = Machine(library, asm)
    machine.put(a, x)
    machine.infer()
    np.testing.assert_array_equal(machine.view(dst, 8, "i1"), [127, 0, 2, 2, 0, -2, 126, -126])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_harmless(library, bad):
    asm = Assembler()
    a, q, dst = asm.room(20), asm.q8(20), asm.room(3)
    b, d = asm.t2(adversarial(3, 20), 0.5), asm.scratch(20)
    asm.infer = [
        instruction("QUANTIZE", q, a, n=(20,)),
        instruction("TERNARY", dst, q, b, 0, d, n=(20, 3)),
    ]
    machine = Machine(library, asm)
    machine.put(a, [1, bad] * 10)
    machine.infer()
    assert not np.isfinite(machine.view(dst, 3)).all()


@pytest.mark.parametrize("layout", ["t2", "t2d"])
@pytest.mark.parametrize("accumulate", [0, ACC])
def test_ternary_transposed(library, accumulate, layout):
    for cols in [*range(1, 70, 3), 127, 128, 200]:
        rows = 1 + (5 * cols) % 89
        w = adversarial(rows, cols)
        for e in (RNG.standard_normal(rows), np.ones(rows), RNG.choice([-1.0, 1.0], rows)):
            e = e.astype("f4")
            asm = Assembler()
            store = getattr(asm, layout)
            b, a, q, dst = store(w, 0.3), asm.room(rows), asm.q16(rows), asm.room(cols)
            d = asm.scratch(cols)
            code = [
                instruction("QUANTIZE16", q, a, n=(rows,)),
                instruction("TERNARY_T", dst, q, b, 0, d, n=(cols, rows), flags=accumulate),
            ]
            before = np.full(cols, 2.5, "f4")
            machine = backward_machine(library, asm, code, [(a, e), (dst, before)])
            integers, s = quantized(e, 32767, 1e-30)
            np.testing.assert_array_equal(machine.view(q, rows, "i2"), integers)
            want = (w.T @ integers).astype("f4") * (np.float32(0.3) * s / np.float32(32767))
            want = before + want if accumulate else want
            np.testing.assert_array_equal(machine.view(dst, cols), want)


def test_quantize16_of_zeros(library):
    asm = Assembler()
    a, q = asm.room(3), asm.q16(3)
    code = [instruction("QUANTIZE16", q, a, n=(3,))]
    machine = backward_machine(library, asm, code, [(a, [0, 0, 0])])
    np.testing.assert_array_equal(machine.view(q, 8, "i2"), 0)
    assert machine.view(q, 1, "f4", 16)[0] == np.float32(1e-30)
