"""The names and numbers of FORMAT.md section 5: instructions and their flags, operand words."""

from __future__ import annotations

from enum import IntEnum

ACC = 0x80
REVERSE = 1  # LOOP: last row first
INTERLEAVED, ROTATE_BACK = 1, 2  # ROPE
CAUSAL = 1  # ATTENTION

AFTER_INFER, STREAM = 1, 2  # of a program

SLOTS = ("dst", "a", "b", "c", "d", "e", "f", "imm")


class Op(IntEnum):
    """Opcodes; numbers never change within a major."""

    LOOP = 1
    INPUT = 2
    ZERO = 3
    COPY = 4
    ADD = 5
    MUL = 6
    SCALE = 7
    LINEAR = 8
    QUANTIZE = 9
    TERNARY = 10
    LORA = 11
    RMSNORM = 12
    ROPE = 13
    ATTENTION = 14
    SWIGLU = 15
    SILU = 16
    GELU = 17
    RELU = 18
    MEANPOOL = 19
    LAYERNORM = 20
    EMBEDDING = 21
    QUANTIZE16 = 22
    LINEAR_I8 = 23
    ATTENTION_Q8 = 24
    TERNARY16 = 25
    ROPE16 = 26
    NARROW = 27
    SWIGLU_Q8 = 28
    NORM_Q8 = 29
    LORA16 = 30
    CROSS_ENTROPY = 64
    LINEAR_T = 65
    TERNARY_T = 67
    LORA_BWD = 68
    RMSNORM_BWD = 69
    ATTENTION_BWD = 70
    SWIGLU_BWD = 71
    SILU_BWD = 72
    GELU_BWD = 73
    RELU_BWD = 74
    LAYERNORM_BWD = 75
    OPTIMIZE = 79


FIRST_BACKWARD = 64
MAX_SHORT_SUM = 512  # int32 sums of so many products of int8 and int16 are exact

ATTENTIONS = (Op.ATTENTION, Op.ATTENTION_Q8)
WINDOW_ONLY = (Op.LOOP, Op.INPUT, Op.MEANPOOL)  # not in a stream

# ---- Operand words ------------------------------------------------------------------------------

NONE, ARENA, TENSOR, ADAPTER = 0, 1, 2, 3
STEP = 1 << 28
_INDEX = (1 << 28) - 1


def arena_word(byte: int, step: bool = False) -> int:
    """Operand word of an arena byte offset (a multiple of 4)."""
    return ARENA << 29 | (STEP if step else 0) | byte // 4


def tensor_word(index: int) -> int:
    """Operand word of a tensor of the directory."""
    return TENSOR << 29 | index


def adapter_word(index: int) -> int:
    """Operand word of an adapter of the directory."""
    return ADAPTER << 29 | index


def split_word(word: int) -> tuple[int, bool, int]:
    """(space, step, index) of an operand word; an arena index counts words of 4 bytes."""
    return word >> 29, bool(word & STEP), word & _INDEX
