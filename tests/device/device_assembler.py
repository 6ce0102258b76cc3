"""Writes blobs from device/FORMAT.md with `struct` alone, independently of ternio.blob."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np

FORWARD = """LOOP INPUT ZERO COPY ADD MUL SCALE LINEAR QUANTIZE TERNARY LORA RMSNORM ROPE ATTENTION
SWIGLU SILU GELU RELU MEANPOOL LAYERNORM EMBEDDING QUANTIZE16 LINEAR_I8 ATTENTION_Q8
TERNARY16 ROPE16 NARROW SWIGLU_Q8 NORM_Q8 LORA16"""
BACKWARD = """CROSS_ENTROPY LINEAR_T - TERNARY_T LORA_BWD RMSNORM_BWD ATTENTION_BWD
SWIGLU_BWD SILU_BWD GELU_BWD RELU_BWD LAYERNORM_BWD"""
OPS = {name: 1 + k for k, name in enumerate(FORWARD.split())}
OPS.update({name: 64 + k for k, name in enumerate(BACKWARD.split()) if name != "-"}, OPTIMIZE=79)
STEP = 1 << 28
ARENA, TENSOR, ADAPTER = 1 << 29, 2 << 29, 3 << 29
ACC = 0x80


def pad(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def f32(x: float) -> int:
    """The bits of a float, for `imm`."""
    return struct.unpack("<I", struct.pack("<f", x))[0]


def instruction(op: str, *operands: int, n: tuple[int, ...] = (), flags: int = 0, imm: int = 0):
    """One instruction; operands in the order dst, a .. f."""
    words = list(operands) + [0] * (7 - len(operands))
    dims = list(n) + [0] * (3 - len(n))
    return struct.pack("<BBHHH8I", OPS[op], flags, *dims, *words, imm)


def pack_trits(w: np.ndarray) -> bytes:
    """Layout WU, written out byte by byte from the format's definition."""
    rows, cols = w.shape
    full = np.zeros((pad(rows, 8), pad(cols, 16)), int)
    full[:rows, :cols] = w
    out = bytearray()
    for start in range(0, full.shape[1], 64):
        panel = full[:, start : start + 64]
        pitch = panel.shape[1] // 4
        for row in panel:
            for b in range(pitch):
                out.append(sum((1 - int(row[pitch * k + b])) << (2 * k) for k in range(4)))
    return bytes(out)


def merge_rows(packed: bytes, rows: int, cols: int) -> bytes:
    """Layout WD from layout WU, word by word from the format's definition."""
    out = bytearray(packed)
    at = 0
    for start in range(0, pad(cols, 16), 64):
        words = min(64, pad(cols, 16) - start) // 16
        for _ in range(0, pad(rows, 8), 2):
            for k in range(words):
                even, odd = at + 4 * k, at + 4 * (words + k)
                e, o = (struct.unpack_from("<I", out, place)[0] for place in (even, odd))
                o ^= 0x55555555
                o = (o >> 18 | o << 14) & 0xFFFFFFFF
                s = (e ^ o) & 0xCCCCCCCC
                struct.pack_into("<I", out, even, e ^ s)
                struct.pack_into("<I", out, odd, o ^ s)
            at += 8 * words
    return bytes(out)


def seal(blob: bytes | bytearray) -> bytes:
    """The same bytes with digest and CRC made right."""
    blob = bytearray(blob)
    blob[0x10:0x30] = hashlib.sha256(blob[0x30:]).digest()
    blob[0x0C:0x10] = struct.pack("<I", zlib.crc32(blob[0x10:]))
    return bytes(blob)


def characters(codes) -> bytes:
    """A vocabulary section of code points."""
    return struct.pack(f"<I{len(codes)}I", 1, *codes)


