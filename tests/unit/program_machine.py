"""A slow machine for programs in NumPy float64, written from FORMAT.md, not from the C runtime.

It finds wrong memory plans as well: integer rows leave a seal in the words that they cover, and
scratch is filled with NaN, so whatever overlaps what is still needed shows.
"""

from __future__ import annotations

import numpy as np

from program_integers import IntegerRows
from ternio.blob import Blob, Program
from ternio.blob.opcodes import ARENA, TENSOR, Op, q8_bytes, q16_bytes, scratch_bytes, split_word

CAUSAL, BACK, INTERLEAVED, ACC = 1, 2, 1, 0x80


class Machine(IntegerRows):
    """A blob in an arena of words. `factors` [P] or None; `gradients` [P] after an `adapt` run."""

    def __init__(self, blob: Blob, factors: np.ndarray | None = None) -> None:
        self.blob, self.factors = blob, factors
        size = max(blob.infer_arena, blob.adapt_arena)
        self.words = np.full(size // 4, np.nan)
        self.sealed: dict[int, tuple] = {}
        self.seals = 1e200
        self.gradients = np.zeros(blob.adapter_floats)
        self.loss = np.nan
        self.position = 0
        self.weights = [t.numpy().astype(np.float64) for t in blob.tensors]
        self.trits = {
            i: t.trits().astype(np.int64) for i, t in enumerate(blob.tensors) if t.is_ternary
        }

    def infer(self, window: np.ndarray) -> np.ndarray:
        """Logits of an int16 window."""
        self.start(self.blob.infer, window)
        return self.logits(self.blob.infer)

    def step(self, token: int) -> np.ndarray:
        """Logits of a token of a stream, in the arena as the one before it left it."""
        self.token, self.rows = token, self.blob.io.length
        self.t = self.position
        for x in self.blob.infer.code:
            getattr(self, Op(x.op).name.lower())(x)
        self.position += 1
        return self.logits(self.blob.infer)

    def adapt(self, window: np.ndarray, label: int) -> float:
        """The loss; gradients are then in `self.gradients`."""
        self.label = label
        if self.blob.adapt.after_infer:
            self.start(self.blob.infer, window)
            self.run(self.blob.adapt)
        else:
            self.start(self.blob.adapt, window)
        return self.loss

    def start(self, program: Program, window: np.ndarray) -> None:
        self.seal(program.window, window.size * 2, (window.reshape(-1).astype(np.float64),))
        self.run(program)

    def logits(self, program: Program) -> np.ndarray:
        return self.words[program.logits : program.logits + self.blob.io.outputs].copy()

    # ---- Memory -------------------------------------------------------------------------------

    def seal(self, word: int, size: int, content: tuple) -> None:
        self.seals *= 1.0000001
        self.words[word : word + (size + 3) // 4] = self.seals
        self.sealed[word] = (self.seals, size, content)

    def unseal(self, word: int, start: int = 0, size: int | None = None) -> tuple:
        """Content of sealed words; bytes [start, start + size) must be untouched."""
        seal, whole, content = self.sealed[word]
        size = whole - start if size is None else size
        covered = self.words[word + start // 4 : word + (start + size + 3) // 4]
        assert (covered == seal).all(), "something overwrote an integer row that was still needed"
        return content

    def get(self, operand: int, n: int, block: bool = False) -> np.ndarray:
        space, step, index = split_word(operand)
        assert space == ARENA and not (step and block)
        start = index + (self.t * n if step else 0)
        count = n * self.rows if block else n
        values = self.words[start : start + count]
        assert np.isfinite(values).all(), "reads what nothing has written, or what was overwritten"
        assert (np.abs(values) < 1e100).all(), "reads an integer row as floats"
        return values.reshape(self.rows, n).copy() if block else values.copy()

    def put(self, operand: int, values: np.ndarray, flags: int = 0) -> None:
        _, step, index = split_word(operand)
        start = index + (self.t * values.size if step else 0)
        if flags & ACC:
            values = values + self.get(operand, values.size)
        self.words[start : start + values.size] = values.reshape(-1)

    def scratch(self, operand: int, size: int) -> None:
        _, _, index = split_word(operand)
        self.words[index : index + size // 4] = np.nan

    def tensor(self, operand: int) -> np.ndarray:
        space, _, index = split_word(operand)
        assert space == TENSOR
        return self.weights[index]

    def row_of(self, operand: int, size: int) -> int:
        _, step, index = split_word(operand)
        return index + (self.t * size // 4 if step else 0)

    # ---- Control ------------------------------------------------------------------------------

    def run(self, program: Program) -> None:
        code, at = program.code, 0
        while at < len(code):
            i = code[at]
            body, order, self.rows = code[at : at + 1], [0], 1
            if i.op == Op.LOOP:
                body, self.rows = code[at + 1 : at + 1 + i.n1], i.n0
                order = range(i.n0)[::-1] if i.flags else range(i.n0)
                at += i.n1
            at += 1
            self.first = order[0]
            self.last = order[-1]
            for self.t in order:
                for x in body:
                    getattr(self, Op(x.op).name.lower())(x)

    # ---- Forward ------------------------------------------------------------------------------

    def input(self, i) -> None:
        e = self.t * i.n0 + np.arange(i.n0)
        there = e < i.imm
        _, step, word = split_word(i.a)
        count = int(there.sum())
        (window,) = self.unseal(word, 2 * self.t * i.n0, 2 * count) if count else (np.zeros(1),)
        assert step or self.rows == 1
        values = np.zeros(i.n0)
        gain, shift = self.tensor(i.b)[0], self.tensor(i.c)[0]
        c = e[there] % i.n1
        values[there] = window[e[there]] * gain[c] + shift[c]
        self.put(i.dst, values)

    def zero(self, i) -> None:
        _, _, index = split_word(i.dst)
        self.words[index : index + i.n0 * i.n1] = 0

    def copy(self, i) -> None:
        self.put(i.dst, self.get(i.a, i.n0), i.flags)

    def add(self, i) -> None:
        self.put(i.dst, self.get(i.a, i.n0) + self.get(i.b, i.n0))

    def mul(self, i) -> None:
        self.put(i.dst, self.get(i.a, i.n0) * self.get(i.b, i.n0))

    def scale(self, i) -> None:
        self.put(i.dst, self.get(i.a, i.n0) * i.imm_f32(), i.flags)

    def linear(self, i) -> None:
        y = self.tensor(i.b) @ self.get(i.a, i.n0)
        self.put(i.dst, y + (self.tensor(i.c)[0] if i.c else 0))

    def embedding(self, i) -> None:
        self.put(i.dst, self.tensor(i.b)[self.token])

    def linear_i8(self, i) -> None:
        q, s = self.unseal(self.row_of(i.a, q16_bytes(i.n0)))
        y = self.tensor(i.b) @ q * (s / 32767)
        self.put(i.dst, y + (self.tensor(i.c)[0] if i.c else 0))

    def quantize(self, i) -> None:
        x = self.get(i.a, i.n0)
        s = max(np.abs(x).max(), 1e-5)
        q = np.rint(x * (127 / s))
        self.seal(self.row_of(i.dst, q8_bytes(i.n0)), q8_bytes(i.n0), (q, s))

    def ternary(self, i) -> None:
        q, s = self.unseal(self.row_of(i.a, q8_bytes(i.n0)))
        self.scratch(i.d, scratch_bytes(i.n0))
        _, _, index = split_word(i.b)
        gamma = self.blob.tensors[index].gamma
        self.put(i.dst, (self.trits[index] @ q) * (gamma * s / 127))

    def _factors(self, i) -> tuple[np.ndarray, np.ndarray, slice, slice]:
        space, _, index = split_word(i.b)
        if space == TENSOR:
            return self.tensor(i.b), self.tensor(i.c), slice(0, 0), slice(0, 0)
        x = self.blob.adapters[index]
        at_a = slice(x.a, x.a + x.rank * x.inputs)
        at_b = slice(x.b, x.b + x.rank * x.outputs)
        f = np.zeros(self.blob.adapter_floats) if self.factors is None else self.factors
        a, b = f[at_a].reshape(x.rank, x.inputs), f[at_b].reshape(x.outputs, x.rank)
        return a, b, at_a, at_b

    def lora(self, i) -> None:
        a, b, _, _ = self._factors(i)
        y = self.get(i.dst, i.n1) + i.imm_f32() * (b @ (a @ self.get(i.a, i.n0)))
        self.scratch(i.d, 4 * i.n2)
        self.put(i.dst, y)

    def rmsnorm(self, i) -> None:
        x = self.get(i.a, i.n0)
        gain = self.tensor(i.b)[0] if i.b else 1
        self.put(i.dst, x * gain / np.sqrt(np.mean(x * x) + i.imm_f32()))

    def layernorm(self, i) -> None:
        x = self.get(i.a, i.n0)
        y = (x - x.mean()) / np.sqrt(x.var() + i.imm_f32()) * self.tensor(i.b)[0]
        self.put(i.dst, y + (self.tensor(i.c)[0] if i.c else 0))

    def rope(self, i) -> None:
        x = self.get(i.a, i.n0).reshape(-1, i.n1)
        angle = self.t * self.tensor(i.b)[0] * (-1 if i.flags & BACK else 1)
        cos, sin, y = np.cos(angle), np.sin(angle), np.empty_like(x)
        half = i.n1 // 2
        first = (slice(None), slice(0, None, 2) if i.flags & INTERLEAVED else slice(0, half))
        second = (slice(None), slice(1, None, 2) if i.flags & INTERLEAVED else slice(half, None))
        y[first] = x[first] * cos - x[second] * sin
        y[second] = x[first] * sin + x[second] * cos
        self.put(i.dst, y)

    def _attend(self, i) -> tuple:
        heads, kv, width = i.n0, i.n1, i.n2
        seen = self.t + 1 if i.flags & CAUSAL else self.rows
        if i.op == Op.ATTENTION_Q8:
            q, s = self.unseal(self.row_of(i.a, q16_bytes(heads * width)))
            q, rows = q * (s / 32767), self._q8_rows
        else:
            q, rows = self.get(i.a, heads * width), self._keys
        q = q.reshape(heads, width)
        keys, values = (
            rows(operand, kv * width, seen).reshape(seen, kv, width) for operand in (i.b, i.c)
        )
        group = np.arange(heads) // (heads // kv)
        scores = np.einsum("hd,thd->ht", q, keys[:, group]) / np.sqrt(width)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        return q, keys, values, group, p / p.sum(axis=1, keepdims=True)

    def _keys(self, operand: int, n: int, rows: int) -> np.ndarray:
        """The first rows of a block; those behind a causal mask may not have been written."""
        _, _, index = split_word(operand)
        values = self.words[index : index + rows * n].copy()
        assert np.isfinite(values).all() and (np.abs(values) < 1e100).all(), "K or V incomplete"
        return values

    def _q8_rows(self, operand: int, n: int, rows: int) -> np.ndarray:
        """The first rows of a block of int8 rows."""
        _, _, index = split_word(operand)
        places = (index + t * q8_bytes(n) // 4 for t in range(rows))
        return np.array([q * (s / 127) for q, s in map(self.unseal, places)])

    def attention_q8(self, i) -> None:
        """In floats: the integer form of the runtime is that close to it."""
        _, _, values, group, p = self._attend(i)
        self.scratch(i.d, 12 * self.rows)
        self.put(i.dst, np.einsum("ht,thd->hd", p, values[:, group]))

    def attention(self, i) -> None:
        _, _, values, group, p = self._attend(i)
        self.scratch(i.d, 4 * self.rows)
        self.put(i.dst, np.einsum("ht,thd->hd", p, values[:, group]))

    def swiglu(self, i) -> None:
        a = self.get(i.a, i.n0)
        self.put(i.dst, a / (1 + np.exp(-a)) * self.get(i.b, i.n0))

    def silu(self, i) -> None:
        a = self.get(i.a, i.n0)
        self.put(i.dst, a / (1 + np.exp(-a)))

    def gelu(self, i) -> None:
        self.put(i.dst, _gelu(self.get(i.a, i.n0)))

    def relu(self, i) -> None:
        self.put(i.dst, np.maximum(self.get(i.a, i.n0), 0))

    def meanpool(self, i) -> None:
        before = np.zeros(i.n0) if self.t == self.first else self.get(i.dst, i.n0)
        total = before + self.get(i.a, i.n0)
        self.put(i.dst, total / self.rows if self.t == self.last else total)

    # ---- Backward -----------------------------------------------------------------------------

    def cross_entropy(self, i) -> None:
        x = self.get(i.a, i.n0)
        p = np.exp(x - x.max())
        p /= p.sum()
        self.loss = -np.log(p[self.label])
        p[self.label] -= 1
        self.put(i.dst, p)

    def linear_t(self, i) -> None:
        self.put(i.dst, self.tensor(i.b).T @ self.get(i.a, i.n1), i.flags)

    def quantize16(self, i) -> None:
        x = self.get(i.a, i.n0)
        s = max(np.abs(x).max(), 1e-30)
        q = np.rint(x * (32767 / s))
        self.seal(self.row_of(i.dst, q16_bytes(i.n0)), q16_bytes(i.n0), (q, s))

    def ternary_t(self, i) -> None:
        q, s = self.unseal(self.row_of(i.a, q16_bytes(i.n1)))
        self.scratch(i.d, scratch_bytes(i.n0))
        _, _, index = split_word(i.b)
        gamma = self.blob.tensors[index].gamma
        self.put(i.dst, (self.trits[index].T @ q) * (gamma * s / 32767), i.flags)

    def lora_bwd(self, i) -> None:
        a, b, at_a, at_b = self._factors(i)
        x, dy = self.get(i.a, i.n0), self.get(i.d, i.n1)
        self.scratch(i.e, 8 * i.n2)
        z, g = a @ x, i.imm_f32() * (b.T @ dy)
        if i.dst:
            self.put(i.dst, a.T @ g, i.flags)
        if at_a.stop:
            self.gradients[at_a] += np.outer(g, x).reshape(-1)
            self.gradients[at_b] += i.imm_f32() * np.outer(dy, z).reshape(-1)

    def rmsnorm_bwd(self, i) -> None:
        x, dy = self.get(i.a, i.n0), self.get(i.c, i.n0)
        u = dy * (self.tensor(i.b)[0] if i.b else 1)
        r = 1 / np.sqrt(np.mean(x * x) + i.imm_f32())
        self.put(i.dst, r * u - x * r**3 * np.mean(u * x), i.flags)

    def layernorm_bwd(self, i) -> None:
        x, dy = self.get(i.a, i.n0), self.get(i.c, i.n0)
        r = 1 / np.sqrt(x.var() + i.imm_f32())
        n, u = (x - x.mean()) * r, dy * self.tensor(i.b)[0]
        self.put(i.dst, r * (u - u.mean() - n * np.mean(u * n)), i.flags)

    def attention_bwd(self, i) -> None:
        q, keys, values, group, p = self._attend(i)
        heads, kv, width = i.n0, i.n1, i.n2
        do = self.get(i.d, heads * width).reshape(heads, width)
        dp = np.einsum("hd,thd->ht", do, values[:, group])
        ds = p * (dp - (p * dp).sum(axis=1, keepdims=True)) / np.sqrt(width)
        dk = self.get(i.e, kv * width, block=True).reshape(self.rows, kv, width)
        dv = self.get(i.f, kv * width, block=True).reshape(self.rows, kv, width)
        self.scratch(i.imm, 8 * self.rows)
        for h in range(heads):
            dk[: len(keys), group[h]] += np.outer(ds[h], q[h])
            dv[: len(keys), group[h]] += np.outer(p[h], do[h])
        for operand, grown in ((i.e, dk), (i.f, dv)):
            self.put(operand, grown)
        self.put(i.dst, np.einsum("ht,thd->hd", ds, keys[:, group]))

    def swiglu_bwd(self, i) -> None:
        a, b, dy = (self.get(x, i.n0) for x in (i.a, i.b, i.c))
        sigmoid = 1 / (1 + np.exp(-a))
        self.put(i.dst, dy * b * sigmoid * (1 + a * (1 - sigmoid)))
        self.put(i.d, dy * a * sigmoid)

    def silu_bwd(self, i) -> None:
        a, dy = self.get(i.a, i.n0), self.get(i.c, i.n0)
        sigmoid = 1 / (1 + np.exp(-a))
        self.put(i.dst, dy * sigmoid * (1 + a * (1 - sigmoid)), i.flags)

    def gelu_bwd(self, i) -> None:
        a, dy, h = self.get(i.a, i.n0), self.get(i.c, i.n0), 1e-6
        self.put(i.dst, dy * (_gelu(a + h) - _gelu(a - h)) / (2 * h), i.flags)

    def relu_bwd(self, i) -> None:
        self.put(i.dst, self.get(i.c, i.n0) * (self.get(i.a, i.n0) > 0), i.flags)

    def optimize(self, i) -> None:
        pass


def _gelu(a: np.ndarray) -> np.ndarray:
    return 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
