"""Strict reading of a blob: every rule of FORMAT.md but those on programs, which `check.py` has."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from typing import Any

import numpy as np

from ..errors import BlobError
from . import format as fmt
from . import opcodes as ops
from .check import check_program
from .format import Adapter, Blob, InputOutput, Instruction, Program, Tensor
from .names import tree_names
from .vocabulary import Vocabulary


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise BlobError(text)


def _zero(data: bytes, what: str) -> None:
    _require(not any(data), f"{what}: reserved bytes are not zero")


def decode_blob(data: bytes) -> Blob:
    """The model in `data`; raises BlobError where `data` is not a blob of this format version."""
    header = _header(data)
    sections = _sections(data, header["section_count"])
    meta = _meta(sections["META"][0])
    io = _iods(*sections["IODS"])
    names = tree_names(meta.get("tensors"))
    tensors = _tensors(sections["TDIR"], sections["DATA"], names)
    if not io.is_stream:
        _input_scale(io, tensors)
    _texts_of_kind(sections, io)
    adapters = _adapters(sections.get("ADIR", (b"", 0)), _adapter_names(meta, names))
    infer = _program(*sections["INFR"], "INFR")
    adapt = _program(*sections["ADPT"], "ADPT") if "ADPT" in sections else None
    _require(adapt is None or bool(adapters), "ADPT without ADIR")
    _require(adapt is None or not io.is_stream, "ADPT with a model of tokens")
    _require((adapt is None) == (header["adapt_arena"] == 0), "adapt_arena does not fit ADPT")
    blob = Blob(
        name=header["name"],
        io=io,
        labels=() if io.is_stream else _labels(*sections["LABL"], io.outputs),
        tensors=tensors,
        adapters=adapters,
        infer=infer,
        adapt=adapt,
        infer_arena=header["infer_arena"],
        adapt_arena=header["adapt_arena"],
        meta={k: v for k, v in meta.items() if k not in ("tensors", "adapters")},
        vocabulary=_vocabulary(*sections["VOCB"], io.outputs) if io.is_stream else None,
    )
    check_program(blob, infer, "INFR")
    if adapt is not None:
        check_program(blob, adapt, "ADPT")
    return blob


def _header(data: bytes) -> dict[str, Any]:
    _require(data[:4] == fmt.MAGIC, "not a ternio blob: it does not begin with TERN")
    _require(len(data) >= fmt.HEADER_BYTES, f"truncated: {len(data)} bytes are no whole header")
    fields = fmt._HEADER.unpack_from(data)
    _, major, minor, total, crc, digest, digest_end, count, infer, adapt, raw_name = fields
    _require(
        (major, minor) == (fmt.MAJOR, fmt.MINOR),
        f"blob format {major}.{minor}; this ternio reads {fmt.MAJOR}.{fmt.MINOR}: pack it again",
    )
    _require(len(data) >= total, f"truncated: the header says {total} bytes, {len(data)} are there")
    _require(len(data) == total, f"oversized: the header says {total} bytes, {len(data)} are there")
    _require(total % 16 == 0, f"total_bytes {total} is not a multiple of 16")
    _require(zlib.crc32(data[0x10:]) == crc, "damaged: the CRC-32 is wrong")
    _require(digest_end == total, f"digest_end {digest_end} is not total_bytes {total}")
    _require(hashlib.sha256(data[0x30:]).digest() == digest, "damaged: the SHA-256 is wrong")
    _require(1 <= count <= 16, f"section_count {count} is not 1 to 16")
    _require(infer % 16 == 0 and adapt % 16 == 0, "an arena size is not a multiple of 16")
    name, _, rest = raw_name.partition(b"\0")
    _require(0 < len(name) < fmt.NAME_BYTES and not any(rest), "the model name is malformed")
    named = {"section_count": count, "infer_arena": infer, "adapt_arena": adapt}
    return {**named, "name": _text(name, "the model name")}


def _text(raw: bytes, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BlobError(f"{what} is not UTF-8") from None
    _require(fmt.is_text(text), f"{what} has control characters")
    return text


def _sections(data: bytes, count: int) -> dict[str, tuple[bytes, int]]:
    table_end = fmt.HEADER_BYTES + fmt.SECTION_BYTES * count
    _require(table_end <= len(data), "the section table exceeds the blob")
    sections, end = {}, table_end
    for i in range(count):
        entry = fmt._SECTION.unpack_from(data, fmt.HEADER_BYTES + fmt.SECTION_BYTES * i)
        raw, offset, size, entries = entry
        kind = raw.decode("latin-1")
        _require(kind in fmt.SECTIONS, f"section type {raw!r} is not known")
        _require(kind not in sections, f"section {kind} appears twice")
        _require(offset % 16 == 0, f"section {kind}: offset {offset} is not a multiple of 16")
        _require(offset >= end, f"section {kind} overlaps what is before it")
        _require(offset + size <= len(data), f"section {kind} exceeds the blob")
        _zero(data[end:offset], f"before section {kind}")
        sections[kind] = (data[offset : offset + size], entries)
        end = offset + size
    _zero(data[end:], "after the last section")
    for kind in fmt.SECTIONS:
        _require(kind in sections or kind in fmt.OPTIONAL_SECTIONS, f"section {kind} is missing")
    _require(sections["META"][1] == 1, "META: count 1 expected")
    _require(sections["DATA"][1] == 0, "DATA: count 0 expected")
    return sections


def _meta(content: bytes) -> dict[str, Any]:
    import cbor2

    try:
        meta = cbor2.loads(content)
    except Exception as error:  # cbor2 lets several kinds through
        raise BlobError(f"META is not CBOR: {error}") from None
    _require(isinstance(meta, dict), "META is not a CBOR map")
    return meta


def _adapter_names(meta: dict[str, Any], tensors: dict[int, str]) -> list[str]:
    layers = meta.get("adapters", [])
    _require(isinstance(layers, list), "META: adapters is not a list")
    return [tensors.get(x, f"tensor{x}") if isinstance(x, int) else str(x) for x in layers]


def _iods(content: bytes, count: int) -> InputOutput:
    _require((len(content), count) == (64, 1), "IODS: one entry of 64 bytes expected")
    kind, channels, length, rate, outputs, input_scale, patch = fmt._IODS.unpack(content)
    _zero(content[28:], "IODS")
    kinds = (fmt.KIND_WINDOW, fmt.KIND_TOKENS)
    _require(kind in kinds, f"IODS: input kind {kind} is not known")
    _require(min(channels, length, patch) >= 1, "IODS: channels, length or patch is 0")
    _require(2 <= outputs <= 1024, f"IODS: {outputs} outputs, 2 to 1024 expected")
    _require(math.isfinite(rate) and rate >= 0, "IODS: the sample rate is not a rate")
    if kind == fmt.KIND_TOKENS:
        _require(2 <= length <= 65535, f"IODS: a context of {length} tokens, 2 to 65535 expected")
        fixed = (channels, content[12:16], input_scale, patch) == (1, bytes(4), 0, 1)
        _require(fixed, "IODS: a field that tokens do not use is not as it should be")
    return InputOutput(channels, length, rate, outputs, input_scale, patch, kind)


def _input_scale(io: InputOutput, tensors: tuple[Tensor, ...]) -> None:
    there = io.input_scale < len(tensors)
    scale = tensors[io.input_scale] if there else None
    fits = scale and (scale.dtype, scale.rows, scale.cols) == ("F32", 1, io.channels)
    _require(bool(fits), "IODS: input_scale is not a tensor F32 [1, channels]")


def _texts_of_kind(sections: dict[str, tuple[bytes, int]], io: InputOutput) -> None:
    """A model of windows has labels, one of tokens has a vocabulary."""
    wanted, other = ("VOCB", "LABL") if io.is_stream else ("LABL", "VOCB")
    _require(wanted in sections, f"section {wanted} is missing")
    _require(other not in sections, f"section {other} does not go with input kind {io.kind}")


def _vocabulary(content: bytes, count: int, outputs: int) -> Vocabulary:
    _require(count == outputs, f"VOCB: {count} tokens for {outputs} outputs")
    return Vocabulary.decode(content, count)


def _labels(content: bytes, count: int, outputs: int) -> tuple[str, ...]:
    _require(count == outputs, f"LABL: {count} labels for {outputs} outputs")
    _require(content.endswith(b"\0"), "LABL: the last label is not terminated")
    parts = content[:-1].split(b"\0")
    _require(len(parts) == count, f"LABL: {len(parts)} labels found, {count} expected")
    return tuple(_text(part, "a label") for part in parts)


def _tensors(
    directory: tuple[bytes, int], data: tuple[bytes, int], names: dict[int, str]
) -> tuple[Tensor, ...]:
    content, count = directory
    _require(len(content) == count * fmt.ENTRY_BYTES, "TDIR: its size does not fit its count")
    tensors = []
    for i in range(count):
        entry = content[i * fmt.ENTRY_BYTES : (i + 1) * fmt.ENTRY_BYTES]
        tensors.append(_tensor(entry, data[0], names.get(i, f"tensor{i}")))
    return tuple(tensors)


def _tensor(entry: bytes, data: bytes, name: str) -> Tensor:
    code, rows, cols, offset, size, gamma = fmt._TENSOR.unpack(entry)
    what = f"tensor {name}"
    _zero(entry[1:4] + entry[24:], what)
    _require(code in fmt.DTYPE_NAMES, f"{what}: dtype {code} is not known")
    dtype = fmt.DTYPE_NAMES[code]
    _require(1 <= rows <= 65535 and 1 <= cols <= 65535, f"{what}: shape {rows} x {cols}")
    expected = fmt.tensor_bytes(dtype, rows, cols)
    _require(size == expected, f"{what}: {size} bytes, {expected} expected")
    _require(offset % 16 == 0 and offset + size <= len(data), f"{what}: outside DATA")
    is_scale = math.isfinite(gamma) and gamma > 0
    _require(is_scale if dtype in fmt.TERNARY else not any(entry[20:24]), f"{what}: gamma {gamma}")
    tensor = Tensor(name, dtype, rows, cols, data[offset : offset + size], gamma)
    try:
        values = tensor.numpy()
    except ValueError as error:
        raise BlobError(f"{what}: {error}") from None
    _require(bool(np.isfinite(values).all()), f"{what}: a value is not finite")
    if dtype in fmt.INTEGERS:
        _zero(tensor.data[rows * cols * fmt.INTEGERS[dtype].itemsize : -4 * rows], what)
    return tensor


def _adapters(directory: tuple[bytes, int], names: list[str]) -> tuple[Adapter, ...]:
    content, count = directory
    _require(len(content) == count * fmt.ENTRY_BYTES, "ADIR: its size does not fit its count")
    adapters, position = [], 0
    for i in range(count):
        entry = content[i * fmt.ENTRY_BYTES : (i + 1) * fmt.ENTRY_BYTES]
        name = names[i] if i < len(names) else f"adapter{i}"
        _zero(entry[28:], f"adapter {name}")
        x = Adapter(name, *fmt._ADAPTER.unpack(entry))
        _require(1 <= x.inputs <= 65535 and 1 <= x.outputs <= 65535, f"adapter {name}: shape")
        _require(1 <= x.rank <= 64, f"adapter {name}: rank {x.rank}, 1 to 64 expected")
        finite = math.isfinite(x.scale) and math.isfinite(x.init_bound) and x.init_bound >= 0
        _require(finite, f"adapter {name}: scale or init_bound is not usable")
        where = (position, position + x.rank * x.inputs)
        _require((x.a, x.b) == where, f"adapter {name}: factors are not at {where}")
        position += x.floats
        adapters.append(x)
    return tuple(adapters)


def _program(content: bytes, count: int, what: str) -> Program:
    size = fmt.PROGRAM_HEADER_BYTES + count * fmt.INSTRUCTION_BYTES
    _require(len(content) == size, f"{what}: its size does not fit its count")
    _zero(content[16:32], what)
    window, logits, state, flags = fmt._PROGRAM.unpack_from(content)
    allowed = (0, ops.AFTER_INFER) if what == "ADPT" else (0, ops.STREAM)
    _require(flags in allowed, f"{what}: flags {flags:#x}")
    code = struct.iter_unpack(fmt._INSTRUCTION.format, content[fmt.PROGRAM_HEADER_BYTES :])
    instructions = tuple(Instruction(*fields) for fields in code)
    after_infer, stream = bool(flags & ops.AFTER_INFER), bool(flags & ops.STREAM)
    return Program(window, logits, state, instructions, after_infer, stream)
