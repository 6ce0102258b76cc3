"""Checks a program against FORMAT.md section 5: every operand's kind, size, place and alignment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BlobError
from . import opcodes as ops
from .opcodes import Arena, Factors, Op, Spec, Weight

if TYPE_CHECKING:
    from .format import Blob, Instruction, Program


class Placed(NamedTuple):
    """An instruction with its place: index in the program and the loop around it (0: none)."""

    index: int
    loop: int  # number of the enclosing loop, from 1; 0 outside loops
    rows: int
    instruction: Instruction


def walk(code: tuple[Instruction, ...], stream_rows: int = 0) -> Iterator[Placed]:
    """Instructions in program order with the row count of their loop; a LOOP has loop 0.

    `stream_rows`: of the one loop whose body a stream program is; 0 for other programs.
    """
    if stream_rows:
        yield from (Placed(index, 1, stream_rows, i) for index, i in enumerate(code))
        return
    left = rows = loop = 0
    for index, instruction in enumerate(code):
        inside = left > 0
        yield Placed(index, loop if inside else 0, rows if inside else 1, instruction)
        left -= inside
        if instruction.op == Op.LOOP and not inside:
            rows, left, loop = instruction.n0, instruction.n1, loop + 1


def check_program(blob: Blob, program: Program, what: str) -> None:
    """Raises BlobError, naming the instruction, where a program could leave blob or arena."""
    checker = _Checker(blob, program, what)
    checker.header()
    for placed in walk(program.code, blob.io.length if program.stream else 0):
        checker.instruction(placed)
    checker.order()


class _Checker:
    def __init__(self, blob: Blob, program: Program, what: str) -> None:
        self.blob, self.program, self.what = blob, program, what
        self.adapting = what == "ADPT"
        self.limit = program.state if self.adapting else blob.infer_arena
        self.top = blob.infer_arena  # where the furthest operand ends
        self.at = what

    def require(self, condition: bool, text: str) -> None:
        if not condition:
            raise BlobError(f"{self.at}: {text}")

    def header(self) -> None:
        io, program = self.blob.io, self.program
        if not self.adapting:
            self.require(program.stream == io.is_stream, "its stream flag does not fit the input")
        if program.stream:
            self.require(program.window == 0, "a stream has no input window")
        else:
            self.extent("input window", 4 * program.window, 2 * io.channels * io.length, 16)
        self.extent("logits", 4 * program.logits, 4 * io.outputs, 4)
        if not self.adapting:
            self.require(program.state == 0, "the state offset is for ADPT only")
            return
        if program.after_infer:
            infer = (self.blob.infer.window, self.blob.infer.logits)
            same = (program.window, program.logits) == infer
            self.require(same, "window and logits are not where infer has them")
        block = (4 * self.blob.adapter_floats + 15) // 16 * 16
        self.require(program.state % 16 == 0, "the state is not 16-byte aligned")
        self.require(program.state >= self.blob.infer_arena, "the state overlaps infer's arena")
        end = program.state + 4 * block
        stated = self.blob.adapt_arena
        self.require(end == stated, f"the state ends at {end}, adapt_arena is {stated}")

    def extent(self, name: str, start: int, size: int, align: int) -> None:
        self.require(start % align == 0, f"{name} at byte {start} is not {align}-byte aligned")
        end = start + size
        self.require(end <= self.limit, f"{name} ends at byte {end}, beyond the {self.limit} there")
        self.top = max(self.top, end)

    def instruction(self, placed: Placed) -> None:
        i = placed.instruction
        spec = ops.SPECS.get(i.op)
        self.at = f"{self.what} instruction {placed.index}"
        self.require(spec is not None, f"opcode {i.op} is not known")
        self.at += f" ({spec.op.name})"
        self.require(self.adapting or i.op < ops.FIRST_BACKWARD, "not allowed in infer")
        if self.program.stream:
            self.require(i.op not in ops.WINDOW_ONLY, "not allowed in a stream")
        else:
            self.require(i.op != Op.EMBEDDING, "not allowed outside a stream")
        self.require(i.flags & ~spec.flags == 0, f"flags {i.flags:#x}")
        for k, n in enumerate((i.n0, i.n1, i.n2)):
            self.require((n > 0) == (k < spec.dims), f"n{k} is {n}")
        if i.op == Op.LOOP:
            room = len(self.program.code) - placed.index - 1
            self.require(placed.loop == 0, "loops do not nest")
            self.require(i.n1 <= room, f"its body of {i.n1} exceeds the program")
        if spec.imm == "f32":
            self.require(math.isfinite(i.imm_f32()), f"imm is {i.imm_f32()}")
        self.dimensions(i)
        self.operands(spec, placed)
        self.exactness(placed)

    def order(self) -> None:
        """`adapt` computes its loss once, and moves the factors once, at its end."""
        if not self.adapting:
            return
        self.at = self.what
        outside = [p.instruction.op for p in walk(self.program.code) if p.loop == 0]
        steps = sum(i.op == Op.OPTIMIZE for i in self.program.code)
        losses = sum(i.op == Op.CROSS_ENTROPY for i in self.program.code)
        ends = outside[-1:] == [Op.OPTIMIZE] and steps == 1
        self.require(ends, "OPTIMIZE is not its last instruction, and the only one")
        state = (self.top + 15) // 16 * 16
        self.require(self.program.state == state, f"the state could begin at byte {state}")
        once = losses == 1 and Op.CROSS_ENTROPY in outside
        self.require(once, "CROSS_ENTROPY is not there once, outside loops")

    def dimensions(self, i: Instruction) -> None:
        if i.op in (Op.ROPE, Op.ROPE16):
            self.require(i.n1 % 2 == 0 and i.n0 % i.n1 == 0, f"{i.n0} in heads of {i.n1}")
        elif i.op in (*ops.ATTENTIONS, Op.ATTENTION_BWD):
            self.require(i.n0 % i.n1 == 0, f"{i.n0} heads over {i.n1} KV heads")
            masked = bool(i.flags & ops.CAUSAL) or not self.program.stream
            self.require(masked, "attention in a stream is causal")
        elif i.op == Op.EMBEDDING:
            outputs = self.blob.io.outputs
            self.require(i.n1 == outputs, f"{i.n1} tokens, not {outputs}")
        elif i.op == Op.CROSS_ENTROPY:
            self.require(i.n0 == self.blob.io.outputs, f"{i.n0} logits, not {self.blob.io.outputs}")

    def exactness(self, placed: Placed) -> None:
        """Sums of integers that int32 must hold."""
        i, most = placed.instruction, ops.MAX_SHORT_SUM
        if i.op == Op.LINEAR_I8:
            self.require(i.n0 <= most, f"n0 is {i.n0}, {most} at most")
        elif i.op == Op.ATTENTION_Q8:
            short = i.n2 <= most // 2 and placed.rows <= most
            text = f"heads of {i.n2}, {placed.rows} rows; {most // 2} and {most} at most"
            self.require(short, text)

    def operands(self, spec: Spec, placed: Placed) -> None:
        used = {"imm"} if spec.imm else set()
        for operand in spec.operands:
            if isinstance(operand, Arena):
                used.add(operand.slot)
                self.arena(operand, placed)
            elif isinstance(operand, Weight):
                used.add(operand.slot)
                self.weight(operand, placed.instruction)
            else:
                used |= self.factors(operand, placed.instruction)
        for slot in ops.SLOTS:
            if slot not in used:
                value = getattr(placed.instruction, slot)
                self.require(value == 0, f"{slot} is not used but {value:#x}")

    def arena(self, operand: Arena, placed: Placed) -> None:
        i, slot = placed.instruction, operand.slot
        word = getattr(i, slot)
        if word == 0 and operand.optional:
            return
        if slot == "imm":  # a plain arena word
            self.require(word < ops.STEP, f"imm is {word:#x}")
            word |= ops.ARENA << 29
        space, step, index = ops.split_word(word)
        self.require(space == ops.ARENA, f"{slot} is not in the arena")
        self.require(operand.may_step or not step, f"{slot} must not step")
        size = operand.size(i.n0, i.n1, i.n2, placed.rows)
        size *= placed.rows if step else 1
        if i.op == Op.INPUT and slot == "a":
            size = min(size, 2 * i.imm)
        self.extent(slot, 4 * index, size, max(operand.align, 4))

    def weight(self, operand: Weight, i: Instruction) -> None:
        word = getattr(i, operand.slot)
        if word != 0 or not operand.optional:
            self.tensor(operand.slot, word, operand.dtypes, operand.shape(i.n0, i.n1, i.n2))

    def tensor(self, slot: str, word: int, dtypes: tuple[str, ...], shape: tuple[int, int]) -> None:
        space, step, index = ops.split_word(word)
        there = space == ops.TENSOR and not step and index < len(self.blob.tensors)
        self.require(there, f"{slot} names no tensor")
        t = self.blob.tensors[index]
        fits = t.dtype in dtypes and (t.rows, t.cols) == shape
        expected = f"{'/'.join(dtypes)} {list(shape)}"
        self.require(fits, f"{slot}: {t.name} is {t.dtype} {[t.rows, t.cols]}, {expected} expected")

    def factors(self, operand: Factors, i: Instruction) -> set[str]:
        second = chr(ord(operand.slot) + 1)
        word = getattr(i, operand.slot)
        space, step, index = ops.split_word(word)
        if space == ops.ADAPTER:
            there = not step and index < len(self.blob.adapters)
            self.require(there, f"{operand.slot} names no adapter")
            x = self.blob.adapters[index]
            fits = (x.inputs, x.outputs, x.rank) == (i.n0, i.n1, i.n2)
            self.require(fits, f"adapter {x.name} is {x.inputs} -> {x.outputs}, rank {x.rank}")
            return {operand.slot}
        self.tensor(operand.slot, word, ("F32", "F16"), (i.n2, i.n0))
        self.tensor(second, getattr(i, second), ("F32", "F16"), (i.n1, i.n2))
        return {operand.slot, second}
