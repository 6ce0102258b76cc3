"""Operands of instructions (FORMAT.md section 5): places in the arena, tensors, adapters.

`opcodes.py` makes the table of instructions from these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def row_n0(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n0


def row_n1(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n1


def heads(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n0 * n2


def keys(n0: int, n1: int, n2: int, rows: int) -> int:
    return 4 * n1 * n2 * rows


def keys_q8(n0: int, n1: int, n2: int, rows: int) -> int:
    return q8_bytes(n1 * n2) * rows


def kernel_scratch(n0: int, n1: int, n2: int, rows: int) -> int:
    return scratch_bytes(n0)


def row(slot: str, access: str, size: Size = row_n0, optional: bool = False) -> Arena:
    return Arena(slot, access, size, optional=optional)


def fixed(slot: str, access: str, size: Size, align: int = 4) -> Arena:
    return Arena(slot, access, size, may_step=False, align=align)


def q8_row(slot: str, access: str) -> Arena:
    return Arena(slot, access, lambda n0, n1, n2, rows: q8_bytes(n0), align=16)


def q16_row(slot: str, access: str, count: Callable[[int, int, int], int]) -> Arena:
    """A row q16[count(n0, n1, n2)]."""
    return Arena(slot, access, lambda n0, n1, n2, rows: q16_bytes(count(n0, n1, n2)), align=16)
