"""The instruction set of FORMAT.md section 5 as a table: what each operand is, its size and access.

The encoder, the checker, the disassembler and the memory planner all read this one table.
"""

from __future__ import annotations

from dataclasses import dataclass

from .instructions import (
    ACC,
    ADAPTER,
    AFTER_INFER,
    ARENA,
    ATTENTIONS,
    CAUSAL,
    FIRST_BACKWARD,
    INTERLEAVED,
    MAX_SHORT_SUM,
    NONE,
    REVERSE,
    ROTATE_BACK,
    SLOTS,
    STEP,
    STREAM,
    TENSOR,
    WINDOW_ONLY,
    Op,
    adapter_word,
    arena_word,
    split_word,
    tensor_word,
)
from .operands import (
    Arena,
    Factors,
    Weight,
    fixed,
    heads,
    kernel_scratch,
    keys,
    keys_q8,
    q8_bytes,
    q8_row,
    q16_bytes,
    q16_row,
    row,
    row_n0,
    row_n1,
    scratch_bytes,
)

__all__ = [
    "ADAPTER",
    "AFTER_INFER",
    "ARENA",
    "FIRST_BACKWARD",
    "MAX_SHORT_SUM",
    "NONE",
    "SLOTS",
    "STEP",
    "STREAM",
    "TENSOR",
    "WINDOW_ONLY",
    "adapter_word",
    "arena_word",
    "q8_bytes",
    "q16_bytes",
    "scratch_bytes",
    "split_word",
    "tensor_word",
]


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


_FLOAT = ("F32", "F16", "I8")
_GAIN = ("F32", "F16")


def _gain(slot: str, optional: bool = False, dtypes: tuple[str, ...] = _GAIN) -> Weight:
    return Weight(slot, dtypes, lambda n0, n1, n2: (1, n0), optional)


def _rms_gain() -> Weight:
    return _gain("b", optional=True, dtypes=(*_GAIN, "I16"))


def _matrix(dtypes: tuple[str, ...]) -> Weight:
    return Weight("b", dtypes, lambda n0, n1, n2: (n1, n0))


def _unary(op: Op) -> Spec:
    return Spec(op, (row("dst", "w"), row("a", "r")), 1, elementwise=True)


def _unary_backward(op: Op) -> Spec:
    operands = (row("dst", "w"), row("a", "r"), row("c", "r"))
    return Spec(op, operands, 1, flags=ACC, elementwise=True)


def _channels(slot: str) -> Weight:
    return Weight(slot, ("F32",), lambda n0, n1, n2: (1, n1))


