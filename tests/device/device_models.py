"""Programs of the shape of the reference models, with random weights: what parity tests and
benchmarks run without training. `motion` is one loop, `text` a stream; both have int8 keys and
values, and rows in integers or floats between their ternary layers."""

from __future__ import annotations

import numpy as np
from device_assembler import STEP, Assembler, characters, f32, instruction

EPS = f32(1e-5)


class Block:
    """A pre-norm transformer block with int8 keys and values, over rows of an assembler."""

    def __init__(
        self, asm: Assembler, rng, rows: int, width: int, heads, hidden: int, temp, merged
    ):
        self.asm, self.rng, self.width, self.hidden, self.heads = asm, rng, width, hidden, heads
        self.kv = heads[1] * heads[2]
        self.temp, self.merged, self.has_side_path = temp, merged, False
        self.keys, self.values = asm.q8_block(rows, self.kv), asm.q8_block(rows, self.kv)

    def ternary(self, dst, rows, cols):
        trits = self.rng.integers(-1, 2, (rows, cols))
        store = self.asm.t2d if self.merged else self.asm.t2
        weights = store(trits, 1.2 / np.sqrt(cols))
        return instruction(
            "TERNARY", dst, self.temp["q8"], weights, 0, self.temp["scratch"], n=(cols, rows)
        )

    def norm(self, dst, x):
        gain = self.asm.f16(1 + 0.1 * self.rng.standard_normal(self.width))
        return instruction("RMSNORM", dst, x, gain, n=(self.width,), imm=EPS)

    def rope(self, x, width):
        head = self.heads[2]
        return instruction("ROPE", x, x, self.temp["frequency"], n=(width, head))

    def norm_q8(self, x):
        gain = self.rng.integers(24000, 32767, self.width)
        weights = self.asm.i16(gain[None], [1 / 28000])
        t = self.temp
        return instruction("NORM_Q8", t["q8"], x, weights, 0, t["n"], n=(self.width,), imm=EPS)

    def ternary16(self, dst, rows, cols):
        store, t = self.asm.t2d if self.merged else self.asm.t2, self.temp
        weights = store(self.rng.integers(-1, 2, (rows, cols)), 1.2 / np.sqrt(cols))
        operands = (dst, t["q8"], weights, 0, t["scratch"], t["u"])
        return instruction("TERNARY16", *operands, n=(cols, rows))

    def side_path(self, dst, rows, cols, rank=4):
        """A trained LoRA beside a ternary layer."""
        a, b = (self.asm.f32(self.rng.standard_normal(s) / 8) for s in ((rank, cols), (rows, rank)))
        t = self.temp
        places = (t["scores"], t["n"], t["u"])
        return instruction("LORA16", dst, t["q8"], a, b, *places, n=(cols, rows, rank), imm=f32(2))

    def integer_code(self, x) -> list[bytes]:
        """The block with integer rows."""
        w, kv, h, t = self.width, self.kv, self.hidden, self.temp
        rope = lambda a, n: instruction("ROPE16", a, a, t["frequency"], n=(n, self.heads[2]))
        store = lambda block, a: instruction("NARROW", block | STEP, a, n=(kv,))
        attend = (t["n"], t["q16"], self.keys, self.values, t["scores"])
        return [
            self.norm_q8(x),
            self.ternary16(t["q16"], w, w),
            *([self.side_path(t["q16"], w, w)] if self.has_side_path else []),
            self.ternary16(t["k16"], kv, w),
            rope(t["q16"], w),
            rope(t["k16"], kv),
            store(self.keys, t["k16"]),
            self.ternary16(t["k16"], kv, w),
            store(self.values, t["k16"]),
            instruction("ATTENTION_Q8", *attend, n=self.heads, flags=1),
            instruction("QUANTIZE", t["q8"], t["n"], n=(w,)),
            self.ternary(t["n"], w, w),
            instruction("ADD", x, x, t["n"], n=(w,)),
            self.norm_q8(x),
            self.ternary16(t["g16"], h, w),
            self.ternary16(t["u16"], h, w),
            instruction("SWIGLU_Q8", t["q8"], t["g16"], t["u16"], 0, t["u"], n=(h,)),
            self.ternary(t["n"], w, h),
            instruction("ADD", x, x, t["n"], n=(w,)),
        ]

    def code(self, x) -> list[bytes]:
        w, kv, h, t = self.width, self.kv, self.hidden, self.temp
        quantize = lambda n, a: instruction("QUANTIZE", t["q8"], a, n=(n,))
        store = lambda block, a: instruction("QUANTIZE", block | STEP, a, n=(kv,))
        return [
            self.norm(t["n"], x),
            quantize(w, t["n"]),
            self.ternary(t["q"], w, w),
            self.ternary(t["k"], kv, w),
            self.ternary(t["v"], kv, w),
            self.rope(t["q"], w),
            self.rope(t["k"], kv),
            store(self.keys, t["k"]),
            store(self.values, t["v"]),
            instruction("QUANTIZE16", t["q16"], t["q"], n=(w,)),
            instruction(
                "ATTENTION_Q8",
                *(t["n"], t["q16"], self.keys, self.values, t["scores"]),
                n=self.heads,
                flags=1,
            ),
            quantize(w, t["n"]),
            self.ternary(t["n"], w, w),
            instruction("ADD", x, x, t["n"], n=(w,)),
            self.norm(t["n"], x),
            quantize(w, t["n"]),
            self.ternary(t["g"], h, w),
            self.ternary(t["u"], h, w),
            instruction("SWIGLU", t["g"], t["g"], t["u"], n=(h,)),
            quantize(h, t["g"]),
            self.ternary(t["n"], w, h),
            instruction("ADD", x, x, t["n"], n=(w,)),
        ]


