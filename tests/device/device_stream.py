"""A small language model as a blob: embedding, one block with an int8 KV cache, logits."""

from __future__ import annotations

import numpy as np
from device_assembler import STEP, Assembler, characters, f32, instruction

VOCABULARY = [10, 32, 97, 98, 99, 0x20AC, 0x1F600, 0xFFFFFFFF]
WIDTH, HEADS, KV_HEADS, HEAD, CONTEXT = 32, 4, 2, 8, 12
KV = KV_HEADS * HEAD


def language_model(seed: int = 5, context: int = CONTEXT, q8: bool = True) -> Assembler:
    """Tokens of VOCABULARY; keys and values in int8, or in float."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape)
    outputs = len(VOCABULARY)
    asm = Assembler(1, context, outputs, "stream", vocabulary=characters(VOCABULARY))
    trits = lambda rows, cols: asm.t2(rng.integers(-1, 2, (rows, cols)), 0.2)
    embed, gain = asm.f16(normal(outputs, WIDTH)), asm.f16(1 + 0.1 * normal(WIDTH))
    wq, wk, wv, wo = (trits(n, WIDTH) for n in (WIDTH, KV, KV, WIDTH))
    head = asm.i8(rng.integers(-127, 128, (outputs, WIDTH)), np.full(outputs, 0.004))
    slot = asm.adapter(WIDTH, WIDTH, 2)
    frequency = asm.f32(100.0 ** (-np.arange(0, HEAD, 2) / HEAD))
    if q8:
        keys, values = asm.q8_block(context, KV), asm.q8_block(context, KV)
    else:
        keys, values = asm.room(context * KV), asm.room(context * KV)
    x, n, q, o = (asm.room(WIDTH) for _ in range(4))
    k, v, z = asm.room(KV), asm.room(KV), asm.room(2)
    q8row, q16, scores = asm.q8(WIDTH), asm.q16(WIDTH), asm.room(3 * context)
    scratch = asm.scratch(WIDTH)

    def ternary(dst, weights, width):
        return instruction("TERNARY", dst, q8row, weights, 0, scratch, n=(WIDTH, width))

    def rope(dst, source, width):
        return instruction("ROPE", dst, source, frequency, n=(width, HEAD))

    heads = (HEADS, KV_HEADS, HEAD)
    if q8:
        attend = [
            rope(q, q, WIDTH),
            instruction("QUANTIZE16", q16, q, n=(WIDTH,)),
            rope(k, k, KV),
            instruction("QUANTIZE", keys | STEP, k, n=(KV,)),
            instruction("QUANTIZE", values | STEP, v, n=(KV,)),
            instruction("ATTENTION_Q8", o, q16, keys, values, scores, n=heads, flags=1),
        ]
    else:
        attend = [
            rope(q, q, WIDTH),
            rope(keys | STEP, k, KV),
            instruction("COPY", values | STEP, v, n=(KV,)),
            instruction("ATTENTION", o, q, keys, values, scores, n=heads, flags=1),
        ]
    asm.infer = [
        instruction("EMBEDDING", x, 0, embed, n=(WIDTH, outputs)),
        instruction("RMSNORM", n, x, gain, n=(WIDTH,), imm=f32(1e-5)),
        instruction("QUANTIZE", q8row, n, n=(WIDTH,)),
        ternary(q, wq, WIDTH),
        instruction("LORA", q, n, slot, 0, z, n=(WIDTH, WIDTH, 2), imm=f32(2.0)),
        ternary(k, wk, KV),
        ternary(v, wv, KV),
        *attend,
        instruction("QUANTIZE", q8row, o, n=(WIDTH,)),
        ternary(n, wo, WIDTH),
        instruction("ADD", x, x, n, n=(WIDTH,)),
        instruction("RMSNORM", n, x, gain, n=(WIDTH,), imm=f32(1e-5)),
        instruction("QUANTIZE16", q16, n, n=(WIDTH,)),
        instruction("LINEAR_I8", asm.logits, q16, head, n=(WIDTH, outputs)),
    ]
    return asm
