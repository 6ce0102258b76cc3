"""Programs as text, one instruction a line, for `ternio inspect --programs`."""

from __future__ import annotations

from collections.abc import Iterator

from . import opcodes as ops
from .check import walk
from .format import Blob, Instruction, Program
from .opcodes import Arena, Op


def disassemble(blob: Blob, program: Program) -> list[str]:
    """Lines such as `12  TERNARY  64 64  @1280[t], @1600, layers.0.q, @2048`; loops indent."""
    lines = []
    for placed in walk(program.code, blob.io.length if program.stream else 0):
        i = placed.instruction
        spec = ops.SPECS[i.op]
        dims = " ".join(str(n) for n in (i.n0, i.n1, i.n2)[: spec.dims])
        words = [spec.op.name + _flags(i), dims, ", ".join(_operands(blob, i))]
        indent = "  " if placed.loop and not program.stream else ""
        text = "  ".join(word for word in words if word)
        lines.append(f"{placed.index:4}  {indent}{text}")
    return lines


def _flags(i: Instruction) -> str:
    names = {ops.ACC: "+="}
    if i.op == Op.LOOP:
        names[ops.REVERSE] = " down"
    elif i.op in (Op.ROPE, Op.ROPE16):
        names |= {ops.INTERLEAVED: " interleaved", ops.ROTATE_BACK: " back"}
    elif i.op in (*ops.ATTENTIONS, Op.ATTENTION_BWD):
        names[ops.CAUSAL] = " causal"
    return "".join(text for bit, text in names.items() if i.flags & bit)


def _operands(blob: Blob, i: Instruction) -> Iterator[str]:
    spec = ops.SPECS[i.op]
    named = {o.slot: o for o in spec.operands}
    for slot in ops.SLOTS[:-1]:
        word = getattr(i, slot)
        if word:
            yield _word(blob, word)
        elif slot in named and isinstance(named[slot], Arena):
            yield "-"
    if spec.imm == "f32":
        yield f"{i.imm_f32():.6g}"
    elif spec.imm == "int":
        yield str(i.imm)
    elif "imm" in named:
        yield f"@{4 * i.imm}"


def _word(blob: Blob, word: int) -> str:
    space, step, index = ops.split_word(word)
    if space == ops.ARENA:
        return f"@{4 * index}{'[t]' if step else ''}"
    directory = blob.tensors if space == ops.TENSOR else blob.adapters
    prefix = "" if space == ops.TENSOR else "lora:"
    return prefix + directory[index].name
