"""Which values of a loop are rows of integers and never floats: int16 between a ternary layer and
what follows it, int8 where nothing but ternary layers reads them (FORMAT.md, "Integer rows")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import Node

if TYPE_CHECKING:
    from .scope import Context


def is_short(c: Context, value: int) -> bool:
    """Is it an int16 row: a ternary layer's result, or that rotated, with the right readers?"""
    if not _may_be_short(c, value):
        return False
    node = c.graph.nodes[value]
    return node.op == "bitlinear" or is_short(c, node.inputs[0])


def is_narrow(c: Context, value: int) -> bool:
    """Is it an int8 row: a norm or a SwiGLU before ternary layers?"""
    node = c.graph.nodes[value]
    if node.op not in ("rmsnorm", "swiglu") or not _is_row(c, value):
        return False
    readers = c.graph.consumers(value)
    if not readers or not all(_takes_int8(c, reader) for reader in readers):
        return False
    return node.op == "rmsnorm" or all(_is_half_of(c, v, value) for v in node.inputs)


def _is_row(c: Context, value: int) -> bool:
    return c.layout.integer_rows and c.graph.nodes[value].rows and value not in c.blocks


def _may_be_short(c: Context, value: int) -> bool:
    """All but that its own input is int16."""
    if c.graph.nodes[value].op not in ("bitlinear", "rope") or not _is_row(c, value):
        return False
    readers = c.graph.consumers(value)
    return bool(readers) and all(_takes_int16(c, reader) for reader in readers)


def _takes_int16(c: Context, reader: int) -> bool:
    op = c.graph.nodes[reader].op
    if op == "rope":
        return _may_be_short(c, reader)
    return c.layout.int8_keys if op == "attention" else op == "swiglu" and is_narrow(c, reader)


def _takes_int8(c: Context, reader: int) -> bool:
    """A side path beside a layer with a result in floats wants its input in floats, too."""
    node: Node = c.graph.nodes[reader]
    return node.op == "bitlinear" and (not node.loras or is_short(c, reader))


def _is_half_of(c: Context, value: int, swiglu: int) -> bool:
    """Is it a ternary layer that nothing but this SwiGLU reads?"""
    alone = c.graph.consumers(value) == [swiglu]
    return alone and c.graph.nodes[value].op == "bitlinear" and _is_row(c, value)