class Assembler:
    """Collects tensors, adapters and instructions; `build()` gives the blob. With a vocabulary
    (the bytes of VOCB) the model is one of tokens, `length` its context."""

    def __init__(self, channels=1, length=4, outputs=2, name="test", vocabulary: bytes = b""):
        self.vocabulary = vocabulary
        self.channels, self.length, self.outputs, self.name = channels, length, outputs, name
        self.entries: list[bytes] = []
        self.data = bytearray()
        self.adapters: list[bytes] = []
        self.factors = 0
        self.infer: list[bytes] = []
        self.adapt: list[bytes] = []
        self.adapt_flags = 0
        self.top = 0
        self.infer_arena: int | None = None  # by default the same as adapt's
        self.labels = [f"class {k}" for k in range(outputs)]
        self.input = 0 if vocabulary else self.room(bytes_=2 * channels * length, align=16)
        self.logits = self.room(outputs)
        self.scale = 0 if vocabulary else self.f32(np.full((1, channels), 0.5))

    def room(self, floats: int = 0, bytes_: int = 0, align: int = 4) -> int:
        """Reserves arena; returns the operand word."""
        self.top = pad(self.top, align)
        word = ARENA | self.top // 4
        self.top += max(4 * floats, pad(bytes_, 4))
        return word

    def q8(self, n: int) -> int:
        return self.room(bytes_=pad(n, 64) + 16, align=16)

    def q16(self, n: int) -> int:
        return self.room(bytes_=2 * pad(n, 8) + 16, align=16)

    def q8_block(self, rows: int, n: int) -> int:
        return self.room(bytes_=rows * (pad(n, 64) + 16), align=16)

    def scratch(self, n: int) -> int:
        return self.room(bytes_=max(2 * pad(n, 64), 1408), align=16)

    def _tensor(self, dtype: int, shape, data: bytes, gamma: float = 0.0) -> int:
        self.data += bytes(-len(self.data) % 16)
        entry = struct.pack(
            "<B3xIIIIf8x", dtype, *shape, len(self.data), len(data), np.float32(gamma)
        )
        self.entries.append(entry)
        self.data += data
        return TENSOR | len(self.entries) - 1

    def f32(self, values) -> int:
        values = np.atleast_2d(np.asarray(values, "<f4"))
        return self._tensor(1, values.shape, values.tobytes())

    def f16(self, values) -> int:
        values = np.atleast_2d(np.asarray(values, "<f2"))
        return self._tensor(2, values.shape, values.tobytes())

    def i8(self, q, scales) -> int:
        q = np.asarray(q, np.int8)
        data = q.tobytes() + bytes(-q.size % 4) + np.asarray(scales, "<f4").tobytes()
        return self._tensor(3, q.shape, data)

    def i16(self, q, scales) -> int:
        q = np.asarray(q, "<i2")
        data = q.tobytes() + bytes(-q.nbytes % 4) + np.asarray(scales, "<f4").tobytes()
        return self._tensor(6, q.shape, data)

    def t2(self, trits, gamma: float) -> int:
        return self._tensor(4, np.shape(trits), pack_trits(np.asarray(trits)), gamma)

    def t2d(self, trits, gamma: float) -> int:
        return self._tensor(
            5, np.shape(trits), merge_rows(pack_trits(np.asarray(trits)), *np.shape(trits)), gamma
        )

    def adapter(self, inputs: int, outputs: int, rank: int, scale=1.0, bound=0.25) -> int:
        a = self.factors
        b = a + rank * inputs
        self.factors = b + rank * outputs
        entry = struct.pack("<IIIffIII", inputs, outputs, rank, scale, bound, a, b, 0)
        self.adapters.append(entry)
        return ADAPTER | len(self.adapters) - 1

    def _program(self, code: list[bytes], state: int, flags: int) -> bytes:
        words = (self.input & (STEP - 1), self.logits & (STEP - 1), state, flags)
        return struct.pack("<IIII16x", *words) + b"".join(code)

    @property
    def state(self) -> int:
        """Arena byte at which the adaptation state starts."""
        return pad(self.top, 16)

    @property
    def block_bytes(self) -> int:
        return pad(4 * self.factors, 16)

    def build(self) -> bytes:
        arena = pad(self.top, 16)
        tokens = bool(self.vocabulary)
        shape = (1 + tokens, self.channels, self.length, 0.0 if tokens else 50.0, self.outputs)
        iods = struct.pack("<IIIfIII36x", *shape, self.scale & 0xFFFF, 1)
        labels = b"".join(text.encode() + b"\0" for text in self.labels)
        words = (b"VOCB", self.vocabulary) if tokens else (b"LABL", labels)
        sections = [
            (b"IODS", iods, 1),
            (*words, self.outputs),
            (b"TDIR", b"".join(self.entries), len(self.entries)),
            (b"INFR", self._program(self.infer, 0, 2 if tokens else 0), len(self.infer)),
        ]
        if self.adapters:
            sections.append((b"ADIR", b"".join(self.adapters), len(self.adapters)))
        if self.adapt:
            sections.append(
                (b"ADPT", self._program(self.adapt, arena, self.adapt_flags), len(self.adapt))
            )
        sections += [(b"META", b"\xa0", 1), (b"DATA", bytes(self.data), 0)]
        body, table = bytearray(), bytearray()
        start = pad(96 + 16 * len(sections), 16)
        for kind, content, count in sections:
            body += bytes(-len(body) % 16)
            table += struct.pack("<4sIII", kind, start + len(body), len(content), count)
            body += content
        body += bytes(-len(body) % 16)
        total = start + len(body)
        adapt_arena = arena + 4 * self.block_bytes if self.adapt else 0
        header = struct.pack("<4sHHII32s", b"TERN", 0, 2, total, 0, b"")
        infer_arena = arena if self.infer_arena is None else self.infer_arena
        header += struct.pack("<IIII", total, len(sections), infer_arena, adapt_arena)
        header += self.name.encode().ljust(32, b"\0")
        return seal(header + table + bytes(body))
