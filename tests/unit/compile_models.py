"""Graphs built by hand for the compiler's tests, and their NumPy forward over whole matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ternio.blob import Blob, ternary
from ternio.blob.vocabulary import ANY_OTHER, Vocabulary
from ternio.compile import Description, Graph, Options, pack_graph


@dataclass(frozen=True)
class Shape:
    """A transformer classifier; the defaults are the reference model `motion`."""

    channels: int = 6
    length: int = 100
    patch: int = 4
    width: int = 64
    heads: int = 4
    kv_heads: int = 4
    ffn: int = 128
    layers: int = 2
    classes: int = 4
    causal: bool = True
    ternary: bool = True
    interleaved: bool = False

    @property
    def name(self) -> str:
        kind = ("ternary" if self.ternary else "float") + ("" if self.causal else "-full")
        return f"{kind}-c{self.channels}l{self.length}w{self.width}n{self.layers}k{self.classes}"


class Build:
    """Adds layers with random parameters to a graph."""

    def __init__(self, channels: int, length: int, time: int, seed: int = 0) -> None:
        self.graph = Graph(channels, length, time)
        self.random = np.random.default_rng(seed)

    def linear(self, x: int, name: str, width: int, ternary: bool = False, bias: bool = False):
        inputs = self.graph.nodes[x].width
        weight = self.random.standard_normal((width, inputs)) / np.sqrt(inputs)
        self.graph.params[f"{name}.weight"] = weight.astype(np.float32)
        params = [f"{name}.weight"]
        if bias:
            values = 0.1 * self.random.standard_normal(width)
            self.graph.params[f"{name}.bias"] = values.astype(np.float32)
            params.append(f"{name}.bias")
        op = "bitlinear" if ternary else "linear"
        return self.graph.add(op, x, width=width, params=tuple(params), where=name)

    def norm(self, x: int, name: str, op: str = "rmsnorm") -> int:
        gain = 1 + 0.1 * self.random.standard_normal(self.graph.nodes[x].width)
        self.graph.params[f"{name}.weight"] = gain.astype(np.float32)
        return self.graph.add(op, x, params=(f"{name}.weight",), attrs={"eps": 1e-5}, where=name)


def transformer(shape: Shape, seed: int = 0) -> Graph:
    """A pre-norm transformer with RoPE, SwiGLU and mean pooling."""
    s = shape
    time = -(-s.length // s.patch)
    b = Build(s.channels, s.length, time, seed)
    g, head = b.graph, s.width // s.heads
    x = g.add("input", width=s.channels * s.patch)
    x = b.linear(x, "patch", s.width, bias=True)
    rope = {"head_dim": head, "base": 100.0, "interleaved": s.interleaved}
    attention = {"heads": s.heads, "kv_heads": s.kv_heads, "causal": s.causal}
    for n in range(s.layers):
        h = b.norm(x, f"layers.{n}.norm1")
        q = b.linear(h, f"layers.{n}.q", s.width, s.ternary)
        k = b.linear(h, f"layers.{n}.k", s.kv_heads * head, s.ternary)
        v = b.linear(h, f"layers.{n}.v", s.kv_heads * head, s.ternary)
        q, k = g.add("rope", q, attrs=rope), g.add("rope", k, attrs=rope)
        a = g.add("attention", q, k, v, attrs=attention)
        x = g.add("add", x, b.linear(a, f"layers.{n}.o", s.width, s.ternary))
        h = b.norm(x, f"layers.{n}.norm2")
        gate = b.linear(h, f"layers.{n}.gate", s.ffn, s.ternary)
        up = b.linear(h, f"layers.{n}.up", s.ffn, s.ternary)
        down = b.linear(g.add("swiglu", gate, up), f"layers.{n}.down", s.width, s.ternary)
        x = g.add("add", x, down)
    x = g.add("mean_pool", b.norm(x, "norm"))
    b.linear(x, "head", s.classes, bias=True)
    return g


def language_model(shape: Shape, vocabulary: int = 20, seed: int = 0) -> Graph:
    """A pre-norm transformer over tokens, queries and keys normalised; `length` is the context."""
    s = shape
    b = Build(1, s.length, s.length, seed)
    g, head = b.graph, s.width // s.heads
    g.stream = True
    g.params["embed.weight"] = b.random.standard_normal((vocabulary, s.width)).astype(np.float32)
    x = g.add("embedding", width=s.width, rows=True, params=("embed.weight",), where="embed")
    rope = {"head_dim": head, "base": 100.0}
    attention = {"heads": s.heads, "kv_heads": s.kv_heads, "causal": True}
    for n in range(s.layers):
        h = b.norm(x, f"layers.{n}.norm1")
        q = b.linear(h, f"layers.{n}.q", s.width, s.ternary)
        k = b.linear(h, f"layers.{n}.k", s.kv_heads * head, s.ternary)
        v = b.linear(h, f"layers.{n}.v", s.kv_heads * head, s.ternary)
        q, k = (b.norm(y, f"layers.{n}.{name}_norm") for y, name in ((q, "q"), (k, "k")))
        q, k = g.add("rope", q, attrs=rope), g.add("rope", k, attrs=rope)
        a = g.add("attention", q, k, v, attrs=attention)
        x = g.add("add", x, b.linear(a, f"layers.{n}.o", s.width, s.ternary))
        h = b.norm(x, f"layers.{n}.norm2")
        gate = b.linear(h, f"layers.{n}.gate", s.ffn, s.ternary)
        up = b.linear(h, f"layers.{n}.up", s.ffn, s.ternary)
        down = b.linear(g.add("swiglu", gate, up), f"layers.{n}.down", s.width, s.ternary)
        x = g.add("add", x, down)
    b.linear(b.norm(x, "norm"), "head", vocabulary)
    return g


def describe(graph: Graph) -> Description:
    channels, classes = graph.channels, graph.nodes[graph.output].width
    if graph.stream:
        points = (*range(97, 97 + classes - 1), ANY_OTHER)
        return Description("test", vocabulary=Vocabulary(points))
    return Description(
        name="test",
        labels=tuple(f"class {i}" for i in range(classes)),
        input_scale=np.full(channels, 0.01, np.float32),
        gain=np.linspace(0.001, 0.002, channels).astype(np.float32),
        shift=np.linspace(-0.2, 0.1, channels).astype(np.float32),
        rate_hz=50.0,
        patch=1,
    )


def pack(graph: Graph, **options) -> Blob:
    """The blob of a graph, in floats (weights, rows, keys and values) unless said otherwise."""
    usual = {"float_dtype": "f32", "kv": "float", "integer_rows": False, "adapt": not graph.stream}
    return pack_graph(graph, describe(graph), Options(**{**usual, **options}))


def window(graph: Graph, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(-1500, 1500, (graph.length, graph.channels)).astype(np.int16)


def reference(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Logits of an int16 window, or [tokens, outputs] of tokens, by whole matrices in float64;
    adapters do not take part."""
    about, values = describe(graph), []
    for node in graph.nodes:
        if node.op == "input":
            rows = graph.time if node.rows else 1
            flat = np.zeros(rows * node.width)
            flat[: x.size] = (x * about.gain.astype(np.float64) + about.shift).reshape(-1)
            values.append(flat.reshape(rows, node.width))
            continue
        if node.op == "embedding":
            values.append(graph.params[node.params[0]][x].astype(np.float64))
            continue
        inputs = [values[v] for v in node.inputs]
        params = [graph.params[p].astype(np.float64) for p in node.params]
        values.append(_OPS[node.op](node, *inputs, *params))
    return values[-1] if graph.stream else values[-1].reshape(-1)


