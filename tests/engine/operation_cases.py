"""Every operation of the engine on small inputs, with NumPy's version of it: for tests of values,
gradients and views."""

from __future__ import annotations

from typing import NamedTuple

import engine_reference as ref
import numpy as np
import pytest


class Case(NamedTuple):
    """``shapes`` of the float inputs; the operation and its reference take them in order."""

    name: str
    shapes: list[tuple[int, ...]]
    run: object  # (engine, tensors) -> result tensor
    reference: object  # (*arrays) -> array


def unary(name, function):
    def run(e, t):
        return e.op(name, t[0])

    return [Case(f"{name}-{s}", [s], run, function) for s in [(3,), (2, 37), (1, 1), (2, 3, 8)]]


def linear_cases():
    for lead, n_in, n_out in [((), 1, 1), ((5,), 3, 2), ((2, 7), 19, 33), ((3, 13), 40, 5)]:
        x, w = (*lead, n_in), (n_out, n_in)
        yield Case(f"linear-{x}-{w}", [x, w], lambda e, t: e.op("linear", *t, None), ref.linear)
        yield Case(
            f"linear-bias-{x}-{w}", [x, w, (n_out,)], lambda e, t: e.op("linear", *t), ref.linear
        )


def lora_cases():
    for lead, n_in, n_out, rank in [((), 4, 3, 1), ((2, 5), 9, 17, 4)]:
        yield Case(
            f"lora-{lead}-{n_in}-{n_out}",
            [(*lead, n_out), (*lead, n_in), (rank, n_in), (n_out, rank)],
            lambda e, t: e.op("lora", *t, 1.7),
            lambda *a: ref.lora(*a, 1.7),
        )


def norm_cases():
    for shape in [(1,), (7,), (3, 16), (2, 3, 21)]:
        width = (shape[-1],)
        yield Case(
            f"rmsnorm-{shape}",
            [shape, width],
            lambda e, t: e.op("rmsnorm", *t, 1e-3),
            lambda x, g: ref.rmsnorm(x, g, 1e-3),
        )
        yield Case(
            f"layernorm-{shape}",
            [shape, width, width],
            lambda e, t: e.op("layernorm", *t, 1e-3),
            lambda x, g, b: ref.layernorm(x, g, b, 1e-3),
        )
    yield Case(
        "layernorm-without-bias",
        [(3, 5), (5,)],
        lambda e, t: e.op("layernorm", *t, None, 1e-3),
        lambda x, g: ref.layernorm(x, g, None, 1e-3),
    )


def rope_cases():
    for shape, head_dim, pairing, offset in [
        ((3, 4), 4, 0, 0),
        ((2, 5, 12), 6, 0, 2),
        ((2, 5, 12), 6, 1, 0),
        ((1, 32), 2, 1, 7),
        ((1, 3, 38), 38, 0, 1),
        ((2, 1, 38), 38, 1, 3),
    ]:

        def run(e, t, head_dim=head_dim, pairing=pairing, offset=offset):
            return e.op("rope", *t, head_dim, pairing, 100.0, offset)

        def reference(x, head_dim=head_dim, pairing=pairing, offset=offset):
            return ref.rope(x, head_dim, pairing, 100.0, offset)

        yield Case(f"rope-{shape}-{pairing}-{offset}", [shape], run, reference)


def attention_cases():
    for batch, time, key_time, heads, kv_heads, head_dim, causal in [
        ((1,), 1, 1, 1, 1, 1, 1),
        ((2,), 5, 5, 4, 2, 3, 1),
        ((2,), 4, 4, 2, 2, 8, 0),
        ((), 3, 6, 4, 1, 2, 1),
        ((2,), 37, 37, 2, 1, 2, 1),
        ((2,), 2, 9, 2, 1, 5, 0),
    ]:
        q = (*batch, time, heads * head_dim)
        kv = (*batch, key_time, kv_heads * head_dim)

        def run(e, t, heads=heads, kv_heads=kv_heads, causal=causal):
            return e.op("attention", *t, heads, kv_heads, causal)

        def reference(q, k, v, heads=heads, kv_heads=kv_heads, causal=causal):
            return ref.attention(q, k, v, heads, kv_heads, causal)

        yield Case(f"attention-{q}-{kv}-causal{causal}", [q, kv, kv], run, reference)


