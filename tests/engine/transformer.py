"""One training step of a causal transformer on the engine and in PyTorch, from the same weights.

The step is forward, backward, clipping and AdamW; RMSNorm, RoPE and SwiGLU, a vocabulary of 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from engine_harness import Engine


class Size(NamedTuple):
    width: int
    layers: int
    heads: int
    context: int
    hidden: int


SIZES = {
    "S": Size(64, 2, 4, 64, 176),
    "M": Size(128, 4, 4, 128, 352),
    "L": Size(384, 6, 6, 256, 1024),
}
VOCABULARY, LR = 64, 1e-3


def initial(size: Size) -> dict[str, np.ndarray]:
    """Weights shared by both sides; 1-D arrays are gains of norms."""
    rng = np.random.default_rng(0)
    d, h = size.width, size.hidden
    shapes = {"embedding": (VOCABULARY, d), "norm": (d,), "head": (VOCABULARY, d)}
    for i in range(size.layers):
        layer = {"norm1": (d,), "q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d)}
        layer |= {"norm2": (d,), "gate": (h, d), "up": (h, d), "down": (d, h)}
        shapes |= {f"{i}.{name}": shape for name, shape in layer.items()}
    return {
        name: np.ones(s, np.float32)
        if len(s) == 1
        else rng.normal(scale=s[-1] ** -0.5, size=s).astype(np.float32)
        for name, s in shapes.items()
    }


def tokens(size: Size, batch: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(1).integers(VOCABULARY, size=(batch, size.context + 1))
    return drawn[:, :-1].astype(np.int32), drawn[:, 1:].astype(np.int32)


def engine_weights(e: Engine, size: Size) -> dict[str, object]:
    """Parameters of the engine."""
    return {name: e.tensor(value, grad=True) for name, value in initial(size).items()}


def engine_step(
    e: Engine,
    size: Size,
    batch: int,
    ternary: bool,
    weights: dict[str, object] | None = None,
    causal: bool = True,
) -> Callable[[], float]:
    """A function that makes one training step and returns the loss."""
    lib, ctx, null = e.lib, e.ctx, e.ffi.NULL
    p = weights or engine_weights(e, size)
    ids, labels = (e.tensor(t) for t in tokens(size, batch))
    optimiser = lib.te_adamw(ctx, 0.9, 0.95, 1e-8, 0.1)
    for name, tensor in p.items():
        lib.te_optim_add(optimiser, tensor, "norm" not in name)

    def linear(x, w):
        return lib.te_bitlinear(ctx, x, w) if ternary else lib.te_linear(ctx, x, w, null)

    def rope(x):
        return lib.te_rope(ctx, x, size.width // size.heads, 0, 1e4, 0)

    def step() -> float:
        x = lib.te_embedding(ctx, p["embedding"], ids)
        for i in range(size.layers):
            h = lib.te_rmsnorm(ctx, x, p[f"{i}.norm1"], 1e-5)
            q, k, v = (linear(h, p[f"{i}.{n}"]) for n in "qkv")
            h = lib.te_attention(ctx, rope(q), rope(k), v, size.heads, size.heads, int(causal))
            x = lib.te_add(ctx, x, linear(h, p[f"{i}.o"]))
            h = lib.te_rmsnorm(ctx, x, p[f"{i}.norm2"], 1e-5)
            h = lib.te_swiglu(ctx, linear(h, p[f"{i}.gate"]), linear(h, p[f"{i}.up"]))
            x = lib.te_add(ctx, x, linear(h, p[f"{i}.down"]))
        x = lib.te_rmsnorm(ctx, x, p["norm"], 1e-5)
        logits = lib.te_linear(ctx, x, p["head"], null)
        loss = lib.te_cross_entropy(ctx, logits, labels, -1)
        e.check(lib.te_backward(ctx, loss))
        lib.te_clip_grad_norm(optimiser, 1.0)
        lib.te_optim_step(optimiser, LR)
        lib.te_optim_zero_grad(optimiser)
        value = lib.te_item(loss)
        lib.te_tape_reset(ctx)
        return value

    return step


def torch_weights(torch, size: Size, double: bool = False) -> dict[str, object]:
    """Parameters of PyTorch."""
    dtype = torch.float64 if double else torch.float32
    return {n: torch.nn.Parameter(torch.tensor(v, dtype=dtype)) for n, v in initial(size).items()}


def straight_through(x, w):
    """The operands of a BitLinear, written so that gradients use their quantised values."""
    gamma = w.abs().mean()
    s = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    trits = (w / (gamma + 1e-5)).round().clamp(-1, 1)
    codes = (x * (127 / s)).round().clamp(-127, 127)
    return x + (codes * (s / 127) - x).detach(), w + (trits * gamma - w).detach()


def torch_step(
    torch,
    size: Size,
    batch: int,
    ternary: bool,
    compiled: bool = False,
    weights: dict[str, object] | None = None,
    causal: bool = True,
) -> Callable[[], float]:
    """The same step in PyTorch."""
    functional = torch.nn.functional
    p = weights or torch_weights(torch, size)
    dtype = p["head"].dtype
    ids, labels = (torch.tensor(t).long() for t in tokens(size, batch))
    groups = [
        {"params": [t for n, t in p.items() if "norm" not in n], "weight_decay": 0.1},
        {"params": [t for n, t in p.items() if "norm" in n], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)
    head_dim = size.width // size.heads
    frequencies = 1e4 ** (-2.0 * torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(size.context, dtype=torch.float64), frequencies)
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)

    def linear(x, w):
        if ternary:
            x, w = straight_through(x, w)
        return functional.linear(x, w)

    def heads(x):
        return x.view(batch, size.context, size.heads, head_dim).transpose(1, 2)

    def rope(x):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)

    def forward():
        x = p["embedding"][ids]
        for i in range(size.layers):
            h = functional.rms_norm(x, (size.width,), p[f"{i}.norm1"], 1e-5)
            q, k, v = (heads(linear(h, p[f"{i}.{n}"])) for n in "qkv")
            h = functional.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=causal)
            x = x + linear(h.transpose(1, 2).reshape(x.shape), p[f"{i}.o"])
            h = functional.rms_norm(x, (size.width,), p[f"{i}.norm2"], 1e-5)
            h = functional.silu(linear(h, p[f"{i}.gate"])) * linear(h, p[f"{i}.up"])
            x = x + linear(h, p[f"{i}.down"])
        x = functional.rms_norm(x, (size.width,), p["norm"], 1e-5)
        logits = functional.linear(x, p["head"])
        return functional.cross_entropy(logits.view(-1, VOCABULARY), labels.view(-1))

    run = torch.compile(forward) if compiled else forward

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = run()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        optimiser.step()
        return loss.item()

    return step
