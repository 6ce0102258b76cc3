"""Instructions before they have addresses: operands are buffers, tensors and adapters."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..blob import opcodes as ops
from ..blob.format import Instruction
from ..blob.opcodes import Arena, Op


@dataclass(eq=False)
class Buffer:
    """A place in the arena, of `bytes` bytes, still without an offset. Compared by identity."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Ref:
    """A buffer as an operand, from byte `offset` on; with `step` the operand moves by one row per
    iteration."""

    buffer: Buffer
    step: bool = False
    offset: int = 0


@dataclass(frozen=True)
class TensorRef:
    index: int


@dataclass(frozen=True)
class AdapterRef:
    index: int


Operand = Ref | TensorRef | AdapterRef
TERNARY = (Op.TERNARY, Op.TERNARY16, Op.TERNARY_T)


@dataclass(frozen=True)
class Ins:
    """One instruction: dimensions and operands by the slots of the table in `blob.opcodes`."""

    op: Op
    n: tuple[int, ...]
    operands: dict[str, Operand]
    flags: int = 0
    imm: float | int = 0

    def accesses(self) -> Iterator[tuple[Arena, Ref, str]]:
        """(what the table says, buffer, access) for each arena operand that is there."""
        for operand in ops.SPECS[self.op].arena_operands():
            ref = self.operands.get(operand.slot)
            if isinstance(ref, Ref):
                yield operand, ref, ops.access_of(operand, self.flags)

    def encode(self, offsets: dict[Buffer, int]) -> Instruction:
        words = {slot: _word(operand, offsets) for slot, operand in self.operands.items()}
        if "imm" in words:
            words["imm"] = offsets[self.operands["imm"].buffer] // 4
        elif ops.SPECS[self.op].imm == "f32":
            words["imm"] = struct.unpack("<I", struct.pack("<f", self.imm))[0]
        else:
            words["imm"] = int(self.imm)
        dims = dict(zip(("n0", "n1", "n2"), self.n, strict=False))
        return Instruction(int(self.op), self.flags, **dims, **words)


@dataclass(eq=False)
class Loop:
    """A body that runs for each of `rows` rows; `reverse`: last row first."""

    rows: int
    reverse: bool = False
    body: list[Ins] = field(default_factory=list)


Listing = list[Ins | Loop]


def _word(operand: Operand, offsets: dict[Buffer, int]) -> int:
    if isinstance(operand, Ref):
        return ops.arena_word(offsets[operand.buffer] + operand.offset, operand.step)
    if isinstance(operand, TensorRef):
        return ops.tensor_word(operand.index)
    return ops.adapter_word(operand.index)


def encode(
    listing: Listing, offsets: dict[Buffer, int], stream: bool = False
) -> tuple[Instruction, ...]:
    """The instructions of a program, loops in front of their bodies; of a stream, its one body."""
    code: list[Instruction] = []
    for item in listing:
        if isinstance(item, Loop) and not stream:
            flags = ops.REVERSE if item.reverse else 0
            code.append(Instruction(int(Op.LOOP), flags, item.rows, len(item.body)))
        body = item.body if isinstance(item, Loop) else [item]
        code.extend(ins.encode(offsets) for ins in body)
    return tuple(code)


def work(listing: Listing) -> int:
    """Multiply-accumulates of a program, roughly: what two plans of one model are compared by."""
    total = 0
    for item in listing:
        rows, body = (item.rows, item.body) if isinstance(item, Loop) else (1, [item])
        total += rows * sum(_macs(ins, rows) for ins in body)
    return total


def _macs(ins: Ins, rows: int) -> int:
    n0, n1, n2 = (*ins.n, 0, 0, 0)[:3]
    if ins.op in (Op.LINEAR, Op.LINEAR_I8, Op.LINEAR_T, *TERNARY):
        return n0 * n1
    if ins.op in (*ops.ATTENTIONS, Op.ATTENTION_BWD):
        return n0 * n2 * rows * (5 if ins.op == Op.ATTENTION_BWD else 2)
    if ins.op in (Op.LORA, Op.LORA16, Op.LORA_BWD):
        return n2 * (n0 + n1) * (3 if ins.op == Op.LORA_BWD else 1)
    return n0
