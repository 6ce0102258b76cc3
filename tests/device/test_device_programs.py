"""The loader's check of programs: fields set wrong, limits of the arena, what may stand where."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from device_assembler import ADAPTER, ARENA, OPS, STEP, TENSOR, Assembler, f32, instruction
from test_device_load import BLOB, NAN, change, section, u32


@pytest.mark.parametrize("kind", [b"INFR", b"ADPT"])
def test_program_headers(library, kind):
    at = section(kind)[1]
    for offset, new in [
        (0, u32(2)),
        (0, u32(1 << 20)),
        (0, u32(0xFFFFFFFC)),
        (4, u32(1 << 20)),
        (4, u32(0xFFFFFFFF)),
        (8, u32(16)),
        (8, u32(0xFFFFFFF0)),
        (12, u32(2)),
        (16, u32(1)),
        (28, u32(1)),
    ]:
        assert library.open(change(at + offset, new))[0] == "TR_ERR_OPERAND", (offset, new)


def refused(library, code, adapt=False, status="TR_ERR_OPERAND", asm=None):
    asm = asm or Assembler()
    good = instruction("ZERO", asm.logits, n=(asm.outputs, 1))
    if adapt:
        asm.infer, asm.adapt = [good], code
    else:
        asm.infer = code
    got = library.open(asm.build())[0]
    assert got == status, got


def programs() -> list[tuple[bytes, int]]:
    """(section, offset) of each instruction of the example."""
    out = []
    for kind in (b"INFR", b"ADPT"):
        _, offset, size = section(kind)
        out += [(kind, at) for at in range(offset + 32, offset + size, 40)]
    return out


def test_every_instruction_field_set_wrong(library):
    """Unknown opcode and flag, missing and superfluous dimensions and imm, operands of the wrong
    space, out of range, and superfluous: for every instruction of the example."""
    for kind, at in programs():
        op, _, *n = struct.unpack_from("<BBHHH", BLOB, at)
        words = struct.unpack_from("<8I", BLOB, at + 8)
        assert library.open(change(at, b"\xee"))[0] == "TR_ERR_OPCODE"
        assert library.open(change(at, b"\0"))[0] == "TR_ERR_OPCODE"
        assert library.open(change(at + 1, b"\x40"))[0] == "TR_ERR_OPERAND", op
        for k in range(3):
            status = library.open(change(at + 2 + 2 * k, struct.pack("<H", 0 if n[k] else 1)))[0]
            assert status != "TR_OK", (op, k)
        for k, word in enumerate(words[:7]):
            space = word >> 29
            for new in (7 << 29, 4 << 29 | word, 0xFFFFFFFF, (space or 1) << 29 | 0x0FFFFFFF):
                status = library.open(change(at + 8 + 4 * k, u32(new)))[0]
                assert status == "TR_ERR_OPERAND", (kind, op, k, hex(new))
            if word == 0 and not (op == OPS["LORA_BWD"] and k == 0):
                for new in (ARENA, TENSOR, ADAPTER):
                    status = library.open(change(at + 8 + 4 * k, u32(new)))[0]
                    may_be_tensor = op in (OPS["RMSNORM"], OPS["RMSNORM_BWD"]) and k == 2
                    assert status == "TR_ERR_OPERAND" or may_be_tensor, (op, k)
        if words[7] == 0 and op != OPS["INPUT"]:
            assert library.open(change(at + 36, u32(1)))[0] == "TR_ERR_OPERAND", op
        elif op not in (OPS["INPUT"], OPS["ATTENTION_BWD"]):
            assert library.open(change(at + 36, NAN))[0] == "TR_ERR_OPERAND", op


def test_arena_limits_to_the_byte(library):
    """The last row of a stepping operand may end exactly at the end of the arena."""
    asm = Assembler()
    x = asm.room(8)
    last4 = ARENA | STEP | (asm.state // 4 - 8)
    for rows, status in ((4, "TR_OK"), (5, "TR_ERR_OPERAND")):
        code = [instruction("LOOP", n=(rows, 1)), instruction("COPY", last4, x, n=(2,))]
        refused(library, code, status=status, asm=asm)


def test_blocks_and_scratch_may_not_step(library):
    asm = Assembler()
    q, k, s = asm.room(64), asm.room(64), asm.room(64)
    for words in [(q, q, k | STEP, k, s), (q, q, k, k | STEP, s), (q, q, k, k, s | STEP)]:
        refused(library, [instruction("ATTENTION", *words, n=(2, 1, 4))], asm=asm)
    refused(library, [instruction("ATTENTION", q, q, k, k, s, n=(3, 2, 4))], asm=asm)
    refused(library, [instruction("ZERO", q | STEP, n=(1, 1))], asm=asm)
    refused(library, [instruction("MEANPOOL", q | STEP, k, n=(4,))], asm=asm)


def test_quantised_rows_are_aligned(library):
    asm = Assembler()
    x, q = asm.room(64), asm.q8(32)
    asm.room(64)
    refused(library, [instruction("QUANTIZE", q, x, n=(32,))], status="TR_OK", asm=asm)
    refused(library, [instruction("QUANTIZE", q + 1, x, n=(32,))], asm=asm)


def test_rope_needs_whole_pairs(library):
    asm = Assembler()
    x, three, two = asm.room(12), asm.f32(np.ones(3)), asm.f32(np.ones(2))
    refused(library, [instruction("ROPE", x, x, three, n=(12, 6))], status="TR_OK", asm=asm)
    for dims, b in (((12, 5), two), ((10, 6), three), ((12, 6), two), ((12, 1), two)):
        refused(library, [instruction("ROPE", x, x, b, n=dims)], asm=asm)


def test_loops(library):
    asm = Assembler()
    zero = instruction("ZERO", asm.logits, n=(2, 1))
    loop = lambda rows, body, **more: instruction("LOOP", n=(rows, body), **more)
    refused(library, [loop(3, 1), zero], status="TR_OK", asm=asm)
    refused(library, [loop(3, 2), zero], asm=asm)
    refused(library, [loop(0, 1), zero], asm=asm)
    refused(library, [loop(3, 0), zero], asm=asm)
    refused(library, [loop(3, 1)], asm=asm)
    refused(library, [loop(3, 2), loop(3, 1), zero], asm=asm)
    refused(library, [loop(3, 1, flags=2), zero], asm=asm)
    refused(library, [loop(3, 1, imm=1), zero], asm=asm)


def test_where_loss_and_optimiser_may_stand(library):
    asm = Assembler()
    asm.adapter(2, 2, 1)
    dst = asm.room(2)
    loss, end = instruction("CROSS_ENTROPY", dst, asm.logits, n=(2,)), instruction("OPTIMIZE")
    loop = instruction("LOOP", n=(2, 1))
    refused(library, [loss, end], adapt=True, status="TR_OK", asm=asm)
    for code in (
        [loss],
        [end],
        [loss, loss, end],
        [end, loss],
        [loop, loss, end],
        [loss, loop, end],
    ):
        refused(library, code, adapt=True, status="TR_ERR_OPCODE", asm=asm)
    asm.adapt = []
    refused(library, [loss], status="TR_ERR_OPCODE", asm=asm)
    three = instruction("CROSS_ENTROPY", dst, asm.logits, n=(1,))
    refused(library, [three, end], adapt=True, asm=asm)


def test_adapt_operands_stay_below_the_state(library):
    asm = Assembler()
    asm.adapter(2, 2, 1)
    dst = asm.room(2)
    state = ARENA | asm.state // 4
    end = instruction("OPTIMIZE")
    good = instruction("CROSS_ENTROPY", dst, asm.logits, n=(2,))
    refused(library, [instruction("ZERO", state, n=(1, 1)), good, end], adapt=True, asm=asm)
    below = instruction("ZERO", state - 1, n=(1, 1))
    refused(library, [below, good, end], adapt=True, status="TR_OK", asm=asm)


def test_adapters_need_matching_dimensions(library):
    asm = Assembler()
    slot, x, y, z = asm.adapter(4, 3, 2), asm.room(8), asm.room(8), asm.room(8)
    lora = lambda *n: [instruction("LORA", y, x, slot, 0, z, n=n, imm=f32(1.0))]
    refused(library, lora(4, 3, 2), status="TR_OK", asm=asm)
    for dims in ((4, 3, 1), (3, 4, 2), (5, 3, 2)):
        refused(library, lora(*dims), asm=asm)
    tensor = asm.f32(np.ones((3, 2)))
    mixed = instruction("LORA", y, x, slot, tensor, z, n=(4, 3, 2), imm=f32(1.0))
    refused(library, [mixed], asm=asm)
