"""Adapter files (FORMAT.md, section 7), and merging a trained adapter into its blob."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BlobError
from . import opcodes as ops
from .format import Adapter, Blob, Instruction, Program, Tensor
from .opcodes import ACC, Op

MAGIC = b"TADP"
HEADER_BYTES = 64
LARGEST_FACTOR = 65504  # so that no product with one overflows
_HEADER = struct.Struct("<4sHHII32sIIf4x")


@dataclass(frozen=True)
class AdapterFile:
    """Trained factors float32 [P], bound to the blob with `digest`."""

    digest: bytes
    factors: np.ndarray
    steps: int
    loss: float

    def encode(self) -> bytes:
        values = np.ascontiguousarray(self.factors, dtype="<f4").tobytes()
        total, count = HEADER_BYTES + len(values), len(values) // 4
        head = _HEADER.pack(MAGIC, 0, 1, total, 0, self.digest, count, self.steps, self.loss)
        checked = head[0x10:] + values
        return head[:0x0C] + struct.pack("<I", zlib.crc32(checked)) + checked

    @classmethod
    def decode(cls, data: bytes) -> AdapterFile:
        """Reads an adapter file; raises BlobError with one line when it is not as specified."""
        if data[:4] != MAGIC:
            raise BlobError("not a ternio adapter: it does not begin with TADP")
        if len(data) < HEADER_BYTES:
            raise BlobError(f"adapter truncated: {len(data)} bytes are no whole header")
        fields = _HEADER.unpack_from(data)
        _, major, minor, total, crc, digest, count, steps, loss = fields
        if (major, minor) != (0, 1):
            raise BlobError(f"adapter format {major}.{minor}; this ternio reads 0.1")
        if total != len(data) or total != HEADER_BYTES + 4 * count:
            raise BlobError(
                f"adapter of {len(data)} bytes; its header says {total}, {count} floats"
            )
        if zlib.crc32(data[0x10:]) != crc:
            raise BlobError("adapter damaged: the CRC-32 is wrong")
        if steps >> 31:
            raise BlobError(f"adapter malformed: {steps} steps")
        factors = np.frombuffer(data, "<f4", count, HEADER_BYTES).astype(np.float32)
        if any(data[0x3C:0x40]) or not math.isfinite(loss):
            raise BlobError("adapter malformed: the loss is not finite or a reserved byte not zero")
        if not (np.abs(factors) <= LARGEST_FACTOR).all():
            raise BlobError(f"adapter malformed: a factor is not finite or above {LARGEST_FACTOR}")
        return cls(digest, factors, steps, loss)


def factors_of(adapter: Adapter, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A [rank, in] and B [out, rank] of one adapter in the factor vector."""
    x = adapter
    a = factors[x.a : x.a + x.rank * x.inputs].reshape(x.rank, x.inputs)
    b = factors[x.b : x.b + x.rank * x.outputs].reshape(x.outputs, x.rank)
    return a, b


def merge_adapter(blob: bytes, adapter: bytes) -> bytes:
    """A blob that answers as `blob` with `adapter` attached, bit for bit, and can learn further.

    Raises:
        BlobError: one of the files is damaged, or the adapter belongs to another blob.
    """
    return merge(Blob.decode(blob), AdapterFile.decode(adapter)).encode()


def merge(blob: Blob, adapter: AdapterFile) -> Blob:
    """The blob with the trained factors as tensors.

    Every LORA or LORA16 of an adapter gets a twin in front of it that reads the tensors, every
    LORA_BWD with a destination as well, so that adaptation goes on from zero factors. The memory
    plan stays.
    """
    if adapter.digest != blob.digest:
        theirs, ours = (x.hex()[:12] for x in (adapter.digest, blob.digest))
        raise BlobError(f"the adapter belongs to blob {theirs}..., this is {ours}...")
    if len(adapter.factors) != blob.adapter_floats:
        raise BlobError(f"{len(adapter.factors)} factors, {blob.adapter_floats} expected")
    first = len(blob.tensors)
    merged = blob.meta.get("merged_steps", [])
    tensors = []
    for x in blob.adapters:
        a, b = factors_of(x, adapter.factors)
        tensors.append(Tensor.floats(f"{x.name}.merged{len(merged)}.a", a))
        tensors.append(Tensor.floats(f"{x.name}.merged{len(merged)}.b", b))
    adapt = blob.adapt and _with_twins(blob.adapt, first)
    return replace(
        blob,
        tensors=blob.tensors + tuple(tensors),
        infer=_with_twins(blob.infer, first),
        adapt=adapt,
        meta={**blob.meta, "merged_steps": [*merged, adapter.steps]},
    )


def _with_twins(program: Program, first_tensor: int) -> Program:
    """The program with baked twins; lengths of loops grow with their bodies."""
    code: list[Instruction] = []
    loop, end = None, 0  # the running loop's place in `code`, and its end in the old program
    for index, instruction in enumerate(program.code):
        if loop is not None and index >= end:
            loop = None
        if instruction.op == Op.LOOP:
            loop, end = len(code), index + 1 + instruction.n1
        twin = _twin(instruction, first_tensor)
        if twin is not None:
            code.append(twin)
            if loop is not None:
                code[loop] = code[loop]._replace(n1=code[loop].n1 + 1)
            if instruction.op == Op.LORA_BWD:
                instruction = instruction._replace(flags=instruction.flags | ACC)
        code.append(instruction)
    return replace(program, code=tuple(code))


def _twin(i: Instruction, first_tensor: int) -> Instruction | None:
    """The instruction reading tensors in place of its adapter, or None where it has no effect."""
    space, _, index = ops.split_word(i.b)
    baked = i.op in (Op.LORA, Op.LORA16) or (i.op == Op.LORA_BWD and i.dst != 0)
    if not baked or space != ops.ADAPTER:
        return None
    a = first_tensor + 2 * index
    return i._replace(b=ops.tensor_word(a), c=ops.tensor_word(a + 1))
