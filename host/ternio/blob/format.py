"""The blob of device/FORMAT.md as Python data: `Blob.encode()` writes it, `decode()` reads it."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import BlobError
from . import opcodes as ops
from . import ternary
from .vocabulary import Vocabulary

MAGIC = b"TERN"
MAJOR, MINOR = 0, 2
HEADER_BYTES, SECTION_BYTES, ENTRY_BYTES = 96, 16, 32
PROGRAM_HEADER_BYTES, INSTRUCTION_BYTES = 32, 40
NAME_BYTES = 32
SECTIONS = ("IODS", "LABL", "VOCB", "TDIR", "ADIR", "INFR", "ADPT", "DATA", "META")
OPTIONAL_SECTIONS = ("LABL", "VOCB", "ADIR", "ADPT")
KIND_WINDOW, KIND_TOKENS = 1, 2
DTYPES = {"F32": 1, "F16": 2, "I8": 3, "T2": 4, "T2D": 5, "I16": 6}
TERNARY = ("T2", "T2D")
INTEGERS = {"I8": np.dtype("i1"), "I16": np.dtype("<i2")}  # with an F32 scale per row
DTYPE_NAMES = {code: name for name, code in DTYPES.items()}

_HEADER = struct.Struct("<4sHHII32sIIII32s")
_SECTION = struct.Struct("<4sIII")
_IODS = struct.Struct("<IIIfIII36x")
_TENSOR = struct.Struct("<B3xIIIIf8x")
_ADAPTER = struct.Struct("<IIIffII4x")
_PROGRAM = struct.Struct("<IIII16x")
_INSTRUCTION = struct.Struct("<BBHHH8I")


def align16(n: int) -> int:
    """`n` rounded up to a multiple of 16."""
    return (n + 15) // 16 * 16


def is_text(text: str) -> bool:
    """No control characters (U+0000..1F, 7F..9F), so that a console can print it as it is."""
    return not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)


def tensor_bytes(dtype: str, rows: int, cols: int) -> int:
    """Bytes of a tensor's data in `DATA`."""
    if dtype in TERNARY:
        return ternary.packed_bytes(rows, cols)
    if dtype in INTEGERS:
        return (rows * cols * INTEGERS[dtype].itemsize + 3) // 4 * 4 + 4 * rows
    return rows * cols * (4 if dtype == "F32" else 2)


@dataclass(frozen=True)
class Tensor:
    """One entry of `TDIR` with its data."""

    name: str
    dtype: str
    rows: int
    cols: int
    data: bytes
    gamma: float = 0.0

    @classmethod
    def floats(cls, name: str, values: np.ndarray, dtype: str = "F32") -> Tensor:
        """A float tensor from values [cols] or [rows, cols]; `dtype` F32, F16, I8 or I16."""
        values = np.atleast_2d(np.asarray(values, dtype=np.float32))
        rows, cols = values.shape
        if dtype in INTEGERS:
            kind = INTEGERS[dtype]
            scale = np.abs(values).max(axis=1) / np.float32(np.iinfo(kind).max)
            steps = np.where(scale > 0, scale, 1)[:, None]
            q = np.rint(values / steps).astype(kind).tobytes()
            data = q + bytes(-len(q) % 4) + scale.astype("<f4").tobytes()
        else:
            with np.errstate(over="ignore"):
                data = values.astype("<f4" if dtype == "F32" else "<f2").tobytes()
            if not np.isfinite(np.frombuffer(data, "<f4" if dtype == "F32" else "<f2")).all():
                raise BlobError(f"tensor {name}: a value is not finite as {dtype}")
        return cls(name, dtype, rows, cols, data)

    @classmethod
    def ternary(cls, name: str, trits: np.ndarray, gamma: float) -> Tensor:
        """A ternary tensor from trits [rows, cols] and its scale."""
        return cls(name, "T2", *trits.shape, ternary.pack(trits), float(np.float32(gamma)))

    @property
    def is_ternary(self) -> bool:
        return self.dtype in TERNARY

    def merged_rows(self) -> Tensor:
        """A T2 tensor as T2D."""
        data = ternary.merge_rows(self.data, self.rows, self.cols)
        return replace(self, dtype="T2D", data=data)

    def trits(self) -> np.ndarray:
        """Trits int8 [rows, cols] of a ternary tensor."""
        shape = (self.rows, self.cols)
        data = ternary.split_rows(self.data, *shape) if self.dtype == "T2D" else self.data
        return ternary.unpack(data, *shape)

    def numpy(self) -> np.ndarray:
        """Values float32 [rows, cols]; of a ternary tensor gamma times trits."""
        shape = (self.rows, self.cols)
        if self.is_ternary:
            return np.float32(self.gamma) * self.trits().astype(np.float32)
        if self.dtype in INTEGERS:
            kind = INTEGERS[self.dtype]
            q = np.frombuffer(self.data, kind, self.rows * self.cols).reshape(shape)
            scale = np.frombuffer(self.data[-4 * self.rows :], "<f4")
            return q.astype(np.float32) * scale[:, None]
        kind = "<f4" if self.dtype == "F32" else "<f2"
        return np.frombuffer(self.data, kind).reshape(shape).astype(np.float32)


