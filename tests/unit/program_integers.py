"""The integer rows of FORMAT.md section 5, for the slow machine of `program_machine.py`."""

from __future__ import annotations

import numpy as np

from ternio.blob.opcodes import TENSOR, q8_bytes, q16_bytes, scratch_bytes, split_word

INTERLEAVED = 1
FULL = 127 << 16  # 127 in 65536ths


class IntegerRows:
    """Instructions of `Machine`; an integer row is what it was sealed with, (values, scale)."""

    def _q16(self, operand: int, n: int) -> tuple[np.ndarray, float]:
        q, s = self.unseal(self.row_of(operand, q16_bytes(n)))
        return q.astype(np.int64), s

    def _put16(self, operand: int, q: np.ndarray, s: float) -> None:
        assert np.abs(q).max() <= 32767
        size = q16_bytes(q.size)
        self.seal(self.row_of(operand, size), size, (q, s))

    def _put8(self, operand: int, v: np.ndarray, s: float) -> None:
        """NARROW's values of v; `s` is the scale but for the factor."""
        factor = FULL // max(np.abs(v).max(), 1)
        size = q8_bytes(v.size)
        self.seal(self.row_of(operand, size), size, ((v * factor + 32768) >> 16, s * FULL / factor))

    def ternary16(self, i) -> None:
        q, s = self.unseal(self.row_of(i.a, q8_bytes(i.n0)))
        self.scratch(i.d, scratch_bytes(i.n0))
        self.scratch(i.e, 4 * i.n1)
        _, _, index = split_word(i.b)
        h = next(h for h in range(20) if 127 * i.n0 < 32768 << h)
        acc = self.trits[index] @ q.astype(np.int64)
        scale = self.blob.tensors[index].gamma * s / 127 * 32767 * 2**h
        self._put16(i.dst, (acc + (1 << h) // 2) >> h, scale)

    def rope16(self, i) -> None:
        q, s = self._q16(i.a, i.n0)
        angle, x = self.t * self.tensor(i.b)[0], q.reshape(-1, i.n1)
        cos, sin = (np.rint(f(angle) * 32767).astype(np.int64) for f in (np.cos, np.sin))
        half, y = i.n1 // 2, np.empty_like(x)
        first = (slice(None), slice(0, None, 2) if i.flags & INTERLEAVED else slice(0, half))
        second = (slice(None), slice(1, None, 2) if i.flags & INTERLEAVED else slice(half, None))
        y[first] = (x[first] * cos - x[second] * sin + 32768) >> 16
        y[second] = (x[first] * sin + x[second] * cos + 32768) >> 16
        self._put16(i.dst, y.reshape(-1), s * 65536 / 32767)

    def narrow(self, i) -> None:
        q, s = self._q16(i.a, i.n0)
        self._put8(i.dst, q, s / 32767)

    def swiglu_q8(self, i) -> None:
        (g, g_scale), (u, u_scale) = (self._q16(operand, i.n0) for operand in (i.a, i.b))
        self.scratch(i.d, 4 * i.n0)
        x = g * (g_scale / 32767)
        y = np.rint(32768 / (1 + np.exp(-x))).astype(np.int64)
        p = ((g * y + 16384) >> 15) * u
        h = next(h for h in range(20) if np.abs(p).max() >> h < 32768)
        self._put8(i.dst, p >> h, g_scale / 32767 * (u_scale / 32767) * 2**h)

    def norm_q8(self, i) -> None:
        x = self.get(i.a, i.n0)
        self.scratch(i.d, 4 * i.n0)
        s = max(np.abs(x).max(), 1e-30)
        v = np.rint(x * (32767 / s)).astype(np.int64)
        r = s / 32767 / np.sqrt(np.mean(x * x) + i.imm_f32())
        if i.b:
            gain = self.tensor(i.b)[0]
            top = np.abs(gain).max()
            v = (v * np.rint(gain / top * 32767).astype(np.int64) + 16384) >> 15
            r *= top / 32767 * 32768
        self._put8(i.dst, v, r)

    def lora16(self, i) -> None:
        a, b, _, _ = self._factors(i)
        x, s = self.unseal(self.row_of(i.a, q8_bytes(i.n0)))
        q, scale = self._q16(i.dst, i.n1)
        for operand, n in ((i.d, i.n2), (i.e, i.n0), (i.f, i.n1)):
            self.scratch(operand, 4 * n)
        if self.factors is None and split_word(i.b)[0] != TENSOR:
            return
        y = q * (scale / 32767) + i.imm_f32() * (b @ (a @ x * (s / 127)))
        top = max(np.abs(y).max(), 1e-30)
        self._put16(i.dst, np.rint(y * (32767 / top)).astype(np.int64), top)
