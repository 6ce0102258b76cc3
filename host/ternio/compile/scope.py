"""Emitting the forward: one function per operation, inside a loop over rows or outside of loops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..blob import opcodes as ops
from ..blob.opcodes import Op
from ..errors import CompileError
from . import forms
from .code import AdapterRef, Buffer, Ins, Listing, Loop, Ref, TensorRef
from .graph import Graph, Lora, Node
from .weights import TensorPool

ROW_GROUP = 8  # rows of a ternary tensor are stored in groups of so many


@dataclass(frozen=True)
class Layout:
    """How a program holds its rows: K and V as int8; what lies between ternary layers as integers;
    of gated feed-forward layers in floats only half at a time, which takes longer."""

    int8_keys: bool = False
    integer_rows: bool = False
    split_gates: bool = False


PLAIN = Layout()


@dataclass
class Context:
    """What all scopes of one program share.

    `input_gain`, `input_shift`: [channels], from int16 to what the model was trained on.
    `layout`: how rows are held; K and V as int8 are in `q8_blocks`.
    """

    graph: Graph
    pool: TensorPool
    window: Buffer
    logits: Buffer
    input_gain: np.ndarray
    input_shift: np.ndarray
    layout: Layout = PLAIN
    blocks: dict[int, Buffer] = field(default_factory=dict)  # values held for all rows
    q8_blocks: dict[int, Buffer] = field(default_factory=dict)  # of those, K and V as int8
    vectors: dict[int, Ref] = field(default_factory=dict)  # values outside loops
    listing: Listing = field(default_factory=list)

    def block(self, value: int, prefix: str = "") -> Buffer:
        """A new block of all rows of a value."""
        name = f"{prefix}{self.graph.nodes[value].where or value}"
        return Buffer(name, 4 * self.graph.nodes[value].width * self.graph.time)

    def q8_block(self, value: int) -> Buffer:
        """A new block of all rows of a value as int8."""
        node = self.graph.nodes[value]
        return Buffer(f"q8 {node.where or value}", ops.q8_bytes(node.width) * self.graph.time)

    def adapter(self, node: int, lora: Lora) -> AdapterRef:
        return AdapterRef(self.graph.slots().index((node, lora)))


class Scope:
    """One loop body, or (`loop` None) straight code: where each value is, what has been emitted."""

    def __init__(self, context: Context, loop: Loop | None = None) -> None:
        self.context = context
        self.graph = context.graph
        self.loop = loop
        self.local: dict[int, Ref] = {}
        self._quantized: dict[tuple[Op, int], Ref] = {}

    # ---- Places -------------------------------------------------------------------------------

    def ref(self, value: int) -> Ref:
        """Where a value is: this iteration's row, a row of a block, or a vector."""
        if value in self.local:
            return self.local[value]
        if value in self.context.blocks and self.loop is not None:
            return Ref(self.context.blocks[value], step=True)
        return self.context.vectors[value]

    def temp(self, words: int, name: str = "row") -> Ref:
        return Ref(Buffer(name, 4 * words))

    def scratch(self, bytes_: int) -> Ref:
        return Ref(Buffer("scratch", bytes_))

    def emit(self, op: Op, *n: int, flags: int = 0, imm: float | Ref = 0, **operands: Any) -> None:
        """Appends an instruction; operands that are None are left out."""
        given = {slot: operand for slot, operand in operands.items() if operand is not None}
        if isinstance(imm, Ref):
            given["imm"], imm = imm, 0
        target = self.context.listing if self.loop is None else self.loop.body
        target.append(Ins(op, n, given, flags, imm))

    def quantized(self, value: int, op: Op = Op.QUANTIZE) -> Ref:
        """The value as int8, or int16 (QUANTIZE16), once for all its consumers in this scope."""
        if (op, value) not in self._quantized:
            a, width = self.ref(value), self.graph.nodes[value].width
            self.emit(op, width, dst=self.quantized_place(value, op), a=a)
        return self._quantized[op, value]

    def quantized_place(self, value: int, op: Op, least: int = 0) -> Ref:
        """A new place of `least` bytes or more for the value as int8, or int16 (QUANTIZE16), where
        `quantized` finds it."""
        width = self.graph.nodes[value].width
        size = ops.q8_bytes(width) if op == Op.QUANTIZE else ops.q16_bytes(width)
        self._quantized[op, value] = Ref(Buffer(op.name.lower(), max(size, least)))
        return self._quantized[op, value]

    # ---- Nodes --------------------------------------------------------------------------------

    def forward(self, value: int) -> None:
        """Emits the node that makes `value`; its inputs are there already."""
        node = self.graph.nodes[value]
        if self.is_gate(value):
            return  # its one reader computes it part by part
        if self.loop is not None and forms.is_narrow(self.context, value):
            _NARROW[node.op](self, node, self.quantized_place(value, Op.QUANTIZE))
            return
        if self.loop is not None and forms.is_short(self.context, value):
            least = 4 * node.width if self.is_second_factor(value) else 0
            op, dst = Op.NARROW, self.quantized_place(value, Op.QUANTIZE16, least)
            _SHORT[node.op](self, node, dst)
            for lora in node.loras:
                self.lora16(value, node, lora, dst)
        else:
            op, dst = Op.QUANTIZE, self._destination(value, node)
            _FORWARD[node.op](self, value, node, dst)
            for lora in node.loras:
                self.lora(value, node, lora, dst)
        if self.loop is not None and value in self.context.q8_blocks:
            row = Ref(self.context.q8_blocks[value], step=True)
            self.emit(op, node.width, dst=row, a=dst)

    def is_gate(self, value: int) -> bool:
        """Is it one of two ternary layers that nothing but a SwiGLU reads, to be done in parts?"""
        readers = self.graph.consumers(value) if self.context.layout.split_gates else []
        if len(readers) != 1 or self.graph.nodes[readers[0]].op != "swiglu":
            return False
        if readers[0] in self.context.blocks or forms.is_narrow(self.context, readers[0]):
            return False
        pair = self.graph.nodes[readers[0]].inputs
        nodes = [self.graph.nodes[v] for v in pair]
        alone = all(self.graph.consumers(v) == readers for v in pair)
        plain = all(n.op == "bitlinear" and not n.loras for n in nodes)
        wide = nodes[0].width >= 2 * ROW_GROUP
        return alone and plain and wide and nodes[0].inputs == nodes[1].inputs

    def is_second_factor(self, value: int) -> bool:
        """Does a SwiGLU wait for it last? Then memory is short: sums and result share theirs."""
        (reader, *_) = self.graph.consumers(value)
        node = self.graph.nodes[reader]
        return node.op == "swiglu" and (Op.QUANTIZE16, node.inputs[0]) in self._quantized

    def _destination(self, value: int, node: Node) -> Ref:
        if self.loop is not None and value in self.context.blocks:
            return Ref(self.context.blocks[value], step=True)
        if value == self.graph.output:
            dst = Ref(self.context.logits)
        elif node.op == "swiglu" and self.is_gate(node.inputs[0]):
            first = first_part(node.width)
            dst = self.temp(max(2 * first, 2 * node.width - first), node.where or node.op)
        else:
            dst = self.temp(node.width, node.where or node.op)
        self.local[value] = dst
        if not node.rows:
            self.context.vectors[value] = dst
        return dst

    def lora(self, value: int, node: Node, lora: Lora, dst: Ref) -> None:
        x = self.graph.nodes[node.inputs[0]]
        dims = (x.width, node.width, lora.rank)
        scratch = self.scratch(4 * lora.rank)
        operands = self.lora_operands(value, lora)
        a = self.ref(node.inputs[0])
        self.emit(Op.LORA, *dims, dst=dst, a=a, d=scratch, imm=lora.scale, **operands)

    def lora16(self, value: int, node: Node, lora: Lora, dst: Ref) -> None:
        dims = (self.graph.nodes[node.inputs[0]].width, node.width, lora.rank)
        scratch = zip("def", (self.scratch(4 * dims[k]) for k in (2, 0, 1)), strict=True)
        operands = {**self.lora_operands(value, lora), **dict(scratch)}
        a = self.quantized(node.inputs[0])
        self.emit(Op.LORA16, *dims, dst=dst, a=a, imm=lora.scale, **operands)

    def lora_operands(self, value: int, lora: Lora) -> dict[str, Any]:
        """Operands b (and c): the adapter, or the trained factors as tensors."""
        if lora.is_slot:
            return {"b": self.context.adapter(value, lora)}
        pool = self.context.pool
        return {"b": pool.factor(lora.a), "c": pool.factor(lora.b)}

    def frequencies(self, node: Node) -> TensorRef:
        """Tensor of a RoPE's angular frequencies base^(-2i/head_dim), i < head_dim/2."""
        head, base = node.attrs["head_dim"], node.attrs["base"]
        values = np.power(float(base), -np.arange(0, head, 2) / head)
        return self.context.pool.constant(f"rope.{head}.{base:g}", values)


