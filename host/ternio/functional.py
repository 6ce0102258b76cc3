"""Operations as functions, under PyTorch's names where the thing is the same thing.

Each is one operation of the engine and one node on its tape. Shapes are row-major,
`[batch, time, width]` where time matters, `[..., width]` elsewhere.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from ._engine import ffi, lib
from .errors import ModelError
from .tensor import Tensor, apply


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x w^T + b.  x [..., in], weight [out, in], bias [out] -> [..., out]"""
    return apply(lib.te_linear, x, weight, bias)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """x @ y, a linear() whose weight is y turned: y [n, m] makes of x [..., n] a [..., m], y [n] a
    [...].
    """
    if not x.ndim or y.ndim not in (1, 2) or x.shape[-1] != y.shape[0]:
        raise ModelError(
            f"matmul: {list(x.shape)} @ {list(y.shape)} do not fit (needs [..., n] @ [n, m] or [n])"
        )
    if y.ndim == 1:
        return linear(x, y.reshape(1, -1)).reshape(x.shape[:-1])
    return linear(x, y.T)


def bitlinear(x: Tensor, weight: Tensor) -> Tensor:
    """BitNet b1.58 (arXiv 2402.17764): ternary weights, int8 inputs, straight-through gradient.

    x [..., in], weight [out, in] -> [..., out]
    """
    return apply(lib.te_bitlinear, x, weight)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467)."""
    return apply(lib.te_rmsnorm, x, weight, float(eps))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension."""
    return apply(lib.te_layernorm, x, weight, bias, float(eps))


def rope(
    x: Tensor, head_dim: int, base: float = 10000.0, offset: int = 0, interleaved: bool = False
) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) of every head.

    Args:
        x: [..., time, heads * head_dim].
        head_dim: even.
        base: pair i turns by base^(-2i/head_dim) per position.
        offset: position of the first row.
        interleaved: pairs are neighbours (2i, 2i+1) instead of halves (i, i + head_dim/2).
    """
    pairing = lib.TE_ROPE_INTERLEAVED if interleaved else lib.TE_ROPE_SPLIT_HALF
    return apply(lib.te_rope, x, head_dim, pairing, float(base), offset)


def attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, kv_heads: int | None = None, is_causal: bool = True
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v; heads share keys and values in groups (2305.13245).

    q [batch, time, heads * head_dim]; k, v [batch, time, kv_heads * head_dim] -> like q
    """
    shared = heads if kv_heads is None else kv_heads
    return apply(lib.te_attention, q, k, v, heads, shared, int(is_causal))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202)."""
    return apply(lib.te_swiglu, gate, up)


def sum_pool(x: Tensor) -> Tensor:
    """Sum over time.  [..., time, width] -> [..., width]"""
    return apply(lib.te_sum_pool, x)


def mean_pool(x: Tensor) -> Tensor:
    """Mean over time.  [..., time, width] -> [..., width]"""
    return apply(lib.te_mean_pool, x)


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of a table.  ids int32 [...], weight [rows, width] -> [..., width]"""
    return apply(lib.te_embedding, weight, ids)


def lora(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """y + scale * (x a^T) b^T (arXiv 2106.09685).

    y [..., out], x [..., in], a [rank, in], b [out, rank]
    """
    return apply(lib.te_lora, y, x, a, b, float(scale))


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """gelu(gate) * up (arXiv 2002.05202)."""
    return apply(lib.te_geglu, gate, up)


def max_pool(x: Tensor) -> Tensor:
    """Largest value over time.  [..., time, width] -> [..., width]"""
    return apply(lib.te_max_pool, x)


def last_pool(x: Tensor) -> Tensor:
    """The last row of time.  [..., time, width] -> [..., width], a view"""
    return x[..., -1, :]


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """Convolution over time with zeros around; channels last, unlike PyTorch's.

    x [..., time, in], weight [out, kernel, in], bias [out]
    -> [..., (time + left + right - kernel) / stride + 1, out]

    Args:
        padding: zeros on both sides, or (left, right); (kernel - 1, 0) makes it causal.
    """
    try:
        left, right = np.broadcast_to(np.array(padding), 2)
        sizes = [operator.index(size) for size in (stride, left, right)]
    except (TypeError, ValueError):
        raise ModelError(
            f"conv1d: stride {stride!r}, padding {padding!r}: expected whole numbers, padding one "
            "or (left, right)"
        ) from None
    return apply(lib.te_conv1d, x, weight, bias, *sizes)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Elements become 0 with probability p, the others are divided by 1 - p (1207.0580)."""
    return apply(lib.te_dropout, x, float(p)) if training else x


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Up to 8 tensors joined along a dimension."""
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise ModelError("cat: expected at least one tensor, and tensors only")
    context = tensors[0].context
    if any(t.context is not context for t in tensors):
        raise ModelError("tensors of two contexts in one operation; create them in one")
    parts = ffi.new("te_tensor *[]", [t.pointer for t in tensors])
    return Tensor.wrap(lib.te_concat(context.pointer, len(tensors), parts, dim), context)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """One element of each row.  x [..., n], index int32 [...] -> [...]"""
    return apply(lib.te_gather, x, index)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two, element by element."""
    return apply(lib.te_minimum, a, b)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))"""
    return x.sigmoid()


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return x.tanh()


def relu(x: Tensor) -> Tensor:
    """max(x, 0)"""
    return x.relu()


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)"""
    return x.silu()


def gelu(x: Tensor) -> Tensor:
    """The tanh form of GELU (arXiv 1606.08415)."""
    return x.gelu()


def softmax(x: Tensor) -> Tensor:
    """Over the last dimension."""
    return x.softmax()


def log_softmax(x: Tensor) -> Tensor:
    """Logarithm of softmax() over the last dimension."""
    return x.log_softmax()


def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int = -100, mask: Tensor | None = None
) -> Tensor:
    """Mean negative log-likelihood, a scalar; 0 where no row counts.

    Args:
        logits: [..., classes].
        target: int32 [...].
        ignore_index: rows of this label do not count.
        mask: float32 [...], what each row counts, 0 for nothing; gets no gradient. The result is
            sum(mask * nll) / sum(mask).
    """
    return apply(lib.te_cross_entropy_masked, logits, target, mask, ignore_index)


def mse_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (a - b)^2, a scalar."""
    return apply(lib.te_mse, a, b)
