"""The blob in Python: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from compile_models import Shape, pack, transformer
from ternio.blob import AdapterFile, Blob, Tensor, disassemble, merge_adapter, ternary
from ternio.blob.names import name_tree, tree_names
from ternio.errors import BlobError

SMALL = Shape(channels=2, length=8, width=16, heads=2, kv_heads=1, ffn=24, layers=1, classes=3)


@pytest.fixture(scope="module")
def blob() -> Blob:
    return pack(transformer(SMALL), float_dtype="f16").with_meta(channels=["x", "y"], note="ü")


@pytest.fixture(scope="module")
def data(blob: Blob) -> bytes:
    return blob.encode()


def sealed(data: bytes | bytearray) -> bytes:
    """The bytes with digest and CRC made right again: what a hostile packer would send."""
    data = bytearray(data)
    data[0x10:0x30] = hashlib.sha256(data[0x30:]).digest()
    struct.pack_into("<I", data, 0x0C, zlib.crc32(data[0x10:]))
    return bytes(data)


def section(data: bytes, kind: bytes) -> tuple[int, int, int]:
    """(place of its table entry, offset, bytes)."""
    (count,) = struct.unpack_from("<I", data, 0x34)
    for i in range(count):
        at = 0x60 + 16 * i
        if data[at : at + 4] == kind:
            return at, *struct.unpack_from("<II", data, at + 4)
    raise AssertionError(kind)


def test_decoding_gives_back_what_was_encoded(blob: Blob, data: bytes) -> None:
    again = Blob.decode(data)
    assert again == blob
    assert again.encode() == data
    assert again.digest == data[0x10:0x30] == hashlib.sha256(data[0x30:]).digest()
    assert len(data) % 16 == 0
    assert again.meta["note"] == "ü"


@pytest.mark.parametrize("dtype", ["F32", "F16", "I8"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 16)])
def test_float_tensors_hold_their_values(dtype: str, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values[0] = 0
    tensor = Tensor.floats("t", values, dtype)
    error = {"F32": 0, "F16": 2**-11, "I8": 0.51 / 127}[dtype]
    assert np.abs(tensor.numpy() - values).max() <= error * np.abs(values).max() + 1e-9


def test_values_that_a_dtype_cannot_hold_are_refused() -> None:
    with pytest.raises(BlobError, match="big: a value is not finite as F16"):
        Tensor.floats("big", np.array([70000.0]), "F16")


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (8, 16), (3, 40), (9, 64), (5, 65), (10, 200)])
def test_trits_lie_where_the_document_says(rows: int, cols: int) -> None:
    trits = np.random.default_rng(rows * cols).integers(-1, 2, (rows, cols)).astype(np.int8)
    packed = ternary.pack(trits)
    rows8, cols16 = -(-rows // 8) * 8, -(-cols // 16) * 16
    assert len(packed) == rows8 * cols16 // 4 == ternary.packed_bytes(rows, cols)
    for c in range(cols16):
        panel, start = c // 64, c // 64 * 64
        width = min(64, cols16 - start)
        k, b = divmod(c - start, width // 4)
        for r in range(rows8):
            byte = packed[panel * rows8 * 16 + r * (width // 4) + b]
            expected = 1 - int(trits[r, c]) if r < rows and c < cols else 1
            assert byte >> (2 * k) & 3 == expected
    assert (ternary.unpack(packed, rows, cols) == trits).all()


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (8, 16), (9, 64), (5, 65), (10, 200)])
def test_merged_rows_are_those_of_the_document(rows: int, cols: int) -> None:
    trits = np.random.default_rng(rows + cols).integers(-1, 2, (rows, cols)).astype(np.int8)
    plain = Tensor.ternary("t", trits, 0.5)
    merged = plain.merged_rows()
    assert (merged.dtype, len(merged.data)) == ("T2D", len(plain.data))
    assert (merged.trits() == trits).all()
    assert (merged.numpy() == plain.numpy()).all()
    words = min(64, -(-cols // 16) * 16) // 16  # of a row in the first panel
    even, odd = (struct.unpack_from("<I", plain.data, 4 * at)[0] for at in (0, words))
    turned = odd ^ 0x55555555
    turned = (turned >> 18 | turned << 14) & 0xFFFFFFFF
    swapped = (even ^ turned) & 0xCCCCCCCC
    expected = (even ^ swapped, turned ^ swapped)
    found = (struct.unpack_from("<I", merged.data, 4 * at)[0] for at in (0, words))
    assert tuple(found) == expected


def test_bytes_that_are_no_trits_are_refused() -> None:
    good = ternary.pack(np.zeros((8, 16), np.int8))
    with pytest.raises(ValueError, match="code 3"):
        ternary.unpack(b"\xff" + good[1:], 8, 16)
    with pytest.raises(ValueError, match="padding"):
        ternary.unpack(b"\x55" * 31 + b"\x54", 7, 16)
    with pytest.raises(ValueError, match="32 bytes expected"):
        ternary.unpack(good[:-1], 8, 16)


def test_quantisation_is_absmean() -> None:
    weight = np.array([[0.5, -0.5, 0.04], [2.0, -0.2, 0.0]], np.float32)
    trits, gamma = ternary.quantize(weight)
    assert gamma == pytest.approx(3.24 / 6)
    assert trits.tolist() == [[1, -1, 0], [1, 0, 0]]


def test_names_survive_as_a_tree() -> None:
    names = ["embed.bias", "embed", "a.b.c", "a.b", "rope.16.10000.5", "a"]
    assert tree_names(name_tree(names)) == dict(enumerate(names))
    assert tree_names("nonsense") == {}


def test_a_file_that_is_cut_or_padded_is_refused(data: bytes) -> None:
    for length in [0, 3, 4, 95, 96, len(data) // 2, len(data) - 16, len(data) - 1]:
        with pytest.raises(BlobError):
            Blob.decode(data[:length])
    with pytest.raises(BlobError, match="oversized"):
        Blob.decode(data + bytes(16))


def test_every_flipped_byte_is_noticed(data: bytes) -> None:
    for at in [*range(0, 0x200), *range(0x200, len(data), 37)]:
        broken = bytearray(data)
        broken[at] ^= 0x40
        with pytest.raises(BlobError):
            Blob.decode(bytes(broken))


HEADER = [
    (0x04, "<H", 1, "blob format 1.2"),
    (0x06, "<H", 9, "blob format 0.9"),
    (0x30, "<I", 16, "digest_end"),
    (0x34, "<I", 0, "section_count 0"),
    (0x34, "<I", 17, "section_count 17"),
    (0x38, "<I", 24, "arena size"),
    (0x38, "<I", 16, "beyond the 16 there"),
    (0x3C, "<I", 0, "adapt_arena"),
    (0x3C, "<I", 1 << 30, "adapt_arena is 1073741824"),
    (0x40, "<B", 0, "name is malformed"),
    (0x5F, "<B", 65, "name is malformed"),
    (0x40, "<B", 0xC0, "not UTF-8"),
    (0x40, "<B", 0x1B, "control characters"),
]


@pytest.mark.parametrize(("at", "kind", "value", "text"), HEADER)
def test_header_fields(data: bytes, at: int, kind: str, value: int, text: str) -> None:
    broken = bytearray(data)
    struct.pack_into(kind, broken, at, value)
    with pytest.raises(BlobError, match=text):
        Blob.decode(sealed(broken))


SECTIONS = [
    (b"TDIR", 0, "<4s", b"XXXX", "not known"),
    (b"TDIR", 0, "<4s", b"LABL", "twice"),
    (b"ADIR", 0, "<4s", b"ADPX", "not known"),
    (b"TDIR", 4, "<I", 8, "not a multiple of 16"),
    (b"TDIR", 4, "<I", 0, "overlaps"),
    (b"TDIR", 8, "<I", 1 << 30, "exceeds"),
    (b"TDIR", 12, "<I", 3, "does not fit its count"),
    (b"META", 12, "<I", 2, "META: count"),
    (b"LABL", 12, "<I", 2, "2 labels for 3 outputs"),
]


@pytest.mark.parametrize(("kind", "at", "form", "value", "text"), SECTIONS)
def test_section_table(data: bytes, kind: bytes, at: int, form: str, value, text: str) -> None:
    broken = bytearray(data)
    struct.pack_into(form, broken, section(data, kind)[0] + at, value)
    with pytest.raises(BlobError, match=text):
        Blob.decode(sealed(broken))


CONTENT = [
    (b"IODS", 0, "<I", 3, "kind 3"),
    (b"IODS", 4, "<I", 0, "is 0"),
    (b"IODS", 12, "<f", float("nan"), "rate"),
    (b"IODS", 16, "<I", 1, "1 outputs"),
    (b"IODS", 20, "<I", 999, "input_scale"),
    (b"IODS", 28, "<I", 1, "reserved"),
    (b"TDIR", 0, "<B", 9, "dtype 9"),
    (b"TDIR", 1, "<B", 1, "reserved"),
    (b"TDIR", 4, "<I", 0, "shape"),
    (b"TDIR", 12, "<I", 4, "outside DATA"),
    (b"TDIR", 12, "<I", 1 << 31, "outside DATA"),
    (b"TDIR", 16, "<I", 4, "bytes, .* expected"),
    (b"TDIR", 20, "<f", 1.0, "gamma"),
    (b"ADIR", 8, "<I", 65, "rank 65"),
    (b"ADIR", 12, "<f", float("inf"), "scale"),
    (b"ADIR", 20, "<I", 5, "factors are not at"),
    (b"INFR", 0, "<I", 1 << 27, "input window"),
    (b"INFR", 8, "<I", 16, "for ADPT only"),
    (b"INFR", 12, "<I", 1, "flags"),
    (b"INFR", 16, "<I", 1, "reserved"),
    (b"ADPT", 0, "<I", 4, "not where infer has them|overlaps|aligned"),
    (b"ADPT", 8, "<I", 0, "overlaps infer|beyond"),
    (b"ADPT", 12, "<I", 2, "flags"),
    (b"LABL", 0, "<B", 0, "labels found"),
    (b"META", 0, "<B", 0xFF, "CBOR"),
]


@pytest.mark.parametrize(("kind", "at", "form", "value", "text"), CONTENT)
def test_content_of_sections(
    data: bytes, kind: bytes, at: int, form: str, value, text: str
) -> None:
    broken = bytearray(data)
    struct.pack_into(form, broken, section(data, kind)[1] + at, value)
    with pytest.raises(BlobError, match=text):
        Blob.decode(sealed(broken))


INSTRUCTION = [
    (0, {"op": 77}, "opcode 77"),
    (0, {"n1": 200}, "exceeds the program"),
    (0, {"n0": 0}, "n0 is 0"),
    (1, {"op": 1, "n1": 1}, "do not nest|is not used|flags|n0"),
    (1, {"op": 64}, "not allowed in infer"),
    (1, {"flags": 2}, "flags 0x2"),
    (1, {"dst": 0}, "dst is not in the arena"),
    (1, {"dst": (1 << 29) + (1 << 27)}, "beyond"),
    (1, {"b": (2 << 29) + 99}, "names no tensor"),
    (1, {"b": 2 << 29}, "expected"),
    (1, {"e": 1}, "e is not used"),
    (3, {"n2": 1}, "n2 is 1"),
]


@pytest.mark.parametrize(("index", "change", "text"), INSTRUCTION)
def test_instructions(blob: Blob, index: int, change: dict, text: str) -> None:
    code = list(blob.infer.code)
    if "b" in change and change["b"] == 2 << 29:
        index = next(i for i, x in enumerate(code) if x.op == 10)  # a T2 tensor is expected there
    code[index] = code[index]._replace(**change)
    broken = replace(blob, infer=replace(blob.infer, code=tuple(code)))
    with pytest.raises(BlobError, match=text):
        Blob.decode(broken.encode())


def test_random_changes_by_a_hostile_packer_raise_blob_errors_or_nothing(data: bytes) -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        broken = bytearray(data)
        for at in random.integers(0x30, len(data), random.integers(1, 4)):
            broken[at] = random.integers(0, 256)
        try:
            Blob.decode(sealed(broken))
        except BlobError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_adapter_files(blob: Blob) -> None:
    factors = np.linspace(-1, 1, blob.adapter_floats).astype(np.float32)
    file = AdapterFile(blob.digest, factors, 12, 0.25)
    data = file.encode()
    again = AdapterFile.decode(data)
    assert len(data) == 64 + 4 * blob.adapter_floats
    assert (again.factors == factors).all()
    assert (again.digest, again.steps, again.loss) == (blob.digest, 12, 0.25)
    for broken, text in [
        (b"TERN" + data[4:], "does not begin with TADP"),
        (data[:50], "truncated"),
        (data[:-4], "header says"),
        (data[:-1] + b"\x01", "CRC"),
        (AdapterFile(blob.digest, factors * np.inf, 1, 0.0).encode(), "not finite"),
    ]:
        with pytest.raises(BlobError, match=text):
            AdapterFile.decode(broken)


def test_an_adapter_of_another_blob_is_not_merged(blob: Blob, data: bytes) -> None:
    other = AdapterFile(bytes(32), np.zeros(blob.adapter_floats, np.float32), 1, 0.0)
    with pytest.raises(BlobError, match="belongs to blob 000000000000"):
        merge_adapter(data, other.encode())


def test_texts_that_would_harm_a_console_are_not_packed(blob: Blob) -> None:
    with pytest.raises(BlobError, match="control"):
        replace(blob, labels=("a", "b\x1b[2J", "c")).encode()
    with pytest.raises(BlobError, match="name"):
        replace(blob, name="").encode()
    with pytest.raises(BlobError, match="name"):
        replace(blob, name="n" * 32).encode()


def test_disassembly_names_tensors_adapters_and_loops(blob: Blob) -> None:
    lines = disassemble(blob, blob.infer)
    assert lines[0].split() == ["0", "LOOP", "2", str(blob.infer.code[0].n1)]
    text = "\n".join(lines)
    for part in ("INPUT", "layers.0.q", "lora:layers.0.v", "ATTENTION causal", "[t]", "rope.8.100"):
        assert part in text
    assert len(lines) == len(blob.infer.code)
    down = [line for line in disassemble(blob, blob.adapt) if "LOOP down" in line]
    assert len(down) == 1


def test_the_c_loader_agrees_on_what_a_hostile_packer_sends(data: bytes) -> None:
    """Whatever Python accepts, the C loader accepts, and what it refuses is refused there, but for
    bytes that no program reads: gaps and the padding of ternary tensors."""
    runtime = pytest.importorskip("ternio.runtime")
    random = np.random.default_rng(3)
    words = [0, 1, 2, 16, 64, 0xFFFFFFFF, 0x20000000, 0x30000010, 0x40000001, 0x7FC00000]
    spans = [section(data, kind)[1:] for kind in (b"IODS", b"LABL", b"TDIR", b"ADIR", b"INFR")]
    spans += [section(data, b"ADPT")[1:], (0x30, 0xB0)]
    both = 0
    for _ in range(1500):
        broken = bytearray(data)
        start, size = spans[random.integers(len(spans))]
        at = start + int(random.integers(size))
        if random.integers(2):
            struct.pack_into("<I", broken, at // 4 * 4, int(random.choice(words)))
        else:
            broken[at] ^= 1 << int(random.integers(8))
        texts = []
        for read in (Blob.decode, runtime.Model.open):
            try:
                read(sealed(broken))
                texts.append("")
            except BlobError as error:
                texts.append(str(error))
        if texts[0] and not texts[1]:
            assert "reserved bytes" in texts[0] or "padding" in texts[0], texts
        else:
            assert bool(texts[0]) == bool(texts[1]), texts
        both += bool(texts[0] and texts[1])
    assert both > 500