def _input(s: Scope, value: int, node: Node, dst: Ref) -> None:
    c = s.context
    b = c.pool.constant("input.gain", c.input_gain)
    shift = c.pool.constant("input.shift", c.input_shift)
    a = Ref(c.window, step=s.loop is not None)
    count = s.graph.channels * s.graph.length
    s.emit(Op.INPUT, node.width, s.graph.channels, dst=dst, a=a, b=b, c=shift, imm=count)


def _linear(s: Scope, value: int, node: Node, dst: Ref) -> None:
    x = node.inputs[0]
    bias = s.context.pool.vector(node.params[1]) if len(node.params) > 1 else None
    b = s.context.pool.matrix(node.params[0])
    dims = (s.graph.nodes[x].width, node.width)
    if s.context.pool.dtype == "I8" and dims[0] <= ops.MAX_SHORT_SUM:
        s.emit(Op.LINEAR_I8, *dims, dst=dst, a=s.quantized(x, Op.QUANTIZE16), b=b, c=bias)
    else:
        s.emit(Op.LINEAR, *dims, dst=dst, a=s.ref(x), b=b, c=bias)


def _embedding(s: Scope, value: int, node: Node, dst: Ref) -> None:
    b = s.context.pool.matrix(node.params[0])
    tokens = s.graph.params[node.params[0]].shape[0]
    s.emit(Op.EMBEDDING, node.width, tokens, dst=dst, b=b)


