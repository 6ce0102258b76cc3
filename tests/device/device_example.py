"""A blob that uses every instruction of the format: for tests of loader, parity and fuzzing."""

from __future__ import annotations

import numpy as np
from device_assembler import ACC, STEP, Assembler, f32, instruction, pad

ROWS, PATCH, WIDTH, HEADS, KV_HEADS, HEAD, HIDDEN, RANK = 5, 12, 32, 4, 2, 8, 40, 2
KV = KV_HEADS * HEAD
EPS = f32(1e-5)


def example(seed: int = 1) -> Assembler:
    """A two-branch transformer block over a window of 18 x 3 samples, three classes; the last
    patch is half empty. Its gradients train, but stand for no exact derivative."""
    rng = np.random.default_rng(seed)
    asm = Assembler(channels=3, length=18, outputs=3, name="example")
    normal = lambda *shape: rng.standard_normal(shape) * 0.3
    trits = lambda rows, cols: asm.t2(rng.integers(-1, 2, (rows, cols)), 0.11)

    gain, shift = asm.f32([[0.001, 0.002, 0.0015]]), asm.f32([[0.1, -0.2, 0.0]])
    embed, embed_bias = asm.f16(normal(WIDTH, PATCH)), asm.f32(normal(WIDTH))
    norm1, norm2, bias2 = (
        asm.f16(1 + normal(WIDTH)),
        asm.f32(1 + normal(WIDTH)),
        asm.f16(normal(WIDTH)),
    )
    frequency = asm.f32(10000.0 ** (-np.arange(0, HEAD, 2) / HEAD))
    wq, wk, wv = trits(WIDTH, WIDTH), trits(KV, WIDTH), trits(KV, WIDTH)
    wo, wg, wu = trits(WIDTH, WIDTH), trits(HIDDEN, WIDTH), trits(HIDDEN, WIDTH)
    wd = trits(WIDTH, HIDDEN)
    head, head_bias = (
        asm.i8(rng.integers(-127, 128, (3, WIDTH)), [0.01, 0.02, 0.015]),
        asm.f16(normal(3)),
    )
    baked_a, baked_b = asm.f16(normal(RANK, WIDTH)), asm.f32(normal(3, RANK))
    slot_q, slot_v = asm.adapter(WIDTH, WIDTH, RANK), asm.adapter(WIDTH, KV, RANK)
    slot_head = asm.adapter(WIDTH, 3, RANK)

    x12, x, n, o, p = asm.room(PATCH), asm.room(ROWS * WIDTH), *(asm.room(WIDTH) for _ in range(3))
    q, k, v = asm.room(ROWS * WIDTH), asm.room(ROWS * KV), asm.room(ROWS * KV)
    g, u, h = (asm.room(HIDDEN) for _ in range(3))
    q8, q8h = asm.q8(WIDTH), asm.q8(HIDDEN)
    z, scores, pool, scratch = (
        asm.room(2 * RANK),
        asm.room(2 * ROWS),
        asm.room(WIDTH),
        asm.scratch(64),
    )
    scale = f32(2.0)
    heads = (HEADS, KV_HEADS, HEAD)

    def ternary(dst, weights, outputs, source=q8, inputs=WIDTH):
        return instruction("TERNARY", dst, source, weights, 0, scratch, n=(inputs, outputs))

    block1 = [
        instruction("RMSNORM", n, x | STEP, norm1, n=(WIDTH,), imm=EPS),
        instruction("QUANTIZE", q8, n, n=(WIDTH,)),
        ternary(q | STEP, wq, WIDTH),
        instruction("LORA", q | STEP, n, slot_q, 0, z, n=(WIDTH, WIDTH, RANK), imm=scale),
        ternary(k | STEP, wk, KV),
        ternary(v | STEP, wv, KV),
        instruction("LORA", v | STEP, n, slot_v, 0, z, n=(WIDTH, KV, RANK), imm=scale),
        instruction("ROPE", q | STEP, q | STEP, frequency, n=(WIDTH, HEAD)),
        instruction("ROPE", k | STEP, k | STEP, frequency, n=(KV, HEAD), flags=1),
        instruction("ATTENTION", o, q | STEP, k, v, scores, n=heads, flags=1),
        instruction("QUANTIZE", q8, o, n=(WIDTH,)),
        ternary(p, wo, WIDTH),
        instruction("ADD", x | STEP, x | STEP, p, n=(WIDTH,)),
    ]
    block2 = [
        instruction("LAYERNORM", n, x | STEP, norm2, bias2, n=(WIDTH,), imm=EPS),
        instruction("QUANTIZE", q8, n, n=(WIDTH,)),
        ternary(g, wg, HIDDEN),
        ternary(u, wu, HIDDEN),
        instruction("SWIGLU", h, g, u, n=(HIDDEN,)),
        instruction("QUANTIZE", q8h, h, n=(HIDDEN,)),
        ternary(p, wd, WIDTH, q8h, HIDDEN),
        instruction("SCALE", x | STEP, p, n=(WIDTH,), flags=ACC, imm=f32(0.5)),
        instruction("GELU", n, p, n=(WIDTH,)),
        instruction("SILU", o, n, n=(WIDTH,)),
        instruction("MUL", n, n, o, n=(WIDTH,)),
        instruction("RELU", n, n, n=(WIDTH,)),
        instruction("COPY", x | STEP, n, n=(WIDTH,), flags=ACC),
        instruction("RMSNORM", n, x | STEP, 0, n=(WIDTH,), imm=EPS),
        instruction("MEANPOOL", pool, n, n=(WIDTH,)),
    ]
    asm.infer = [
        instruction("LOOP", n=(ROWS, 2)),
        instruction("INPUT", x12, asm.input | STEP, gain, shift, n=(PATCH, 3), imm=54),
        instruction("LINEAR", x | STEP, x12, embed, embed_bias, n=(PATCH, WIDTH)),
        instruction("LOOP", n=(ROWS, len(block1))),
        *block1,
        instruction("LOOP", n=(ROWS, len(block2))),
        *block2,
        instruction("LINEAR", asm.logits, pool, head, head_bias, n=(WIDTH, 3)),
        instruction("LORA", asm.logits, pool, baked_a, baked_b, z, n=(WIDTH, 3, RANK), imm=scale),
        instruction("LORA", asm.logits, pool, slot_head, 0, z, n=(WIDTH, 3, RANK), imm=scale),
    ]
    infer_top = asm.top

    dlogits, dpool, dn, dp = asm.room(3), *(asm.room(WIDTH) for _ in range(3))
    dh, dg, du, e16 = *(asm.room(HIDDEN) for _ in range(3)), asm.q16(HIDDEN)
    dq, dk, dv = asm.room(WIDTH), asm.room(ROWS * KV), asm.room(ROWS * KV)

    def transposed(dst, weights, inputs, outputs, source, flags=0):
        return [
            instruction("QUANTIZE16", e16, source, n=(outputs,)),
            instruction(
                "TERNARY_T", dst, e16, weights, 0, scratch, n=(inputs, outputs), flags=flags
            ),
        ]

    backward = [
        instruction("RMSNORM_BWD", dn, x | STEP, 0, dpool, n=(WIDTH,), imm=EPS),
        instruction("LAYERNORM", n, x | STEP, norm2, bias2, n=(WIDTH,), imm=EPS),
        instruction("RELU_BWD", dp, n, 0, dn, n=(WIDTH,)),
        instruction("SILU_BWD", dp, n, 0, dn, n=(WIDTH,), flags=ACC),
        instruction("GELU_BWD", dp, n, 0, dp, n=(WIDTH,)),
        *transposed(dh, wd, HIDDEN, WIDTH, dp),
        instruction("SWIGLU_BWD", dg, g, u, dh, du, n=(HIDDEN,)),
        *transposed(dp, wg, WIDTH, HIDDEN, dg),
        *transposed(dp, wu, WIDTH, HIDDEN, du, ACC),
        instruction("LAYERNORM_BWD", dn, x | STEP, norm2, dp, n=(WIDTH,), flags=ACC, imm=EPS),
        *transposed(dp, wo, WIDTH, WIDTH, dn),
        instruction(
            "ATTENTION_BWD",
            *(dq, q | STEP, k, v, dp, dk, dv),
            n=heads,
            flags=1,
            imm=scores & (STEP - 1),
        ),
        instruction("ROPE", dq, dq, frequency, n=(WIDTH, HEAD), flags=2),
        instruction("ROPE", dk | STEP, dk | STEP, frequency, n=(KV, HEAD), flags=3),
        instruction("RMSNORM", n, x | STEP, norm1, n=(WIDTH,), imm=EPS),
        instruction("LORA_BWD", dn, n, slot_q, 0, dq, z, n=(WIDTH, WIDTH, RANK), imm=scale),
        instruction("LORA_BWD", 0, n, slot_v, 0, dv | STEP, z, n=(WIDTH, KV, RANK), imm=scale),
    ]
    asm.adapt = [
        instruction("CROSS_ENTROPY", dlogits, asm.logits, n=(3,)),
        instruction(
            "LORA_BWD", dpool, pool, slot_head, 0, dlogits, z, n=(WIDTH, 3, RANK), imm=scale
        ),
        instruction(
            "LORA_BWD",
            *(dpool, pool, baked_a, baked_b, dlogits, z),
            n=(WIDTH, 3, RANK),
            flags=ACC,
            imm=scale,
        ),
        instruction("LINEAR_T", dpool, dlogits, head, n=(WIDTH, 3), flags=ACC),
        instruction("ZERO", dk, n=(ROWS, KV)),
        instruction("ZERO", dv, n=(ROWS, KV)),
        instruction("LOOP", n=(ROWS, len(backward)), flags=1),
        *backward,
        instruction("OPTIMIZE"),
    ]
    asm.adapt_flags = 1
    asm.infer_arena = pad(infer_top, 16)
    return asm


def windows(count: int, seed: int = 2) -> np.ndarray:
    """int16 [count, 54] windows for the example."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, 54)) * 1500).astype("<i2")