def pair_cases():
    for a, b in [((3,), (3,)), ((2, 3, 17), (3, 17)), ((4, 5), (5,)), ((2, 2), ())]:
        yield Case(f"add-{a}-{b}", [a, b], lambda e, t: e.op("add", *t), np.add)
        yield Case(f"mul-{a}-{b}", [a, b], lambda e, t: e.op("mul", *t), np.multiply)
    for shape in [(1,), (3, 21)]:
        yield Case(
            f"swiglu-{shape}",
            [shape, shape],
            lambda e, t: e.op("swiglu", *t),
            lambda a, b: a * ref.sigmoid(a) * b,
        )
        yield Case(
            f"geglu-{shape}",
            [shape, shape],
            lambda e, t: e.op("geglu", *t),
            lambda a, b: ref.gelu(a) * b,
        )
        yield Case(f"minimum-{shape}", [shape, shape], lambda e, t: e.op("minimum", *t), np.minimum)
        yield Case(
            f"mse-{shape}",
            [shape, shape],
            lambda e, t: e.op("mse", *t),
            lambda a, b: ((a - b) ** 2).mean(),
        )


def shape_cases():
    for x, dim, start, length in [
        ((2, 3, 5), 0, 1, 1),
        ((2, 3, 5), 1, 0, 2),
        ((2, 3, 5), -1, 2, 3),
        ((2, 3, 5), 2, 1, 0),
        ((1, 19, 17), 1, 1, 18),
        ((37,), 0, 36, 1),
    ]:
        yield Case(
            f"slice-{x}-{dim}-{start}-{length}",
            [x],
            lambda e, t, a=(dim, start, length): e.op("slice", t[0], *a),
            lambda x, d=dim, s=start, n=length: np.take(x, range(s, s + n), axis=d),
        )
    for x, a, b in [((2, 3, 5), 0, 1), ((2, 3, 5), 2, 0), ((2, 3, 5), -1, -2), ((1, 17, 19), 1, 2)]:
        yield Case(
            f"transpose-{x}-{a}-{b}",
            [x],
            lambda e, t, a=a, b=b: e.op("transpose", t[0], a, b),
            lambda x, a=a, b=b: np.swapaxes(x, a, b),
        )
    for x in [(1, 17), (19, 3), (2, 1, 5)]:
        yield Case(
            f"contiguous-{x}",
            [x],
            lambda e, t: e.op("contiguous", e.op("transpose", t[0], 0, 1)),
            lambda x: np.swapaxes(x, 0, 1),
        )
    x = (2, 3, 5)
    for dim, other in [(0, (1, 3, 5)), (1, (2, 1, 5)), (-1, (2, 3, 18))]:
        yield Case(
            f"concat-{dim}",
            [x, other],
            lambda e, t, d=dim: e.op("concat", 3, [t[0], t[1], t[0]], d),
            lambda x, y, d=dim: np.concatenate([x, y, x], d),
        )
    for shape in [(2, 3, 5), (1, 1), (3, 17), (4,)]:
        index = np.random.default_rng(2).integers(shape[-1], size=shape[:-1])
        yield Case(
            f"gather-{shape}",
            [shape],
            lambda e, t, i=index: e.op("gather", t[0], e.tensor(i)),
            lambda x, i=index: np.take_along_axis(x, np.array(i)[..., None], -1)[..., 0],
        )
    for small, large in [
        ((3, 1), (3, 17)),
        ((1, 5), (2, 3, 5)),
        ((2, 1, 3, 1), (2, 4, 3, 2)),
        ((), (2, 3)),
        ((1,), (1,)),
        ((7,), (1, 7)),
        ((1, 1, 1), (4, 1, 9)),
        ((17, 1), (2, 17, 19)),
    ]:
        yield Case(
            f"broadcast-{small}-{large}",
            [small],
            lambda e, t, s=large: e.op("broadcast", t[0], len(s), list(s)),
            lambda x, s=large: np.broadcast_to(x, s),
        )


def conv_cases():
    for time, n_in, n_out, kernel, stride, left, right in [
        (1, 1, 1, 1, 1, 0, 0),
        (9, 3, 5, 3, 2, 0, 0),
        (7, 2, 17, 4, 1, 3, 0),
        (8, 5, 2, 3, 3, 1, 2),
    ]:
        settings = (stride, left, right)
        yield Case(
            f"conv1d-{time}-{kernel}-{stride}-{left}-{right}",
            [(2, time, n_in), (n_out, kernel, n_in), (n_out,)],
            lambda e, t, s=settings: e.op("conv1d", *t, *s),
            lambda x, w, b, s=settings: ref.conv1d(x, w, b, *s),
        )
    yield Case(
        "conv1d-without-bias",
        [(5, 2), (3, 2, 2)],
        lambda e, t: e.op("conv1d", *t, None, 1, 0, 0),
        lambda x, w: ref.conv1d(x, w, 0, 1, 0, 0),
    )


LABELS = np.array([[2, 0, -1], [4, 4, 1]], np.int32)
MASK = np.array([[1, 0.25, 3], [0, 1, 0]], np.float32)
IDS = np.array([[3, 0], [3, 1]], np.int32)