_SPECS = (
    Spec(Op.LOOP, (), 2, flags=REVERSE),
    Spec(
        Op.INPUT,
        (
            row("dst", "w"),
            Arena("a", "r", lambda n0, n1, n2, rows: 2 * n0, align=2),
            _channels("b"),
            _channels("c"),
        ),
        2,
        imm="int",
    ),
    Spec(Op.ZERO, (fixed("dst", "w", lambda n0, n1, n2, rows: 4 * n0 * n1),), 2),
    Spec(Op.COPY, (row("dst", "w"), row("a", "r")), 1, flags=ACC, elementwise=True),
    Spec(Op.ADD, (row("dst", "w"), row("a", "r"), row("b", "r")), 1, elementwise=True),
    Spec(Op.MUL, (row("dst", "w"), row("a", "r"), row("b", "r")), 1, elementwise=True),
    Spec(Op.SCALE, (row("dst", "w"), row("a", "r")), 1, flags=ACC, imm="f32", elementwise=True),
    Spec(
        Op.LINEAR,
        (
            row("dst", "w", row_n1),
            row("a", "r"),
            _matrix(_FLOAT),
            Weight("c", _GAIN, lambda n0, n1, n2: (1, n1), optional=True),
        ),
        2,
    ),
    Spec(Op.QUANTIZE, (q8_row("dst", "w"), row("a", "r")), 1),
    Spec(
        Op.TERNARY,
        (
            row("dst", "w", row_n1),
            q8_row("a", "r"),
            _matrix(("T2", "T2D")),
            fixed("d", "x", kernel_scratch, align=16),
        ),
        2,
    ),
    Spec(
        Op.LORA,
        (
            row("dst", "rw", row_n1),
            row("a", "r"),
            Factors(),
            fixed("d", "x", lambda n0, n1, n2, rows: 4 * n2),
        ),
        3,
        imm="f32",
    ),
    Spec(
        Op.RMSNORM,
        (row("dst", "w"), row("a", "r"), _rms_gain()),
        1,
        imm="f32",
        elementwise=True,
    ),
    Spec(
        Op.ROPE,
        (
            row("dst", "w"),
            row("a", "r"),
            Weight("b", ("F32",), lambda n0, n1, n2: (1, n1 // 2)),
        ),
        2,
        flags=INTERLEAVED | ROTATE_BACK,
        elementwise=True,
    ),
    Spec(
        Op.ATTENTION,
        (
            row("dst", "w", heads),
            row("a", "r", heads),
            fixed("b", "r", keys),
            fixed("c", "r", keys),
            fixed("d", "x", lambda n0, n1, n2, rows: 4 * rows),
        ),
        3,
        flags=CAUSAL,
    ),
    Spec(Op.SWIGLU, (row("dst", "w"), row("a", "r"), row("b", "r")), 1, elementwise=True),
    _unary(Op.SILU),
    _unary(Op.GELU),
    _unary(Op.RELU),
    Spec(Op.MEANPOOL, (fixed("dst", "rw", row_n0), row("a", "r")), 1),
    Spec(
        Op.LAYERNORM,
        (row("dst", "w"), row("a", "r"), _gain("b"), _gain("c", optional=True)),
        1,
        imm="f32",
        elementwise=True,
    ),
    Spec(Op.EMBEDDING, (row("dst", "w"), _matrix(_FLOAT)), 2),
    Spec(
        Op.QUANTIZE16,
        (q16_row("dst", "w", lambda n0, n1, n2: n0), row("a", "r")),
        1,
    ),
    Spec(
        Op.LINEAR_I8,
        (
            row("dst", "w", row_n1),
            q16_row("a", "r", lambda n0, n1, n2: n0),
            _matrix(("I8",)),
            Weight("c", _GAIN, lambda n0, n1, n2: (1, n1), optional=True),
        ),
        2,
    ),
    Spec(
        Op.ATTENTION_Q8,
        (
            row("dst", "w", heads),
            q16_row("a", "r", lambda n0, n1, n2: n0 * n2),
            fixed("b", "r", keys_q8, align=16),
            fixed("c", "r", keys_q8, align=16),
            fixed("d", "x", lambda n0, n1, n2, rows: 12 * rows),
        ),
        3,
        flags=CAUSAL,
    ),
    Spec(
        Op.TERNARY16,
        (
            q16_row("dst", "w", lambda n0, n1, n2: n1),
            q8_row("a", "r"),
            _matrix(("T2", "T2D")),
            fixed("d", "x", kernel_scratch, align=16),
            fixed("e", "x", lambda n0, n1, n2, rows: 4 * n1),
        ),
        2,
    ),
    Spec(
        Op.ROPE16,
        (
            q16_row("dst", "w", lambda n0, n1, n2: n0),
            q16_row("a", "r", lambda n0, n1, n2: n0),
            Weight("b", ("F32",), lambda n0, n1, n2: (1, n1 // 2)),
        ),
        2,
        flags=INTERLEAVED,
        elementwise=True,
    ),
    Spec(Op.NARROW, (q8_row("dst", "w"), q16_row("a", "r", lambda n0, n1, n2: n0)), 1),
    Spec(
        Op.SWIGLU_Q8,
        (
            q8_row("dst", "w"),
            q16_row("a", "r", lambda n0, n1, n2: n0),
            q16_row("b", "r", lambda n0, n1, n2: n0),
            fixed("d", "x", lambda n0, n1, n2, rows: 4 * n0),
        ),
        1,
    ),
    Spec(
        Op.NORM_Q8,
        (
            q8_row("dst", "w"),
            row("a", "r"),
            _gain("b", optional=True, dtypes=("I16",)),
            fixed("d", "x", lambda n0, n1, n2, rows: 4 * n0),
        ),
        1,
        imm="f32",
    ),
    Spec(
        Op.LORA16,
        (
            q16_row("dst", "rw", lambda n0, n1, n2: n1),
            q8_row("a", "r"),
            Factors(),
            fixed("d", "x", lambda n0, n1, n2, rows: 4 * n2),
            fixed("e", "x", lambda n0, n1, n2, rows: 4 * n0),
            fixed("f", "x", lambda n0, n1, n2, rows: 4 * n1),
        ),
        3,
        imm="f32",
    ),
    Spec(Op.CROSS_ENTROPY, (row("dst", "w"), row("a", "r")), 1),
    Spec(Op.LINEAR_T, (row("dst", "w"), row("a", "r", row_n1), _matrix(_FLOAT)), 2, flags=ACC),
    Spec(
        Op.TERNARY_T,
        (
            row("dst", "w"),
            q16_row("a", "r", lambda n0, n1, n2: n1),
            _matrix(("T2", "T2D")),
            fixed("d", "x", kernel_scratch, align=16),
        ),
        2,
        flags=ACC,
    ),
    Spec(
        Op.LORA_BWD,
        (
            row("dst", "w", optional=True),
            row("a", "r"),
            Factors(),
            row("d", "r", row_n1),
            fixed("e", "x", lambda n0, n1, n2, rows: 8 * n2),
        ),
        3,
        flags=ACC,
        imm="f32",
    ),
    Spec(
        Op.RMSNORM_BWD,
        (row("dst", "w"), row("a", "r"), _rms_gain(), row("c", "r")),
        1,
        flags=ACC,
        imm="f32",
        elementwise=True,
    ),
    Spec(
        Op.ATTENTION_BWD,
        (
            row("dst", "w", heads),
            row("a", "r", heads),
            fixed("b", "r", keys),
            fixed("c", "r", keys),
            row("d", "r", heads),
            fixed("e", "rw", keys),
            fixed("f", "rw", keys),
            fixed("imm", "x", lambda n0, n1, n2, rows: 8 * rows),
        ),
        3,
        flags=CAUSAL,
    ),
    Spec(
        Op.SWIGLU_BWD,
        (
            row("dst", "w"),
            row("a", "r"),
            row("b", "r"),
            row("c", "r"),
            row("d", "w"),
        ),
        1,
        elementwise=True,
    ),
    _unary_backward(Op.SILU_BWD),
    _unary_backward(Op.GELU_BWD),
    _unary_backward(Op.RELU_BWD),
    Spec(
        Op.LAYERNORM_BWD,
        (row("dst", "w"), row("a", "r"), _gain("b"), row("c", "r")),
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


def is_by_row(op: int, slot: str, flags: int) -> bool:
    """Does an instruction use of a block the rows up to its own only: K and V behind the mask?"""
    return op in ATTENTIONS and slot in ("b", "c") and bool(flags & CAUSAL)