@dataclass(frozen=True)
class Adapter:
    """One entry of `ADIR`: a LoRA slot of a linear layer. `a`, `b`: first floats in the factors."""

    name: str
    inputs: int
    outputs: int
    rank: int
    scale: float
    init_bound: float
    a: int
    b: int

    @property
    def floats(self) -> int:
        return self.rank * (self.inputs + self.outputs)


class Instruction(NamedTuple):
    """One instruction as it stands in the blob: all operands are encoded words."""

    op: int
    flags: int = 0
    n0: int = 0
    n1: int = 0
    n2: int = 0
    dst: int = 0
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0
    f: int = 0
    imm: int = 0

    def imm_f32(self) -> float:
        return struct.unpack("<f", struct.pack("<I", self.imm))[0]


@dataclass(frozen=True)
class Program:
    """`window`, `logits`: arena words of input and result. `state`: arena byte of the adaptation
    state. `after_infer`: `infer` runs first, as this program's forward. `stream`: it is the body of
    one loop over tokens."""

    window: int
    logits: int
    state: int
    code: tuple[Instruction, ...]
    after_infer: bool = False
    stream: bool = False

    def encode(self) -> bytes:
        flags = ops.AFTER_INFER * self.after_infer + ops.STREAM * self.stream
        head = _PROGRAM.pack(self.window, self.logits, self.state, flags)
        return head + b"".join(_INSTRUCTION.pack(*i) for i in self.code)


@dataclass(frozen=True)
class InputOutput:
    """`IODS`: what goes in, windows or tokens, and how many logits come out. Of tokens, `length` is
    the context."""

    channels: int
    length: int
    rate_hz: float
    outputs: int
    input_scale: int
    patch: int = 1
    kind: int = KIND_WINDOW

    @property
    def is_stream(self) -> bool:
        """Does the model take tokens, one after the other?"""
        return self.kind == KIND_TOKENS