def _bitlinear(s: Scope, value: int, node: Node, dst: Ref) -> None:
    x = node.inputs[0]
    width = s.graph.nodes[x].width
    q, b = s.quantized(x), s.context.pool.ternary(node.params[0])
    d = s.scratch(ops.scratch_bytes(width))
    s.emit(Op.TERNARY, width, node.width, dst=dst, a=q, b=b, d=d)


def _rmsnorm(s: Scope, value: int, node: Node, dst: Ref) -> None:
    gain = s.context.pool.gain(node.params[0]) if node.params else None
    a = s.ref(node.inputs[0])
    s.emit(Op.RMSNORM, node.width, dst=dst, a=a, b=gain, imm=node.attrs["eps"])


def _layernorm(s: Scope, value: int, node: Node, dst: Ref) -> None:
    pool = s.context.pool
    gain = pool.vector(node.params[0])
    bias = pool.vector(node.params[1]) if len(node.params) > 1 else None
    a = s.ref(node.inputs[0])
    s.emit(Op.LAYERNORM, node.width, dst=dst, a=a, b=gain, c=bias, imm=node.attrs["eps"])


def _rope(s: Scope, value: int, node: Node, dst: Ref) -> None:
    flags = ops.INTERLEAVED if node.attrs.get("interleaved") else 0
    a, b = s.ref(node.inputs[0]), s.frequencies(node)
    s.emit(Op.ROPE, node.width, node.attrs["head_dim"], flags=flags, dst=dst, a=a, b=b)


def attention_dims(node: Node) -> tuple[int, int, int]:
    """(heads, KV heads, width of a head) of an attention node."""
    heads = node.attrs["heads"]
    return heads, node.attrs["kv_heads"], node.width // heads


def _attention(s: Scope, value: int, node: Node, dst: Ref) -> None:
    q, k, v = node.inputs
    if s.loop is None:
        raise CompileError(f"{node.where or 'attention'}: attention outside the time dimension")
    flags = ops.CAUSAL if node.attrs["causal"] else 0
    dims, time = attention_dims(node), s.graph.time
    if s.context.layout.int8_keys:
        op, blocks = Op.ATTENTION_Q8, s.context.q8_blocks
        a, d = s.quantized(q, Op.QUANTIZE16), s.scratch(12 * time)
    else:
        op, blocks = Op.ATTENTION, s.context.blocks
        a, d = s.ref(q), s.scratch(4 * time)
    s.emit(op, *dims, flags=flags, dst=dst, a=a, b=Ref(blocks[k]), c=Ref(blocks[v]), d=d)


def fits_int8_keys(graph: Graph) -> bool:
    """Can all attentions of a graph be done in integers? Their sums must fit int32."""
    heads = [attention_dims(node)[2] for node in graph.nodes if node.op == "attention"]
    most = ops.MAX_SHORT_SUM
    return bool(heads) and max(heads) <= most // 2 and graph.time <= most


