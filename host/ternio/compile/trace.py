"""From the engine's tape to the compiler's graph: one forward of a model is recorded and read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CompileError
from .graph import LINEAR_OPS, Graph, Lora

if TYPE_CHECKING:
    from ..context import Node as TapeNode
    from ..nn import Module
    from ..tensor import Tensor


def trace(model: Module, channels: int, length: int) -> Graph:
    """The graph of `model`'s forward for one window of `length` samples of `channels`.

    `model(x)` must take an array [1, length, channels], bring it into rows without computing
    (patching, padding with zeros at the end) and give logits [1, classes].

    Raises:
        CompileError: an operation, an attribute or a shape that a board's program cannot express;
            the text names the operation and the parameters beside it.
    """
    window = np.zeros((1, length, channels), dtype=np.float32)
    return _read(model, window, Graph(channels, length, time=1))


def trace_stream(model: Module, context: int) -> Graph:
    """The graph of `model`'s forward for a stream of `context` tokens.

    `model(ids)` must take an array int32 [1, context] and give logits [1, context, vocabulary].

    Raises:
        CompileError: as `trace` does.
    """
    ids = np.zeros((1, context), dtype=np.int32)
    return _read(model, ids, Graph(1, context, time=context, stream=True))


def engine_quantizer(weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Trits and gamma of a weight [out, in], by the training engine's own quantiser."""
    from .._engine import ffi, lib

    values = np.ascontiguousarray(weight, dtype=np.float32)
    trits = np.empty(values.shape, dtype=np.int8)
    data = ffi.cast("const te_float *", values.ctypes.data)
    out = ffi.cast("int8_t *", trits.ctypes.data)
    return trits, float(lib.te_quantize_ternary(data, values.size, out))


def _read(model: Module, x: np.ndarray, graph: Graph) -> Graph:
    """Records `model(x)`, then fills `graph` from the tape."""
    context = model.context
    was_training, was_recording = model.training, context.recording
    parameters = dict(model.named_parameters())
    context.reset()
    context.recording = True
    try:
        model.eval()
        logits = model(x)
        return _Reader(parameters, context.tape(), logits, graph).graph
    finally:
        context.recording = was_recording
        context.reset()
        model.train(was_training)


class _Reader:
    """Reads the tape node by node; `values` maps tensor ids to values of the graph."""

    def __init__(
        self,
        parameters: dict[str, Tensor],
        tape: list[TapeNode],
        logits: Tensor,
        graph: Graph,
    ) -> None:
        self.names = {p.id: name for name, p in parameters.items()}
        self.graph = graph
        self.graph.params = {name: p.numpy().copy() for name, p in parameters.items()}
        self.values: dict[int, int] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        for node in tape:
            self.node(node)
        if self.values.get(logits.id) is None:
            raise CompileError("the model's result does not depend on its input")
        if self.values[logits.id] != self.graph.output:
            raise CompileError("the model computes something after its logits; leave it out")

    # ---- Errors and names ---------------------------------------------------------------------

    def place(self, node: TapeNode) -> str:
        """The module of a node, as far as its parameters tell; else what came before it."""
        for tensor in node.inputs:
            if tensor is not None and tensor.id in self.names:
                return self.names[tensor.id].rpartition(".")[0]
        before = self.graph.nodes[-1].where if self.graph.nodes else ""
        return f"after {before}" if before else "at the input"

    def refuse(self, node: TapeNode, why: str) -> CompileError:
        return CompileError(f"{node.op} ({self.place(node)}): {why}")

    def parameter(self, node: TapeNode, k: int) -> str:
        tensor = node.inputs[k]
        if tensor is None or tensor.id not in self.names:
            raise self.refuse(node, f"its operand {k} is not a parameter of the model")
        return self.names[tensor.id]

    # ---- Shapes ---------------------------------------------------------------------------------

    def value(self, node: TapeNode, k: int = 0) -> int:
        """The graph's value of an operand; what nothing computed is the model's input."""
        tensor = node.inputs[k]
        if tensor is None:
            raise self.refuse(node, f"its operand {k} is missing")
        if tensor.id in self.names:
            raise self.refuse(node, "a parameter as this operand has no instruction on a board")
        if tensor.id not in self.values:
            self.values[tensor.id] = self.input(node, tensor)
        return self.values[tensor.id]

    def input(self, node: TapeNode, tensor: Tensor) -> int:
        """Rows of the window: [1, time, k * channels] or [1, k * channels]."""
        g = self.graph
        shape = self.shapes.get(tensor.id, tensor.shape)
        if g.stream:
            raise self.refuse(node, f"an operand {list(shape)} that is not computed from the token")
        enough = math.prod(shape) >= g.channels * g.length and shape[-1] % g.channels == 0
        if any(n.op == "input" for n in g.nodes) or not enough or len(shape) not in (2, 3):
            raise self.refuse(node, f"an operand {list(shape)} is neither computed nor the input")
        if len(shape) == 3:
            g.time = shape[1]
        return g.add("input", width=shape[-1], rows=len(shape) == 3, where="input")

    def check_shape(self, node: TapeNode, value: int) -> None:
        """A batch of one, then time (where the value has rows), then the width."""
        graph, made = self.graph, self.graph.nodes[value]
        expected = (1, graph.time, made.width) if made.rows else (1, made.width)
        if node.output.shape != expected:
            got, want = list(node.output.shape), list(expected)
            raise self.refuse(node, f"its result is {got}; a board's program needs {want}")

    # ---- Nodes --------------------------------------------------------------------------------

    def node(self, node: TapeNode) -> None:
        if node.op == "reshape":
            self.reshape(node)
            return
        if node.op == "lora":
            self.lora(node)
            return
        read = _READERS.get(node.op)
        if read is None:
            raise self.refuse(node, "a board has no instruction for this operation")
        operands, params, attrs = read(self, node)
        inputs = [self.value(node, k) for k in operands]
        names = tuple(self.parameter(node, k) for k in params)
        width = node.output.shape[-1] if node.output.shape else 0
        where = self.place(node)
        rows = True if node.op == "embedding" else None
        value = self.graph.add(
            node.op, *inputs, width=width, rows=rows, params=names, attrs=attrs, where=where
        )
        self.check_shape(node, value)
        self.values[node.output.id] = value

    def reshape(self, node: TapeNode) -> None:
        """Of the untouched input only, where it means cutting patches."""
        tensor = node.inputs[0]
        if tensor is None or tensor.id in self.values or tensor.id in self.names:
            raise self.refuse(node, "only the input may change its shape")
        self.shapes[node.output.id] = node.output.shape

    def lora(self, node: TapeNode) -> None:
        """Joins a side path with its linear layer: as a slot while B is zero, else as trained."""
        base, x = self.value(node, 0), self.value(node, 1)
        made = self.graph.nodes[base]
        if made.op not in LINEAR_OPS or made.inputs != (x,):
            raise self.refuse(node, "a side path must lie beside a linear layer with its input")
        a, b = self.parameter(node, 2), self.parameter(node, 3)
        rank, scale = self.graph.params[a].shape[0], node.floats[0]
        trained = bool(self.graph.params[b].any())
        lora = Lora(rank, scale, a, b) if trained else Lora(rank, scale)
        self.graph.nodes[base] = replace(made, loras=(*made.loras, lora))
        self.values[node.output.id] = base


