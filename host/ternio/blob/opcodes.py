"""The instruction set of FORMAT.md section 5 as a table: what each operand is, its size and access.

The encoder, the checker, the disassembler and the memory planner all read this one table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

ACC = 0x80
REVERSE = 1  # LOOP: last row first
INTERLEAVED, ROTATE_BACK = 1, 2  # ROPE
CAUSAL = 1  # ATTENTION

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
    CROSS_ENTROPY = 64
    LINEAR_T = 65
    QUANTIZE16 = 66
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

Size = Callable[[int, int, int, int], int]
"""Bytes of an operand from n0, n1, n2 and the rows T of the enclosing loop."""


def q8_bytes(n: int) -> int:
    """A row quantised to int8: values padded to 64, the scale, padding to 16."""
    return (n + 63) // 64 * 64 + 16


def q16_bytes(n: int) -> int:
    """A row quantised to int16: values padded to 8, the scale, padding to 16."""
    return (n + 7) // 8 * 16 + 16


def scratch_bytes(n: int) -> int:
    """Working memory of a ternary kernel over n columns."""
    return max(2 * ((n + 63) // 64 * 64), 1408)


@dataclass(frozen=True)
class Arena:
    """An operand in the arena. `access` is r, w, rw or x (scratch: contents do not matter)."""

    slot: str
    access: str
    size: Size
    may_step: bool = True
    optional: bool = False
    align: int = 4


@dataclass(frozen=True)
class Weight:
    """An operand in the tensor directory: allowed dtypes and [rows, cols]."""

    slot: str
    dtypes: tuple[str, ...]
    shape: Callable[[int, int, int], tuple[int, int]]
    optional: bool = False


@dataclass(frozen=True)
class Factors:
    """An adapter (slots `at`), or a tensor pair A, B (slots `at` and the next letter)."""

    slot: str = "b"


@dataclass(frozen=True)
class Spec:
    """One row of the tables of FORMAT.md."""

    op: Op
    operands: tuple[Arena | Weight | Factors, ...]
    dims: int
    flags: int = 0
    imm: str = ""  # "f32" or "int" where imm is a number
    elementwise: bool = False  # dst may be the same operand as an input

    def arena_operands(self) -> list[Arena]:
        return [o for o in self.operands if isinstance(o, Arena)]


def _n0(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n0


def _n1(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n1


def _heads(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n0 * n2


def _keys(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n1 * n2 * rows


def _kernel_scratch(n0: int, n1: int, n2: int, rows: int) -> int:
    return scratch_bytes(n0)


def _row(slot: str, access: str, size: Size = _n0, optional: bool = False) -> Arena:
    return Arena(slot, access, size, optional=optional)


def _fixed(slot: str, access: str, size: Size, align: int = 4) -> Arena:
    return Arena(slot, access, size, may_step=False, align=align)


def _q8(slot: str, access: str) -> Arena:
    return Arena(slot, access, lambda n0, n1, n2, rows: q8_bytes(n0), align=16)


_FLOAT = ("F32", "F16", "I8")
_GAIN = ("F32", "F16")


def _gain(slot: str, optional: bool = False) -> Weight:
    return Weight(slot, _GAIN, lambda n0, n1, n2: (1, n0), optional)


def _matrix(dtypes: tuple[str, ...]) -> Weight:
    return Weight("b", dtypes, lambda n0, n1, n2: (n1, n0))


def _unary(op: Op) -> Spec:
    return Spec(op, (_row("dst", "w"), _row("a", "r")), 1, elementwise=True)


def _unary_backward(op: Op) -> Spec:
    operands = (_row("dst", "w"), _row("a", "r"), _row("c", "r"))
    return Spec(op, operands, 1, flags=ACC, elementwise=True)


def _channels(slot: str) -> Weight:
    return Weight(slot, ("F32",), lambda n0, n1, n2: (1, n1))


_SPECS = (
    Spec(Op.LOOP, (), 2, flags=REVERSE),
    Spec(
        Op.INPUT,
        (
            _row("dst", "w"),
            Arena("a", "r", lambda n0, n1, n2, rows: 2 * n0, align=2),
            _channels("b"),
            _channels("c"),
        ),
        2,
        imm="int",
    ),
    Spec(Op.ZERO, (_fixed("dst", "w", lambda n0, n1, n2, rows: 4 * n0 * n1),), 2),
    Spec(Op.COPY, (_row("dst", "w"), _row("a", "r")), 1, flags=ACC, elementwise=True),
    Spec(Op.ADD, (_row("dst", "w"), _row("a", "r"), _row("b", "r")), 1, elementwise=True),
    Spec(Op.MUL, (_row("dst", "w"), _row("a", "r"), _row("b", "r")), 1, elementwise=True),
    Spec(Op.SCALE, (_row("dst", "w"), _row("a", "r")), 1, flags=ACC, imm="f32", elementwise=True),
    Spec(
        Op.LINEAR,
        (
            _row("dst", "w", _n1),
            _row("a", "r"),
            _matrix(_FLOAT),
            Weight("c", _GAIN, lambda n0, n1, n2: (1, n1), optional=True),
        ),
        2,
    ),
    Spec(Op.QUANTIZE, (_q8("dst", "w"), _row("a", "r")), 1),
    Spec(
        Op.TERNARY,
        (
            _row("dst", "w", _n1),
            _q8("a", "r"),
            _matrix(("T2",)),
            _fixed("d", "x", _kernel_scratch, align=16),
        ),
        2,
    ),
    Spec(
        Op.LORA,
        (
            _row("dst", "rw", _n1),
            _row("a", "r"),
            Factors(),
            _fixed("d", "x", lambda n0, n1, n2, rows: 4 * n2),
        ),
        3,
        imm="f32",
    ),
    Spec(
        Op.RMSNORM,
        (_row("dst", "w"), _row("a", "r"), _gain("b", optional=True)),
        1,
        imm="f32",
        elementwise=True,
    ),
    Spec(
        Op.ROPE,
        (
            _row("dst", "w"),
            _row("a", "r"),
            Weight("b", ("F32",), lambda n0, n1, n2: (1, n1 // 2)),
        ),
        2,
        flags=INTERLEAVED | ROTATE_BACK,
        elementwise=True,
    ),
    Spec(
        Op.ATTENTION,
        (
            _row("dst", "w", _heads),
            _row("a", "r", _heads),
            _fixed("b", "r", _keys),
            _fixed("c", "r", _keys),
            _fixed("d", "x", lambda n0, n1, n2, rows: 4 * rows),
        ),
        3,
        flags=CAUSAL,
    ),
    Spec(Op.SWIGLU, (_row("dst", "w"), _row("a", "r"), _row("b", "r")), 1, elementwise=True),
    _unary(Op.SILU),
    _unary(Op.GELU),
    _unary(Op.RELU),
    Spec(Op.MEANPOOL, (_fixed("dst", "rw", _n0), _row("a", "r")), 1),
    Spec(
        Op.LAYERNORM,
        (_row("dst", "w"), _row("a", "r"), _gain("b"), _gain("c", optional=True)),
        1,
        imm="f32",
        elementwise=True,
    ),
    Spec(Op.CROSS_ENTROPY, (_row("dst", "w"), _row("a", "r")), 1),
    Spec(Op.LINEAR_T, (_row("dst", "w"), _row("a", "r", _n1), _matrix(_FLOAT)), 2, flags=ACC),
    Spec(
        Op.QUANTIZE16,
        (Arena("dst", "w", lambda n0, n1, n2, rows: q16_bytes(n0), align=16), _row("a", "r")),
        1,
    ),
    Spec(
        Op.TERNARY_T,
        (
            _row("dst", "w"),
            Arena("a", "r", lambda n0, n1, n2, rows: q16_bytes(n1), align=16),
            _matrix(("T2",)),
            _fixed("d", "x", _kernel_scratch, align=16),
        ),
        2,
        flags=ACC,
    ),
    Spec(
        Op.LORA_BWD,
        (
            _row("dst", "w", optional=True),
            _row("a", "r"),
            Factors(),
            _row("d", "r", _n1),
            _fixed("e", "x", lambda n0, n1, n2, rows: 8 * n2),
        ),
        3,
        flags=ACC,
        imm="f32",
    ),
    Spec(
        Op.RMSNORM_BWD,
        (_row("dst", "w"), _row("a", "r"), _gain("b", optional=True), _row("c", "r")),
        1,
        flags=ACC,
        imm="f32",
        elementwise=True,
    ),
    Spec(
        Op.ATTENTION_BWD,
        (
            _row("dst", "w", _heads),
            _row("a", "r", _heads),
            _fixed("b", "r", _keys),
            _fixed("c", "r", _keys),
            _row("d", "r", _heads),
            _fixed("e", "rw", _keys),
            _fixed("f", "rw", _keys),
            _fixed("imm", "x", lambda n0, n1, n2, rows: 8 * rows),
        ),
        3,
        flags=CAUSAL,
    ),
    Spec(
        Op.SWIGLU_BWD,
        (
            _row("dst", "w"),
            _row("a", "r"),
            _row("b", "r"),
            _row("c", "r"),
            _row("d", "w"),
        ),
        1,
        elementwise=True,
    ),
    _unary_backward(Op.SILU_BWD),
    _unary_backward(Op.GELU_BWD),
    _unary_backward(Op.RELU_BWD),
    Spec(
        Op.LAYERNORM_BWD,
        (_row("dst", "w"), _row("a", "r"), _gain("b"), _row("c", "r")),
        1,
        flags=ACC,
        imm="f32",
        elementwise=True,
    ),
    Spec(Op.OPTIMIZE, (), 0),
)

SPECS: dict[int, Spec] = {int(spec.op): spec for spec in _SPECS}


def access_of(operand: Arena, flags: int) -> str:
    """How an instruction with these flags touches an operand: `acc` reads the destination too."""
    return "rw" if operand.slot == "dst" and flags & ACC else operand.access


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
