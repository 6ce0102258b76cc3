"""Tokens per second of training steps: the engine against PyTorch, on one thread, in one run.

    python tests/bench/bench_engine.py [--sizes S,M,L] [--batches 1,16] [--seconds 1.0]

PyTorch is optional; without it only the engine is measured. A step is forward, backward, clipping
and AdamW of a causal transformer (RMSNorm, RoPE, SwiGLU) over a vocabulary of 64.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from engine_harness import Engine, compile_library


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


def engine_step(e: Engine, size: Size, batch: int, ternary: bool) -> Callable[[], float]:
    """A function that makes one training step and returns the loss."""
    lib, ctx, null = e.lib, e.ctx, e.ffi.NULL
    p = {name: e.tensor(value, grad=True) for name, value in initial(size).items()}
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
            h = lib.te_attention(ctx, rope(q), rope(k), v, size.heads, size.heads, 1)
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


def torch_step(torch, size: Size, batch: int, ternary: bool, compiled: bool) -> Callable[[], float]:
    """The same step in PyTorch."""
    functional = torch.nn.functional
    p = {n: torch.nn.Parameter(torch.tensor(v)) for n, v in initial(size).items()}
    ids, labels = (torch.tensor(t).long() for t in tokens(size, batch))
    groups = [
        {"params": [t for n, t in p.items() if "norm" not in n], "weight_decay": 0.1},
        {"params": [t for n, t in p.items() if "norm" in n], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)
    head_dim = size.width // size.heads
    angles = torch.outer(
        torch.arange(size.context), 1e4 ** (-2.0 * torch.arange(head_dim // 2) / head_dim)
    )
    cosine, sine = angles.cos(), angles.sin()

    def linear(x, w):
        if ternary:
            gamma = w.abs().mean()
            s = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
            w = w + ((w / (gamma + 1e-5)).round().clamp(-1, 1) * gamma - w).detach()
            x = x + ((x * (127 / s)).round().clamp(-127, 127) * (s / 127) - x).detach()
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
            h = functional.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True)
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


def rate(step: Callable[[], float], per_step: int, seconds: float) -> float:
    """Best tokens per second over repetitions that fill ``seconds``, after two steps to warm up."""
    step()
    step()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return per_step / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="S,M,L")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--kinds", default="float,ternary")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--simd", help="avx512, avx2 or portable; the best by default")
    arguments = parser.parse_args()
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        torch = None
    library = compile_library(Path(tempfile.mkdtemp()), double=False)
    print("tokens/s of training, one thread" + ("" if torch else " (PyTorch is not installed)"))
    for name in arguments.sizes.split(","):
        size = SIZES[name]
        for batch in map(int, arguments.batches.split(",")):
            for kind in arguments.kinds.split(","):
                ternary = kind == "ternary"
                e = Engine(library, False, arguments.simd)
                per_step = batch * size.context
                step = engine_step(e, size, batch, ternary)
                losses = [step() for _ in range(10)]
                ours = rate(step, per_step, arguments.seconds)
                memory = e.lib.te_bytes_peak(e.ctx) / 1e6
                line = f"{name} B{batch:<2} {kind:7} engine {ours:9.0f} ({memory:.1f} MB)"
                e.close()
                if torch:
                    eager = torch_step(torch, size, batch, ternary, False)
                    theirs = [eager() for _ in range(10)]
                    apart = max(abs(a - b) / b for a, b in zip(losses, theirs, strict=True))
                    line += f" | losses within {apart:.0e}"
                    for label, compiled in (("eager", False), ("compile", True)):
                        other = torch_step(torch, size, batch, ternary, compiled)
                        speed = rate(other, per_step, arguments.seconds)
                        line += f" | {label} {speed:9.0f} x{ours / speed:.2f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