Read = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]
"""Which operands are values, which are parameters, and the attributes."""


def _given(node: TapeNode, *operands: int) -> tuple[int, ...]:
    return tuple(k for k in operands if k < len(node.inputs) and node.inputs[k] is not None)


def _linear(reader: _Reader, node: TapeNode) -> Read:
    return (0,), _given(node, 1, 2), {}


def _embedding(reader: _Reader, node: TapeNode) -> Read:
    if not reader.graph.stream or any(n.op == "embedding" for n in reader.graph.nodes):
        raise reader.refuse(node, "only the one token of a stream can be looked up")
    return (), (0,), {}


def _norm(reader: _Reader, node: TapeNode) -> Read:
    return (0,), _given(node, 1, 2), {"eps": node.floats[0]}


def _rope(reader: _Reader, node: TapeNode) -> Read:
    head_dim, pairing, offset = node.ints
    if offset:
        raise reader.refuse(node, f"positions start at {offset}; a board starts at 0")
    return (0,), (), {"head_dim": head_dim, "interleaved": bool(pairing), "base": node.floats[0]}


def _attention(reader: _Reader, node: TapeNode) -> Read:
    heads, kv_heads, causal = node.ints
    scale = 1 / math.sqrt(node.output.shape[-1] / heads)
    if not math.isclose(node.floats[0], scale, rel_tol=1e-6):
        raise reader.refuse(node, f"scores scaled by {node.floats[0]:g}; a board uses {scale:g}")
    return (0, 1, 2), (), {"heads": heads, "kv_heads": kv_heads, "causal": bool(causal)}


def _pair(reader: _Reader, node: TapeNode) -> Read:
    a, b = node.inputs
    if a is None or b is None or a.shape != b.shape:
        raise reader.refuse(node, "both operands must have the same shape")
    return (0, 1), (), {}


def _plain(reader: _Reader, node: TapeNode) -> Read:
    return (0,), (), {}


def _scale(reader: _Reader, node: TapeNode) -> Read:
    return (0,), (), {"factor": node.floats[0]}


_READERS: dict[str, Callable[[_Reader, Any], Read]] = {
    "linear": _linear,
    "bitlinear": _linear,
    "embedding": _embedding,
    "rmsnorm": _norm,
    "layernorm": _norm,
    "rope": _rope,
    "attention": _attention,
    "swiglu": _pair,
    "add": _pair,
    "mul": _pair,
    "mean_pool": _plain,
    "scale": _scale,
    "relu": _plain,
    "silu": _plain,
    "gelu": _plain,
}