def other_cases():
    for shape in [(2, 3, 5), (1, 1, 1), (6, 37)]:
        labels = np.minimum(LABELS, shape[-1] - 1).reshape(-1)[: np.prod(shape[:-1])]
        labels = labels.reshape(shape[:-1])
        yield Case(
            f"cross_entropy-{shape}",
            [shape],
            lambda e, t, n=labels: e.op("cross_entropy", t[0], e.tensor(n), -1),
            lambda x, n=labels: ref.cross_entropy(x, n, -1),
        )
    for shape, ignored in [((2, 3, 5), -1), ((2, 3, 17), 4), ((2, 3, 5), 9)]:
        labels = np.where(LABELS == -1, 3, LABELS) if ignored == 9 else LABELS
        labels = np.where(labels == -1, ignored, labels)
        yield Case(
            f"cross_entropy-masked-{shape}-{ignored}",
            [shape],
            lambda e, t, n=labels, i=ignored: e.op(
                "cross_entropy_masked", t[0], e.tensor(n), e.tensor(MASK), i
            ),
            lambda x, n=labels, i=ignored: ref.cross_entropy(x, n, i, MASK),
        )
    for name, shape, labels, mask in [
        ("ignored", (2, 5), [1, 1], [1, 1]),
        ("masked", (2, 5), [0, 1], [0, 2]),
        ("alone", (1, 1), [1], [1]),
    ]:
        yield Case(
            f"cross_entropy-all-{name}",
            [shape],
            lambda e, t, n=labels, m=mask: e.op(
                "cross_entropy_masked", t[0], e.tensor(n), e.tensor(np.array(m, np.float32)), 1
            ),
            lambda x: 0 * x.sum(),
        )
    for rows, width in [(5, 18), (4, 1), (7, 33)]:
        yield Case(
            f"embedding-{rows}-{width}",
            [(rows, width)],
            lambda e, t: e.op("embedding", t[0], e.tensor(IDS)),
            lambda x: x[IDS],
        )
    for shape in [(2, 5, 9), (1, 1), (3, 1, 17), (1, 4, 1), (149, 2)]:
        for name, pool in [("sum", np.sum), ("mean", np.mean), ("max", np.max)]:
            yield Case(
                f"{name}_pool-{shape}",
                [shape],
                lambda e, t, name=name: e.op(f"{name}_pool", t[0]),
                lambda x, pool=pool: pool(x, axis=-2),
            )
    for shape in [(3, 19), (1,), (2, 1, 33), ()]:
        yield Case(
            f"clip-{shape}",
            [shape],
            lambda e, t: e.op("clip", t[0], -0.5, 1.0),
            lambda x: np.clip(x, -0.5, 1.0),
        )
        yield Case(
            f"scale-{shape}",
            [shape],
            lambda e, t: e.op("scale", t[0], -0.3),
            lambda x: -0.3 * x,
        )
        yield Case(
            f"log-{shape}",
            [shape],
            lambda e, t: e.op("log", e.op("add", e.op("mul", t[0], t[0]), e.tensor(0.25))),
            lambda x: np.log(x * x + 0.25),
        )
    for before, asked, after in [
        ((2, 6), [2, -1, 2], (2, 3, 2)),
        ((17, 1), [-1], (17,)),
        ((1, 1), [], ()),
        ((), [1, 1], (1, 1)),
    ]:
        yield Case(
            f"reshape-{before}-{after}",
            [before],
            lambda e, t, s=asked: e.op("reshape", t[0], len(s), s),
            lambda x, s=after: x.reshape(s),
        )
    yield Case("used-twice", [(2, 9)], lambda e, t: e.op("mul", t[0], t[0]), lambda x: x * x)
    yield Case(
        "self-attention",
        [(4, 6)],
        lambda e, t: e.op("attention", t[0], t[0], t[0], 2, 2, 1),
        lambda x: ref.attention(x, x, x, 2, 2, 1),
    )
    yield Case(
        "self-gated",
        [(4, 6)],
        lambda e, t: e.op("add", e.op("swiglu", t[0], t[0]), e.op("scale", t[0], 2.0)),
        lambda x: x * x * ref.sigmoid(x) + 2 * x,
    )


CASES = [
    *linear_cases(),
    *lora_cases(),
    *norm_cases(),
    *rope_cases(),
    *attention_cases(),
    *pair_cases(),
    *unary("silu", lambda x: x * ref.sigmoid(x)),
    *unary("gelu", ref.gelu),
    *unary("relu", lambda x: np.maximum(x, 0)),
    *unary("softmax", ref.softmax),
    *unary("sigmoid", ref.sigmoid),
    *unary("tanh", np.tanh),
    *unary("exp", np.exp),
    *unary("log_softmax", lambda x: np.log(ref.softmax(x))),
    *shape_cases(),
    *conv_cases(),
    *other_cases(),
]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def inputs(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(len(case.name))
    return [rng.normal(size=s) for s in case.shapes]