@dataclass(frozen=True)
class Blob:
    """A model as a board runs it. It has `labels`, or a `vocabulary` where it takes tokens."""

    name: str
    io: InputOutput
    labels: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    adapters: tuple[Adapter, ...]
    infer: Program
    adapt: Program | None
    infer_arena: int
    adapt_arena: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    @property
    def adapter_floats(self) -> int:
        """P, the length of the factor vector."""
        return sum(a.floats for a in self.adapters)

    @property
    def digest(self) -> bytes:
        return self.encode()[0x10:0x30]

    def sections(self) -> list[tuple[str, bytes, int]]:
        """(type, content, count) in the order of the file."""
        return [(kind, *_SECTION_ENCODERS[kind](self)) for kind in SECTIONS if self._has(kind)]

    def _has(self, kind: str) -> bool:
        there = {
            "LABL": not self.io.is_stream,
            "VOCB": self.io.is_stream,
            "ADIR": bool(self.adapters),
            "ADPT": self.adapt is not None,
        }
        return there.get(kind, True)

    def encode(self) -> bytes:
        """The bytes of the blob, a multiple of 16 long."""
        name = self.name.encode()
        if not (0 < len(name) < NAME_BYTES and is_text(self.name)):
            raise BlobError(
                f"model name {self.name!r}: 1 to {NAME_BYTES - 1} bytes without control characters "
                "expected"
            )
        sections = self.sections()
        table, body = [], []
        offset = align16(HEADER_BYTES + SECTION_BYTES * len(sections))
        for kind, content, count in sections:
            table.append(_SECTION.pack(kind.encode(), offset, len(content), count))
            body.append(content + bytes(-len(content) % 16))
            offset += len(body[-1])
        tail = b"".join(table) + b"".join(body)
        counts = (offset, len(sections), self.infer_arena, self.adapt_arena)
        header = _HEADER.pack(MAGIC, MAJOR, MINOR, offset, 0, bytes(32), *counts, name)
        digest = hashlib.sha256(header[0x30:] + tail).digest()
        checked = digest + header[0x30:] + tail
        return header[:0x0C] + struct.pack("<I", zlib.crc32(checked)) + checked

    @classmethod
    def decode(cls, data: bytes) -> Blob:
        """Reads a blob; raises BlobError with one line when anything in it is not as specified."""
        from .decode import decode_blob

        return decode_blob(bytes(data))

    def with_meta(self, **entries: Any) -> Blob:
        """The same model with more metadata (which changes its digest)."""
        return replace(self, meta={**self.meta, **entries})


def _encode_iods(blob: Blob) -> tuple[bytes, int]:
    io = blob.io
    head = (io.kind, io.channels, io.length, io.rate_hz)
    return _IODS.pack(*head, io.outputs, io.input_scale, io.patch), 1


def _encode_labels(blob: Blob) -> tuple[bytes, int]:
    for label in blob.labels:
        if not is_text(label):
            raise BlobError(f"label {label!r}: control characters are not allowed")
    return b"".join(label.encode() + b"\0" for label in blob.labels), len(blob.labels)


def _encode_vocabulary(blob: Blob) -> tuple[bytes, int]:
    if blob.vocabulary is None:
        raise BlobError("a model of tokens has no vocabulary")
    return blob.vocabulary.encode(), len(blob.vocabulary)


def _encode_tensors(blob: Blob) -> tuple[bytes, int]:
    entries, offset = [], 0
    for t in blob.tensors:
        entry = (DTYPES[t.dtype], t.rows, t.cols, offset, len(t.data), t.gamma)
        entries.append(_TENSOR.pack(*entry))
        offset = align16(offset + len(t.data))
    return b"".join(entries), len(entries)


def _encode_adapters(blob: Blob) -> tuple[bytes, int]:
    fields = ((x.inputs, x.outputs, x.rank, x.scale, x.init_bound, x.a, x.b) for x in blob.adapters)
    return b"".join(_ADAPTER.pack(*f) for f in fields), len(blob.adapters)


def _encode_program(program: Program) -> tuple[bytes, int]:
    return program.encode(), len(program.code)


def _encode_data(blob: Blob) -> tuple[bytes, int]:
    return b"".join(t.data + bytes(-len(t.data) % 16) for t in blob.tensors), 0


def _encode_meta(blob: Blob) -> tuple[bytes, int]:
    import cbor2

    from .names import name_tree

    tensors = [t.name for t in blob.tensors]
    layers = [tensors.index(a.name) if a.name in tensors else a.name for a in blob.adapters]
    names = {"tensors": name_tree(tensors), "adapters": layers}
    return cbor2.dumps({**blob.meta, **names}, canonical=True), 1


_SECTION_ENCODERS = {
    "IODS": _encode_iods,
    "LABL": _encode_labels,
    "VOCB": _encode_vocabulary,
    "TDIR": _encode_tensors,
    "ADIR": _encode_adapters,
    "INFR": lambda blob: _encode_program(blob.infer),
    "ADPT": lambda blob: _encode_program(blob.adapt),
    "DATA": _encode_data,
    "META": _encode_meta,
}


def init_bound(inputs: int) -> float:
    """Bound of fresh A factors: Kaiming-uniform with a = sqrt(5), as in the paper's own code."""
    return float(np.float32(1 / math.sqrt(inputs)))
