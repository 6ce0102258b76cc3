"""Emitting the backward: gradients flow to adapters only, row by row, with few copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..blob import opcodes as ops
from ..blob.opcodes import Op
from .code import Buffer, Ins, Loop, Ref
from .graph import LINEAR_OPS, Node
from .scope import Context, Scope, attention_dims

Emit = Callable[[Ref, int], None]
"""Writes a gradient to a place; the second argument is ACC where it is added to what is there."""


class BackwardScope(Scope):
    """A scope that also knows where the gradient of each value is.

    A gradient may be one place for several values (the two branches of an addition): it is copied
    only when one of them is about to be added to while another still has to be read. `frozen`
    places, such as one vector that serves all rows, are never written.
    """

    def __init__(self, context: Context, needs: list[bool], loop: Loop | None = None) -> None:
        super().__init__(context, loop)
        self.needs = needs
        self.grads: dict[int, Ref] = {}
        self.frozen: set[Buffer] = set()
        self._owners: dict[Buffer, set[int]] = {}

    # ---- Places of gradients --------------------------------------------------------------------

    def seed(self, value: int, ref: Ref, frozen: bool = False) -> None:
        """The gradient of `value`, complete or so far, is at `ref`."""
        self.grads[value] = ref
        self._owners.setdefault(ref.buffer, set()).add(value)
        if frozen:
            self.frozen.add(ref.buffer)

    def take(self, value: int) -> Ref:
        """The gradient of `value`, which nobody needs under that name any more."""
        ref = self.grads.pop(value)
        self._owners[ref.buffer].discard(value)
        return ref

    def contribute(self, value: int, emit: Emit, can_add: bool = True) -> None:
        """Adds what `emit` writes to a gradient; `can_add`: its instruction knows `acc`."""
        if not self.needs[value]:
            return
        width = self.graph.nodes[value].width
        if value not in self.grads:
            ref = self.temp(width, f"d{value}")
            self.seed(value, ref)
            emit(ref, 0)
            return
        ref = self._writable(value)
        if can_add:
            emit(ref, ops.ACC)
            return
        part = self.temp(width, f"part of d{value}")
        emit(part, 0)
        self.emit(Op.ADD, width, dst=ref, a=ref, b=part)

    def pass_on(self, value: int, dy: Ref) -> None:
        """Adds dy itself to a gradient; the first one only gives the place a second name."""
        if not self.needs[value]:
            return
        if value not in self.grads:
            self.seed(value, dy)
            return
        ref = self._writable(value)
        width = self.graph.nodes[value].width
        self.emit(Op.COPY, width, flags=ops.ACC, dst=ref, a=dy)

    def _writable(self, value: int) -> Ref:
        ref = self.grads[value]
        shared = self._owners[ref.buffer] - {value}
        if not shared and ref.buffer not in self.frozen:
            return ref
        width = self.graph.nodes[value].width
        self.take(value)
        own = self.temp(width, f"d{value}")
        self.emit(Op.COPY, width, dst=own, a=ref)
        self.seed(value, own)
        return own

    def settle(self, value: int) -> Buffer | None:
        """Leaves the gradient of a block's row in a block of its own; returns that block."""
        if value not in self.grads:
            return None
        ref = self.take(value)
        if ref.step and not self._owners[ref.buffer]:
            return ref.buffer
        block = self.context.block(value, "d ")
        self.emit(Op.COPY, self.graph.nodes[value].width, dst=Ref(block, step=True), a=ref)
        return block

    # ---- Nodes --------------------------------------------------------------------------------

    def backward(self, value: int) -> None:
        """Emits what node `value` does with its gradient: to its adapters and to its inputs."""
        node = self.graph.nodes[value]
        if value not in self.grads or not self.needs[value]:
            return
        _BACKWARD[node.op](self, value, node, self.grads[value])
        self.take(value)


def reads(node: Node, needs: list[bool]) -> Iterable[int]:
    """Values of the forward that the backward of a node reads."""
    if node.op in LINEAR_OPS:
        return node.inputs if node.loras else ()
    if node.op == "mul":
        a, b = node.inputs
        return [v for v, other in ((b, a), (a, b)) if needs[other]]
    return () if node.op in ("rope", "add", "scale", "mean_pool") else node.inputs