def _bitlinear(node, x, w):
    trits, gamma = ternary.quantize(w.astype(np.float32))
    s = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5)
    return np.rint(x * (127 / s)) @ trits.T.astype(np.float64) * (np.float32(gamma) * s / 127)


def _rope(node, x):
    head, base = node.attrs["head_dim"], node.attrs["base"]
    angle = np.arange(len(x))[:, None] * np.float32(base ** (-np.arange(0, head, 2) / head))
    turn = np.exp(1j * angle)[:, None, :]
    heads = x.reshape(len(x), -1, head)
    if node.attrs.get("interleaved"):
        y = (heads[..., ::2] + 1j * heads[..., 1::2]) * turn
        return np.stack([y.real, y.imag], axis=-1).reshape(x.shape)
    y = (heads[..., : head // 2] + 1j * heads[..., head // 2 :]) * turn
    return np.concatenate([y.real, y.imag], axis=-1).reshape(x.shape)


def _attention(node, q, k, v):
    heads, kv = node.attrs["heads"], node.attrs["kv_heads"]
    out, width = [], q.shape[1] // heads
    mask = np.tri(len(q), dtype=bool) if node.attrs["causal"] else np.ones((len(q),) * 2, bool)
    for h in range(heads):
        at, group = slice(h * width, (h + 1) * width), h // (heads // kv)
        kv_at = slice(group * width, (group + 1) * width)
        scores = np.where(mask, q[:, at] @ k[:, kv_at].T / np.sqrt(width), -np.inf)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        out.append(p / p.sum(axis=1, keepdims=True) @ v[:, kv_at])
    return np.concatenate(out, axis=1)


def _layernorm(node, x, gain, bias=0.0):
    mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(var + node.attrs["eps"]) * gain + bias


_OPS = {
    "linear": lambda node, x, w, b=0.0: x @ w.T + b,
    "bitlinear": _bitlinear,
    "rmsnorm": lambda node, x, g: (
        x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + node.attrs["eps"]) * g
    ),
    "layernorm": _layernorm,
    "rope": _rope,
    "attention": _attention,
    "swiglu": lambda node, a, b: a / (1 + np.exp(-a)) * b,
    "add": lambda node, a, b: a + b,
    "mul": lambda node, a, b: a * b,
    "scale": lambda node, x: x * node.attrs["factor"],
    "silu": lambda node, a: a / (1 + np.exp(-a)),
    "relu": lambda node, a: np.maximum(a, 0),
    "gelu": lambda node, a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
    "mean_pool": lambda node, x: x.mean(axis=0, keepdims=True),
}