def _mean_pool(s: Scope, value: int, node: Node, dst: Ref) -> None:
    s.emit(Op.MEANPOOL, node.width, dst=dst, a=s.ref(node.inputs[0]))


def _scale(s: Scope, value: int, node: Node, dst: Ref) -> None:
    a = s.ref(node.inputs[0])
    s.emit(Op.SCALE, node.width, dst=dst, a=a, imm=node.attrs["factor"])


def _swiglu(s: Scope, value: int, node: Node, dst: Ref) -> None:
    gate, up = node.inputs
    if not s.is_gate(gate):
        s.emit(Op.SWIGLU, node.width, dst=dst, a=s.ref(gate), b=s.ref(up))
        return
    x = s.graph.nodes[gate].inputs[0]
    q, width = s.quantized(x), s.graph.nodes[x].width
    d = s.scratch(ops.scratch_bytes(width))
    first = first_part(node.width)
    for rows in (slice(0, first), slice(first, node.width)):
        count = rows.stop - rows.start
        part, other = (Ref(dst.buffer, offset=4 * at) for at in (rows.start, rows.stop))
        for layer, to in ((gate, part), (up, other)):
            b = s.context.pool.ternary(s.graph.nodes[layer].params[0], rows)
            s.emit(Op.TERNARY, width, count, dst=to, a=q, b=b, d=d)
        s.emit(Op.SWIGLU, count, dst=part, a=part, b=other)


def first_part(width: int) -> int:
    """Rows of the first part of a split layer: both its factors then take about as much as the
    first result with both factors of the second part."""
    return -(-2 * width // (3 * ROW_GROUP)) * ROW_GROUP


def _unary(op: Op):
    def emit(s: Scope, value: int, node: Node, dst: Ref) -> None:
        s.emit(op, node.width, dst=dst, a=s.ref(node.inputs[0]))

    return emit


def _binary(op: Op):
    def emit(s: Scope, value: int, node: Node, dst: Ref) -> None:
        a, b = (s.ref(v) for v in node.inputs)
        s.emit(op, node.width, dst=dst, a=a, b=b)

    return emit


def _ternary16(s: Scope, node: Node, dst: Ref) -> None:
    x = node.inputs[0]
    width = s.graph.nodes[x].width
    q, b = s.quantized(x), s.context.pool.ternary(node.params[0])
    d = s.scratch(ops.scratch_bytes(width))
    e = dst if dst.buffer.bytes >= 4 * node.width else s.scratch(4 * node.width)
    s.emit(Op.TERNARY16, width, node.width, dst=dst, a=q, b=b, d=d, e=e)


def _rope16(s: Scope, node: Node, dst: Ref) -> None:
    flags = ops.INTERLEAVED if node.attrs.get("interleaved") else 0
    a, b = s.quantized(node.inputs[0], Op.QUANTIZE16), s.frequencies(node)
    s.emit(Op.ROPE16, node.width, node.attrs["head_dim"], flags=flags, dst=dst, a=a, b=b)


def _norm_q8(s: Scope, node: Node, dst: Ref) -> None:
    gain = s.context.pool.short_vector(node.params[0]) if node.params else None
    a, d = s.ref(node.inputs[0]), s.scratch(4 * node.width)
    s.emit(Op.NORM_Q8, node.width, dst=dst, a=a, b=gain, d=d, imm=node.attrs["eps"])


def _swiglu_q8(s: Scope, node: Node, dst: Ref) -> None:
    a, b = (s.quantized(v, Op.QUANTIZE16) for v in node.inputs)
    s.emit(Op.SWIGLU_Q8, node.width, dst=dst, a=a, b=b, d=s.scratch(4 * node.width))


_SHORT = {"bitlinear": _ternary16, "rope": _rope16}  # results that are int16 rows
_NARROW = {"rmsnorm": _norm_q8, "swiglu": _swiglu_q8}  # results that are int8 rows

_FORWARD = {
    "input": _input,
    "linear": _linear,
    "bitlinear": _bitlinear,
    "embedding": _embedding,
    "rmsnorm": _rmsnorm,
    "layernorm": _layernorm,
    "rope": _rope,
    "attention": _attention,
    "mean_pool": _mean_pool,
    "swiglu": _swiglu,
    "add": _binary(Op.ADD),
    "mul": _binary(Op.MUL),
    "scale": _scale,
    "silu": _unary(Op.SILU),
    "gelu": _unary(Op.GELU),
    "relu": _unary(Op.RELU),
}

LOWERED = frozenset(_FORWARD)