def _lora(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    x = node.inputs[0]
    for lora in node.loras:
        dims = (s.graph.nodes[x].width, node.width, lora.rank)
        operands = s.lora_operands(value, lora)
        e = s.scratch(8 * lora.rank)

        def emit(dst: Ref | None, flags: int, lora=lora, dims=dims, operands=operands, e=e) -> None:
            given = {"a": s.ref(x), "d": dy, "e": e, **operands}
            s.emit(Op.LORA_BWD, *dims, flags=flags, dst=dst, imm=lora.scale, **given)

        if s.needs[x]:
            s.contribute(x, emit)
        elif lora.is_slot:
            emit(None, 0)


def _linear(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    x = node.inputs[0]
    b = s.context.pool.matrix(node.params[0])
    dims = (s.graph.nodes[x].width, node.width)
    s.contribute(x, lambda dst, acc: s.emit(Op.LINEAR_T, *dims, flags=acc, dst=dst, a=dy, b=b))
    _lora(s, value, node, dy)


def _bitlinear(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    x = node.inputs[0]
    if s.needs[x]:
        width = s.graph.nodes[x].width
        q = Ref(Buffer("q16", ops.q16_bytes(node.width)))
        s.emit(Op.QUANTIZE16, node.width, dst=q, a=dy)
        operands = {
            "a": q,
            "b": s.context.pool.ternary(node.params[0]),
            "d": s.scratch(ops.scratch_bytes(width)),
        }
        dims = (width, node.width)
        s.contribute(
            x, lambda dst, acc: s.emit(Op.TERNARY_T, *dims, flags=acc, dst=dst, **operands)
        )
    _lora(s, value, node, dy)


def _norm(op: Op):
    def backward(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
        x = node.inputs[0]
        pool = s.context.pool
        stored = pool.gain if op == Op.RMSNORM_BWD else pool.vector
        gain = stored(node.params[0]) if node.params else None
        operands = {"a": s.ref(x), "b": gain, "c": dy, "imm": node.attrs["eps"]}
        s.contribute(x, lambda dst, acc: s.emit(op, node.width, flags=acc, dst=dst, **operands))

    return backward


def _unary(op: Op):
    def backward(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
        x = node.inputs[0]
        s.contribute(
            x, lambda dst, acc: s.emit(op, node.width, flags=acc, dst=dst, a=s.ref(x), c=dy)
        )

    return backward


def _rope(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    flags = ops.ROTATE_BACK | (ops.INTERLEAVED if node.attrs.get("interleaved") else 0)
    dims, b = (node.width, node.attrs["head_dim"]), s.frequencies(node)

    def emit(dst: Ref, acc: int) -> None:
        s.emit(Op.ROPE, *dims, flags=flags, dst=dst, a=dy, b=b)

    s.contribute(node.inputs[0], emit, can_add=False)


def _attention(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    """dq of this row; dK and dV of all rows grow. Rows run from last to first, so with a causal
    mask row t of dK and dV is complete once row t has been here."""
    q, k, v = node.inputs
    blocks = s.context.blocks
    dk, dv = s.context.block(k, "d "), s.context.block(v, "d ")
    for block in (dk, dv):
        dims = (s.graph.time, block.bytes // 4 // s.graph.time)
        zero = Ins(Op.ZERO, dims, {"dst": Ref(block)})
        s.context.listing.insert(s.context.listing.index(s.loop), zero)
    operands = {
        "a": s.ref(q),
        "b": Ref(blocks[k]),
        "c": Ref(blocks[v]),
        "d": dy,
        "e": Ref(dk),
        "f": Ref(dv),
        "imm": s.scratch(8 * s.graph.time),
    }
    flags = ops.CAUSAL if node.attrs["causal"] else 0
    dims = attention_dims(node)

    def emit(dst: Ref, acc: int) -> None:
        s.emit(Op.ATTENTION_BWD, *dims, flags=flags, dst=dst, **operands)

    if s.needs[q]:
        s.contribute(q, emit, can_add=False)
    else:
        emit(s.temp(node.width, "dq"), 0)
    s.pass_on(k, Ref(dk, step=True))
    s.pass_on(v, Ref(dv, step=True))


def _swiglu(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    a, b = node.inputs
    other = s.temp(node.width, f"d{b}")

    def emit(dst: Ref, acc: int) -> None:
        operands = {"a": s.ref(a), "b": s.ref(b), "c": dy, "d": other}
        s.emit(Op.SWIGLU_BWD, node.width, dst=dst, **operands)

    if s.needs[a]:
        s.contribute(a, emit, can_add=False)
    else:
        emit(s.temp(node.width, f"d{a}"), 0)
    s.pass_on(b, other)


def _add(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    for x in node.inputs:
        s.pass_on(x, dy)


def _mul(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    a, b = node.inputs
    for x, other in ((a, b), (b, a)):
        if s.needs[x]:
            factor = s.ref(other)
            s.contribute(
                x,
                lambda dst, acc, f=factor: s.emit(Op.MUL, node.width, dst=dst, a=dy, b=f),
                can_add=False,
            )


def _scale(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    factor = node.attrs["factor"]
    s.contribute(
        node.inputs[0],
        lambda dst, acc: s.emit(Op.SCALE, node.width, flags=acc, dst=dst, a=dy, imm=factor),
    )


def _mean_pool(s: BackwardScope, value: int, node: Node, dy: Ref) -> None:
    """Each row's gradient is the vector's divided by the number of rows: done before the loop."""
    s.frozen.add(dy.buffer)
    s.pass_on(node.inputs[0], dy)


_BACKWARD = {
    "linear": _linear,
    "bitlinear": _bitlinear,
    "rmsnorm": _norm(Op.RMSNORM_BWD),
    "layernorm": _norm(Op.LAYERNORM_BWD),
    "rope": _rope,
    "attention": _attention,
    "swiglu": _swiglu,
    "silu": _unary(Op.SILU_BWD),
    "gelu": _unary(Op.GELU_BWD),
    "relu": _unary(Op.RELU_BWD),
    "add": _add,
    "mul": _mul,
    "scale": _scale,
    "mean_pool": _mean_pool,
}