def _temporaries(asm: Assembler, rows: int, width: int, heads, hidden: int, integer: bool):
    """Places that all blocks share."""
    kv = heads[1] * heads[2]
    floats = {"n": width, "u": hidden}
    if not integer:
        floats |= {"q": width, "k": kv, "v": kv, "g": hidden}
    rows16 = {"q16": width} | ({"k16": kv, "g16": hidden, "u16": hidden} if integer else {})
    return {
        **{name: asm.room(n) for name, n in floats.items()},
        **{name: asm.q16(n) for name, n in rows16.items()},
        "q8": asm.q8(max(hidden, width)),
        "scores": asm.room(3 * rows),
        "scratch": asm.scratch(max(hidden, width)),
        "frequency": asm.f32(10000.0 ** (-np.arange(0, heads[2], 2) / heads[2])),
    }


def _int8(asm: Assembler, rng, rows: int, cols: int) -> int:
    scale = np.full(rows, 1 / 127 / np.sqrt(cols))
    return asm.i8(rng.integers(-127, 128, (rows, cols)), scale)


def motion(
    seed: int = 3, merged: bool = False, integer: bool = True, side_path: bool = False
) -> Assembler:
    """6 channels, 100 samples, patches of 4 -> 64, 2 layers of 4 heads, SwiGLU 128, 4 classes.
    `side_path`: with a LoRA in the first layer."""
    rng = np.random.default_rng(seed)
    rows, width, hidden, heads, patch = 25, 64, 128, (4, 4, 16), 24
    asm = Assembler(6, 100, 4, "motion")
    gain, shift = asm.f32(np.full((1, 6), 0.001)), asm.f32(np.zeros((1, 6)))
    embed, bias, head = (
        _int8(asm, rng, width, patch),
        asm.f16(rng.standard_normal(width)),
        _int8(asm, rng, 4, width),
    )
    temp = _temporaries(asm, rows, width, heads, hidden, integer)
    x, pool = asm.room(width), asm.room(width)
    blocks = [Block(asm, rng, rows, width, heads, hidden, temp, merged) for _ in range(2)]
    blocks[0].has_side_path = side_path
    body = [
        instruction("INPUT", temp["n"], asm.input | STEP, gain, shift, n=(patch, 6), imm=600),
        instruction("QUANTIZE16", temp["q16"], temp["n"], n=(patch,)),
        instruction("LINEAR_I8", x, temp["q16"], embed, bias, n=(patch, width)),
        *(line for block in blocks for line in (block.integer_code if integer else block.code)(x)),
        blocks[0].norm(temp["n"], x),
        instruction("MEANPOOL", pool, temp["n"], n=(width,)),
    ]
    asm.infer = [
        instruction("LOOP", n=(rows, len(body))),
        *body,
        instruction("QUANTIZE16", temp["q16"], pool, n=(width,)),
        instruction("LINEAR_I8", asm.logits, temp["q16"], head, n=(width, 4)),
    ]
    return asm


