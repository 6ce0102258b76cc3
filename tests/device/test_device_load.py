"""The loader: every field of a blob set wrong in turn, with CRC and digest made right again."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
from device_assembler import Assembler, instruction, seal
from device_example import example, windows
from device_harness import Machine, aligned

from ternio.blob import Blob
from ternio.errors import BlobError

BLOB = example().build()
NAN, INF = struct.pack("<f", np.nan), struct.pack("<f", np.inf)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def change(offset: int, new: bytes, blob: bytes = BLOB) -> bytes:
    """The blob with other bytes at an offset, sealed."""
    return seal(blob[:offset] + new + blob[offset + len(new) :])


def section(kind: bytes) -> tuple[int, int, int]:
    """(offset of its entry in the table, offset, bytes)."""
    for k in range(struct.unpack_from("<I", BLOB, 0x34)[0]):
        at = 96 + 16 * k
        name, offset, size, _ = struct.unpack_from("<4sIII", BLOB, at)
        if name == kind:
            return at, offset, size
    raise AssertionError(kind)


def test_example_is_accepted(library):
    status, model = library.open(BLOB)
    assert status == "TR_OK"
    assert library.ffi.string(model.name) == b"example"
    assert (model.channels, model.length, model.outputs) == (3, 18, 3)
    label = library.c.tr_model_label
    assert [library.ffi.string(label(model, k)) for k in range(3)] == [
        b"class 0",
        b"class 1",
        b"class 2",
    ]
    assert label(model, 3) == library.ffi.NULL
    assert [model.input_scale[k] for k in range(3)] == [0.5] * 3


def test_truncated_and_oversized(library):
    for size in [*range(0, 96), 96, 97, len(BLOB) // 2, len(BLOB) - 16, len(BLOB) - 1]:
        assert library.open(BLOB[:size])[0] == "TR_ERR_TRUNCATED", size
    for extra in (1, 16):
        assert library.open(BLOB + bytes(extra))[0] == "TR_ERR_HEADER"


def test_every_flipped_byte_is_refused(library):
    for offset in [*range(0x0C), *range(0x10, len(BLOB), 13)]:
        damaged = bytearray(BLOB)
        damaged[offset] ^= 1 << offset % 8
        assert library.open(bytes(damaged))[0] != "TR_OK", offset


@pytest.mark.parametrize("more", [16, 1 << 20, 1 << 30])
def test_an_arena_larger_than_the_programs_need_is_refused(library, more):
    state_at = section(b"ADPT")[1] + 8
    (arena,), (state,) = (struct.unpack_from("<I", BLOB, at) for at in (0x3C, state_at))
    larger = change(state_at, u32(state + more))
    assert library.open(change(0x3C, u32(arena + more), larger))[0] == "TR_ERR_OPERAND"
    assert library.open(change(0x3C, u32(arena + more)))[0] == "TR_ERR_OPERAND"
    with pytest.raises(BlobError, match=f"could begin at byte {state}"):
        Blob.decode(change(0x3C, u32(arena + more), larger))


def test_alignment_and_null(library):
    room = aligned(len(BLOB) + 16)
    room[4 : 4 + len(BLOB)] = np.frombuffer(BLOB, np.uint8)
    model = library.ffi.new("tr_model *")
    status = library.c.tr_model_open(model, library.pointer(room) + 4, len(BLOB))
    assert library.name(status) == "TR_ERR_ALIGNMENT"
    status = library.c.tr_model_open(model, library.ffi.NULL, len(BLOB))
    assert library.name(status) == "TR_ERR_ARGUMENT"


HEADER = [
    (0x00, b"TADP", "TR_ERR_MAGIC"),
    (0x04, b"\1", "TR_ERR_VERSION"),
    (0x06, b"\1", "TR_ERR_VERSION"),
    (0x08, u32(len(BLOB) + 16), "TR_ERR_TRUNCATED"),
    (0x08, u32(len(BLOB) - 16), "TR_ERR_HEADER"),
    (0x30, u32(len(BLOB) - 16), "TR_ERR_HEADER"),
    (0x34, u32(0), "TR_ERR_HEADER"),
    (0x34, u32(17), "TR_ERR_HEADER"),
    (0x34, u32(7), "TR_ERR_SECTION"),
    (0x38, u32(8), "TR_ERR_HEADER"),
    (0x38, u32(0), "TR_ERR_OPERAND"),
    (0x3C, u32(0), "TR_ERR_OPERAND"),
    (0x3C, u32(24), "TR_ERR_HEADER"),
    (0x3C, u32(1 << 30), "TR_ERR_OPERAND"),
    (0x40, bytes(32), "TR_ERR_HEADER"),
    (0x40, b"x" * 32, "TR_ERR_HEADER"),
    (0x40, b"line\nline", "TR_ERR_HEADER"),
    (0x40, b"\xc0\x80", "TR_ERR_HEADER"),
    (0x40, b"\xed\xa0\x80", "TR_ERR_HEADER"),
    (0x40, b"ab\0d", "TR_ERR_HEADER"),
]


@pytest.mark.parametrize(("offset", "new", "status"), HEADER)
def test_header(library, offset, new, status):
    assert library.open(change(offset, new))[0] == status


def test_checksum_comes_before_digest(library):
    damaged = bytearray(BLOB)
    damaged[0x10] ^= 1
    assert library.open(bytes(damaged))[0] == "TR_ERR_CHECKSUM"
    damaged[0x0C:0x10] = u32(zlib.crc32(damaged[0x10:]))
    assert library.open(bytes(damaged))[0] == "TR_ERR_DIGEST"


@pytest.mark.parametrize("name", ["schön", "日本", "a" * 31, "𝄞"])
def test_names_in_utf8(library, name):
    asm = Assembler(name=name)
    asm.infer = [instruction("ZERO", asm.logits, n=(2, 1))]
    status, model = library.open(asm.build())
    assert status == "TR_OK" and library.ffi.string(model.name).decode() == name


@pytest.mark.parametrize(
    "kind", [b"IODS", b"LABL", b"TDIR", b"ADIR", b"INFR", b"ADPT", b"META", b"DATA"]
)
def test_section_table(library, kind):
    at, offset, size = section(kind)
    wrong = [
        (at, b"XXXX"),
        (at, b"META" if kind != b"META" else b"DATA"),  # twice
        (at + 4, u32(offset + 4)),
        (at + 4, u32(16)),
        (at + 4, u32(0xFFFFFFF0)),
        (at + 8, u32(len(BLOB))),
        (at + 8, u32(0xFFFFFFFF)),
        (at + 12, u32(0xFFFFFFFF)),
    ]
    if kind not in (b"META", b"DATA", b"LABL"):
        wrong += [(at + 8, u32(size - 4)), (at + 12, u32(0))]
    for place, new in wrong:
        status = library.open(change(place, new))[0]
        assert status in ("TR_ERR_SECTION", "TR_ERR_TENSOR"), (place - at, new, status)


IODS = section(b"IODS")[1]
TDIR = section(b"TDIR")[1]
ADIR = section(b"ADIR")[1]
LABL = section(b"LABL")[1]
DATA = section(b"DATA")[1]


@pytest.mark.parametrize(
    ("offset", "new"),
    [
        (0, u32(2)),
        (4, u32(0)),
        (4, u32(2)),
        (8, u32(0)),
        (4, u32(0x10000, 0x10000)),
        (12, NAN),
        (12, struct.pack("<f", -1.0)),
        (16, u32(1)),
        (16, u32(1025)),
        (16, u32(4)),
        (20, u32(3)),
        (20, u32(1 << 20)),
        (24, u32(0)),
        (28, u32(1)),
        (60, u32(1)),
    ],
)
def test_input_and_output(library, offset, new):
    assert library.open(change(IODS + offset, new))[0] == "TR_ERR_SECTION"


@pytest.mark.parametrize(
    ("offset", "new"), [(0, b"\xff"), (1, b"\x07"), (7, b"x"), (23, b"x"), (3, b"\0")]
)
def test_labels(library, offset, new):
    assert library.open(change(LABL + offset, new))[0] == "TR_ERR_SECTION"


def tensors(dtype: int) -> list[int]:
    """Offsets of the directory entries of a type."""
    size = section(b"TDIR")[2]
    return [at for at in range(TDIR, TDIR + size, 32) if BLOB[at] == dtype]


@pytest.mark.parametrize("dtype", [1, 2, 3, 4])
def test_tensor_entries(library, dtype):
    for at in tensors(dtype):
        rows, cols, offset, size = struct.unpack_from("<IIII", BLOB, at + 4)
        wrong = [
            (0, b"\0"),
            (0, b"\5"),
            (1, b"\1"),
            (4, u32(0)),
            (4, u32(rows + 8)),
            (4, u32(65536)),
            (8, u32(0)),
            (8, u32(cols + 64)),
            (8, u32(0xFFFFFFFF)),
            (12, u32(offset + 4)),
            (12, u32(0xFFFFFFF0)),
            (16, u32(size + 4)),
            (20, NAN),
            (20, struct.pack("<f", -1.0 if dtype == 4 else 1.0)),
            (24, u32(1)),
            (28, u32(1)),
        ]
        for place, new in wrong:
            assert library.open(change(at + place, new))[0] == "TR_ERR_TENSOR", (place, new)
        place = DATA + offset
        bad = {1: INF, 2: b"\x00\x7c", 4: b"\x03"}
        if dtype == 3:  # the integers are free, the scales behind them are not
            place += -(-rows * cols // 4) * 4
        last = size - (2 if dtype == 2 else 1 if dtype == 4 else 4)
        new = bad.get(dtype, NAN)
        assert library.open(change(place, new))[0] == "TR_ERR_TENSOR"
        assert library.open(change(DATA + offset + last, new))[0] == "TR_ERR_TENSOR"


@pytest.mark.parametrize(
    ("offset", "new"),
    [
        (0, u32(0)),
        (0, u32(65536)),
        (4, u32(0)),
        (4, u32(33)),
        (8, u32(0)),
        (8, u32(65)),
        (12, NAN),
        (16, INF),
        (16, struct.pack("<f", -0.5)),
        (20, u32(1)),
        (24, u32(0)),
        (28, u32(1)),
        (32 + 20, u32(0)),
    ],
)
def test_adapter_directory(library, offset, new):
    assert library.open(change(ADIR + offset, new))[0] == "TR_ERR_ADAPTER"


def test_hashes_against_the_standard_library(library):
    rng = np.random.default_rng(3)
    for size in [*range(130), 1000, 4096]:
        data = rng.integers(0, 256, size).astype(np.uint8)
        digest = aligned(32)
        pointer = library.pointer(data)
        library.c.tr_sha256(pointer, size, library.pointer(digest, "uint8_t *"))
        assert digest.tobytes() == hashlib.sha256(data.tobytes()).digest()
        half = size // 2
        crc = library.c.tr_crc32(0, pointer, half)
        assert library.c.tr_crc32(crc, pointer + half, size - half) == zlib.crc32(data.tobytes())


def test_every_status_has_its_own_text(library):
    count = library.c.TR_STATUS_COUNT
    texts = {library.ffi.string(library.c.tr_status_text(k)) for k in range(count)}
    assert len(texts) == count
    assert library.ffi.string(library.c.tr_status_text(count)) == b"unknown status"


@pytest.mark.parametrize("fill", [0x00, 0x7F, 0xFF])
def test_what_the_arena_held_before_does_not_matter(library, fill):
    clean, dirty = Machine(library, example()), Machine(library, example())
    dirty.bytes[:] = fill
    for machine in (clean, dirty):
        machine.begin(seed=2)
    for window in windows(3):
        np.testing.assert_array_equal(clean.infer(window), dirty.infer(window))
        assert clean.step(window, 1) == dirty.step(window, 1)
    np.testing.assert_array_equal(clean.state(0), dirty.state(0))


def test_old_model_keeps_answering_after_a_refusal(library):
    machine = Machine(library, example())
    window = windows(1)[0]
    before = machine.infer(window)
    for offset in (0x20, 0x60, len(BLOB) // 2):
        assert library.open(change(offset, b"\xff" * 24))[0] != "TR_OK"
    np.testing.assert_array_equal(machine.infer(window), before)
