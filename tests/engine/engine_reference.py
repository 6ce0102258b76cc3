"""The engine's operations written a second time, in NumPy and from the papers' formulas."""

from __future__ import annotations

import numpy as np


def linear(x, w, b=None):
    return x @ w.T + (0 if b is None else b)


def ternary(w):
    """Trits and the absolute mean."""
    gamma = np.abs(w).mean(dtype=np.float64).astype(w.dtype)
    return np.clip(np.rint(w / (gamma + w.dtype.type(1e-5))), -1, 1), gamma


def int8(x):
    """Codes in -127..127 and the scale of each vector."""
    s = np.maximum(np.abs(x).max(-1, keepdims=True), x.dtype.type(1e-5))
    return np.clip(np.rint(x * (x.dtype.type(127) / s)), -127, 127), s


def bitlinear(x, w):
    trits, gamma = ternary(w)
    codes, s = int8(x)
    return (codes @ trits.T) * (gamma * s / x.dtype.type(127))


def rmsnorm(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def layernorm(x, gain, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    z = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return z * gain + (0 if bias is None else bias)


def rope(x, head_dim, interleaved, base, offset):
    time, half = x.shape[-2], head_dim // 2
    angle = np.outer(offset + np.arange(time), base ** (-2.0 * np.arange(half) / head_dim))
    c, s = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    heads = x.reshape(*x.shape[:-1], -1, head_dim)
    y = np.empty_like(heads)
    first, second = (
        (np.s_[..., 0::2], np.s_[..., 1::2])
        if interleaved
        else (np.s_[..., :half], np.s_[..., half:])
    )
    y[first] = heads[first] * c - heads[second] * s
    y[second] = heads[first] * s + heads[second] * c
    return y.reshape(x.shape)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q, k, v, heads, kv_heads, causal):
    def split(t, n):
        return np.moveaxis(t.reshape(*t.shape[:-1], n, -1), -2, -3)

    qh = split(q, heads)
    kh, vh = (np.repeat(split(t, kv_heads), heads // kv_heads, axis=-3) for t in (k, v))
    scores = qh @ np.swapaxes(kh, -1, -2) / np.sqrt(qh.shape[-1])
    if causal:
        time, key_time = scores.shape[-2:]
        hidden = np.arange(key_time) > np.arange(time)[:, None] + key_time - time
        scores = np.where(hidden, -np.inf, scores)
    return np.moveaxis(softmax(scores) @ vh, -3, -2).reshape(q.shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def cross_entropy(logits, labels, ignore_index, mask=None):
    rows, flat = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    weight = (flat != ignore_index) * (1.0 if mask is None else mask.reshape(-1))
    if not weight.any():
        return np.zeros((), logits.dtype)
    picked = softmax(rows)[np.arange(len(flat)), np.where(flat != ignore_index, flat, 0)]
    return -(weight * np.log(picked)).sum() / weight.sum()


def lora(y, x, a, b, scale):
    return y + scale * (x @ a.T) @ b.T


def conv1d(x, w, b, stride, left, right):
    kernel = w.shape[1]
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(left, right), (0, 0)])
    starts = range(0, x.shape[-2] - kernel + 1, stride)
    windows = np.stack([x[..., t : t + kernel, :] for t in starts], axis=-3)
    return np.einsum("...tkc,okc->...to", windows, w) + b