def text(
    seed: int = 4, context: int = 128, merged: bool = False, integer: bool = True
) -> Assembler:
    """96 characters -> 128, 4 layers of 4 heads over 2, SwiGLU 256."""
    rng = np.random.default_rng(seed)
    width, hidden, heads, outputs = 128, 256, (4, 2, 32), 96
    asm = Assembler(
        1, context, outputs, "text", vocabulary=characters([*range(32, 127), 0xFFFFFFFF])
    )
    embed = asm.f16(rng.standard_normal((outputs, width)))
    head = _int8(asm, rng, outputs, width)
    temp = _temporaries(asm, context, width, heads, hidden, integer)
    x = asm.room(width)
    blocks = [Block(asm, rng, context, width, heads, hidden, temp, merged) for _ in range(4)]
    asm.infer = [
        instruction("EMBEDDING", x, 0, embed, n=(width, outputs)),
        *(line for block in blocks for line in (block.integer_code if integer else block.code)(x)),
        blocks[0].norm(temp["n"], x),
        instruction("QUANTIZE16", temp["q16"], temp["n"], n=(width,)),
        instruction("LINEAR_I8", asm.logits, temp["q16"], head, n=(width, outputs)),
    ]
    return asm


def odd(seed: int = 5) -> Assembler:
    """Rows of integers with odd ends, which loops over pairs treat on their own: the widths 1, 3,
    7 and 9 of patches of 24, and their results summed into 5 classes."""
    rng = np.random.default_rng(seed)
    classes, patch = 5, 24
    asm = Assembler(6, 100, classes, "odd")
    gain, shift = asm.f32(np.full((1, 6), 0.001)), asm.f32(np.zeros((1, 6)))
    trits = lambda rows, cols: asm.t2(rng.integers(-1, 2, (rows, cols)), 0.4)
    x, y, total, pool, scratch = (
        *map(asm.room, (patch, classes, classes, classes)),
        asm.scratch(9),
    )

    def sum_up(code: bytes) -> list[bytes]:
        return [code, instruction("ADD", total, total, y, n=(classes,))]

    body = [
        instruction("INPUT", x, asm.input | STEP, gain, shift, n=(patch, 6), imm=600),
        instruction("ZERO", total, n=(classes, 1)),
    ]
    for n in (1, 3, 7, 9):
        q8, g16, u16, d = asm.q8(n), asm.q16(n), asm.q16(n), asm.room(n)
        gains = asm.i16(rng.integers(20000, 32767, (1, n)), [1 / 28000])
        weights, linear = trits(classes, n), _int8(asm, rng, classes, n)
        to_classes = instruction("TERNARY", y, q8, weights, 0, scratch, n=(n, classes))
        body += [
            instruction("NORM_Q8", q8, x, gains, 0, d, n=(n,), imm=EPS),
            *(
                instruction("TERNARY16", q16, q8, trits(n, n), 0, scratch, d, n=(n, n))
                for q16 in (g16, u16)
            ),
            instruction("NARROW", q8, g16, n=(n,)),
            *sum_up(to_classes),
            instruction("SWIGLU_Q8", q8, g16, u16, 0, d, n=(n,)),
            *sum_up(to_classes),
            instruction("QUANTIZE16", g16, x, n=(n,)),
            *sum_up(instruction("LINEAR_I8", y, g16, linear, n=(n, classes))),
        ]
    body.append(instruction("MEANPOOL", pool, total, n=(classes,)))
    asm.infer = [
        instruction("LOOP", n=(25, len(body))),
        *body,
        instruction("COPY", asm.logits, pool, n=(classes,)),
    ]
    return asm
