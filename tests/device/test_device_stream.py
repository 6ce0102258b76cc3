"""Streams of tokens: positions, what persists between calls, vocabularies, what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from device_assembler import STEP, Assembler, characters, instruction, seal
from device_harness import Machine
from device_stream import CONTEXT, VOCABULARY, language_model
from test_device_load import u32

RNG = np.random.default_rng(3)
BYTES = struct.pack("<I", 2)


def tokens_of(count: int) -> list[int]:
    return RNG.integers(0, len(VOCABULARY), count).tolist()


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_embedding_takes_the_row_of_the_token(library, dtype):
    asm = Assembler(1, 4, 3, vocabulary=characters([65, 66, 67]))
    if dtype == "i8":
        q, scale = RNG.integers(-127, 128, (3, 5)), np.float32([0.1, 0.2, 0.3])
        table, rows = asm.i8(q, scale), q.astype("f4") * scale[:, None]
    else:
        rows = RNG.standard_normal((3, 5)).astype("f2").astype("f4")
        table = getattr(asm, dtype)(rows)
    dst = asm.room(20)
    asm.infer = [instruction("EMBEDDING", dst | STEP, 0, table, n=(5, 3))]
    machine = Machine(library, asm)
    for token in (2, 0, 1, 2):
        assert machine.feed(token)[0] == "TR_OK"
    np.testing.assert_array_equal(machine.view(dst, 20).reshape(4, 5), rows[[2, 0, 1, 2]])


@pytest.mark.parametrize("q8", [False, True])
def test_a_step_depends_on_all_tokens_before_it(library, q8):
    machine = Machine(library, language_model(q8=q8))
    first = tokens_of(CONTEXT)
    logits = [machine.feed(token)[1] for token in first]
    library.c.tr_stream_reset(machine.session)
    assert machine.session.position == 0
    np.testing.assert_array_equal([machine.feed(token)[1] for token in first], logits)
    other = [(first[0] + 1) % len(VOCABULARY), *first[1:]]
    library.c.tr_stream_reset(machine.session)
    changed = [machine.feed(token)[1] for token in other]
    assert not any(np.array_equal(a, b) for a, b in zip(logits, changed, strict=True))


def test_int8_keys_and_values_are_close_to_float(library):
    exact, small = (Machine(library, language_model(q8=q8)) for q8 in (False, True))
    for token in tokens_of(CONTEXT):
        a, b = exact.feed(token)[1], small.feed(token)[1]
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()


def test_a_full_context_and_a_token_out_of_range_change_nothing(library):
    machine = Machine(library, language_model())
    for k, token in enumerate(tokens_of(CONTEXT)):
        assert machine.session.position == k
        assert machine.feed(len(VOCABULARY))[0] == "TR_ERR_ARGUMENT"
        assert machine.feed(token)[0] == "TR_OK"
    before = machine.bytes.copy()
    assert machine.feed(1)[0] == "TR_ERR_CONTEXT"
    assert machine.session.position == CONTEXT
    np.testing.assert_array_equal(machine.bytes, before)


@pytest.mark.parametrize("fill", [0x00, 0x7F, 0xFF])
def test_what_the_arena_held_before_the_stream_does_not_matter(library, fill):
    clean, dirty = (Machine(library, language_model()) for _ in range(2))
    dirty.bytes[:] = fill
    for token in tokens_of(CONTEXT):
        np.testing.assert_array_equal(clean.feed(token)[1], dirty.feed(token)[1])


def test_windows_and_tokens_are_not_mixed_up(library):
    stream = Machine(library, language_model())
    window = np.zeros(CONTEXT, "i2")
    logits = library.ffi.new("const float **")
    pointer = library.pointer(window, "const int16_t *")
    infer, begin = library.c.tr_infer, stream.begin()
    assert library.name(infer(stream.session, pointer, CONTEXT, logits)) == "TR_ERR_KIND"
    assert begin == "TR_ERR_NO_ADAPT"
    asm = Assembler()
    asm.infer = [instruction("ZERO", asm.logits, n=(2, 1))]
    assert Machine(library, asm).feed(0)[0] == "TR_ERR_KIND"
    ring = library.ffi.new("tr_ring *")
    status = library.c.tr_ring_init(ring, stream.model, library.pointer(window, "int16_t *"), 1)
    assert library.name(status) == "TR_ERR_KIND"


def test_vocabulary_of_characters(library):
    status, model = library.open(language_model().build())
    assert status == "TR_OK" and model.kind == library.c.TR_TOKENS
    token, character = library.c.tr_model_token, library.c.tr_model_character
    for k, code in enumerate(VOCABULARY[:-1]):
        assert token(model, code) == k and character(model, k) == code
    rest = len(VOCABULARY) - 1
    assert [token(model, code) for code in (0, 11, 96, 100, 0x10FFFF)] == [rest] * 5
    assert character(model, rest) == character(model, rest + 1) == -1
    assert not library.c.tr_model_bytes(model)
    assert library.c.tr_model_label(model, 0) == library.ffi.NULL


def test_vocabulary_without_a_rest_and_of_bytes(library):
    asm = stream_of(characters([65, 66]), 2)
    status, model = library.open(asm.build())
    assert status == "TR_OK" and library.c.tr_model_token(model, 67) == -1
    status, model = library.open(stream_of(BYTES, 256).build())
    assert status == "TR_OK" and library.c.tr_model_bytes(model)
    assert [library.c.tr_model_token(model, b) for b in (0, 255, 256)] == [0, 255, -1]
    assert library.c.tr_model_character(model, 200) == 200


def stream_of(vocabulary: bytes, outputs: int, length: int = 4) -> Assembler:
    asm = Assembler(1, length, outputs, vocabulary=vocabulary)
    table, dst = asm.f32(np.ones((outputs, 2))), asm.room(2)
    asm.infer = [instruction("EMBEDDING", dst, 0, table, n=(2, outputs))]
    return asm


@pytest.mark.parametrize(
    ("vocabulary", "outputs"),
    [
        (u32(1, 65), 2),
        (u32(1, 65, 66, 67), 2),
        (u32(0, 65, 66), 2),
        (u32(3), 256),
        (u32(2), 2),
        (u32(2, 0), 256),
        (u32(1, 66, 65), 2),
        (u32(1, 65, 65), 2),
        (u32(1, 0, 65), 2),
        (u32(1, 65, 0xD800), 2),
        (u32(1, 65, 0x110000), 2),
        (u32(1, 0xFFFFFFFF, 0xFFFFFFFF), 2),
        (u32(1, 65, 66) + b"\0", 2),
        (b"\2\0", 256),
    ],
)
def test_impossible_vocabularies(library, vocabulary, outputs):
    assert library.open(stream_of(vocabulary, outputs).build())[0] == "TR_ERR_SECTION"


def change_section(blob: bytes, kind: bytes, at: int, new: bytes) -> bytes:
    for k in range(struct.unpack_from("<I", blob, 0x34)[0]):
        name, offset = struct.unpack_from("<4sI", blob, 96 + 16 * k)
        if name == kind:
            at += offset
            return seal(blob[:at] + new + blob[at + len(new) :])
    raise AssertionError(kind)


def test_fields_of_a_stream_set_wrong(library):
    blob = language_model().build()
    for kind, at, new, status in [
        (b"IODS", 0, u32(1), "TR_ERR_SECTION"),
        (b"IODS", 0, u32(3), "TR_ERR_SECTION"),
        (b"IODS", 4, u32(2), "TR_ERR_SECTION"),
        (b"IODS", 8, u32(0), "TR_ERR_SECTION"),
        (b"IODS", 8, u32(1), "TR_ERR_SECTION"),
        (b"IODS", 8, u32(65536), "TR_ERR_SECTION"),
        (b"IODS", 8, u32(65535), "TR_ERR_OPERAND"),
        (b"IODS", 12, struct.pack("<f", 1.0), "TR_ERR_SECTION"),
        (b"IODS", 20, u32(1), "TR_ERR_SECTION"),
        (b"IODS", 24, u32(2), "TR_ERR_SECTION"),
        (b"INFR", 0, u32(4), "TR_ERR_OPERAND"),
        (b"INFR", 12, u32(0), "TR_ERR_OPERAND"),
        (b"INFR", 12, u32(1), "TR_ERR_OPERAND"),
        (b"INFR", 12, u32(3), "TR_ERR_OPERAND"),
        (b"INFR", 8, u32(16), "TR_ERR_OPERAND"),
    ]:
        assert library.open(change_section(blob, kind, at, new))[0] == status, (kind, at, new)


def test_sections_that_do_not_belong_together(library):
    asm = language_model()
    end = instruction("OPTIMIZE")
    loss = instruction("CROSS_ENTROPY", asm.room(8), asm.logits, n=(8,))
    asm.adapt = [loss, end]
    assert library.open(asm.build())[0] == "TR_ERR_SECTION"
    asm = language_model()
    labelled = asm.build().replace(b"VOCB", b"LABL", 1)
    assert library.open(seal(labelled))[0] == "TR_ERR_SECTION"


def test_what_may_not_stand_in_a_stream(library):
    asm = stream_of(characters([65, 66]), 2, length=600)
    good = asm.infer
    x, q16, scores = asm.room(64), asm.q16(8), asm.room(1800)
    one, zero, three = asm.f32([[1.0]]), asm.f32([[0.0]]), asm.f32(np.ones((3, 2)))
    block, floats = asm.q8_block(600, 4), asm.room(600 * 4)
    i8, long = asm.i8(np.ones((2, 513)), np.ones(2)), asm.q16(513)
    wide = asm.i8(np.ones((2, 8)), np.ones(2))
    attend = lambda flags: instruction(
        "ATTENTION", x, x, floats, floats, scores, n=(1, 1, 4), flags=flags
    )
    q8 = lambda b, s: instruction("ATTENTION_Q8", x, q16, b, b, s, n=(1, 1, 4), flags=1)
    for status, code in [
        ("TR_OK", good[0]),
        ("TR_OK", attend(1)),
        ("TR_OK", instruction("LINEAR_I8", x, q16, wide, n=(8, 2))),
        ("TR_ERR_OPERAND", attend(0)),
        ("TR_ERR_OPERAND", q8(block, scores)),  # 600 rows
        ("TR_ERR_OPERAND", instruction("LINEAR_I8", x, long, i8, n=(513, 2))),
        ("TR_ERR_OPERAND", instruction("LINEAR_I8", x, q16 + 1, wide, n=(8, 2))),
        ("TR_ERR_OPERAND", instruction("LINEAR_I8", x, q16, three, n=(2, 3))),
        ("TR_ERR_OPERAND", instruction("EMBEDDING", x, 0, three, n=(2, 3))),
        ("TR_ERR_OPCODE", instruction("LOOP", n=(2, 1))),
        ("TR_ERR_OPCODE", instruction("MEANPOOL", x, x, n=(2,))),
        ("TR_ERR_OPCODE", instruction("INPUT", x, asm.logits, one, zero, n=(1, 1), imm=1)),
    ]:
        asm.infer = [code, *good]
        assert library.open(asm.build())[0] == status, status
    asm.length = 512
    for status, b, s in [
        ("TR_OK", block, scores),
        ("TR_ERR_OPERAND", block + 1, scores),
        ("TR_ERR_OPERAND", block | STEP, scores),
        ("TR_ERR_OPERAND", block, scores | STEP),
        ("TR_ERR_OPERAND", asm.logits, asm.state // 4 | 1 << 29),
    ]:
        asm.infer = [q8(b, s)]
        assert library.open(asm.build())[0] == status, (b, s)
    window = Assembler()
    table = window.f32(np.ones((2, 2)))
    window.infer = [instruction("EMBEDDING", window.room(2), 0, table, n=(2, 2))]
    assert library.open(window.build())[0] == "TR_ERR_OPCODE"


def test_adapters_start_the_stream_again(library):
    machine = Machine(library, language_model())
    machine.feed(1)
    library.c.tr_adapter_detach(machine.session)
    assert machine.session.position == 0


def test_work_grows_with_what_a_program_does(library):
    def work(rows, **more):
        asm = Assembler(**more)
        x = asm.room(64)
        asm.infer = [instruction("LOOP", n=(rows, 1)), instruction("COPY", x, x, n=(64,))]
        return library.open(asm.build())[1].infer_work

    assert work(10) == 10 * work(1) > 640
    asm = Assembler()
    asm.infer = [instruction("LOOP", n=(65535, 1)), instruction("ZERO", asm.logits, n=(2, 1))]
    before = library.open(asm.build())[1].infer_work
    asm.infer = asm.infer * 3
    assert library.open(asm.build())[1].infer_work == 3 * before
    long, short = (library.open(language_model(context=n).build())[1] for n in (200, 20))
    assert long.infer_work > short.infer_work > 3000 and long.adapt_work == 0


@pytest.mark.parametrize("hop", [1, 3, 5])
def test_ring_gives_the_last_frames_oldest_first(library, hop):
    channels, length = 2, 5
    asm = Assembler(channels, length)
    gain, shift = asm.f32(np.ones((1, 2))), asm.f32(np.zeros((1, 2)))
    seen = asm.room(channels * length)
    asm.infer = [instruction("INPUT", seen, asm.input, gain, shift, n=(10, 2), imm=10)]
    machine = Machine(library, asm)
    frames, memory = RNG.integers(-999, 999, (23, 2)).astype("i2"), np.zeros(10, "i2")
    ring, logits = library.ffi.new("tr_ring *"), library.ffi.new("const float **")
    start = library.pointer(memory, "int16_t *")
    for bad in (0, 6):
        assert library.c.tr_ring_init(ring, machine.model, start, bad) != 0
    assert library.c.tr_ring_init(ring, machine.model, start, hop) == 0
    due = []
    for k in range(len(frames)):
        if library.c.tr_ring_push(ring, library.pointer(frames[k : k + 1], "int16_t *")):
            due.append(k + 1)
            assert library.c.tr_ring_infer(machine.session, ring, logits) == 0
            want = frames[k + 1 - length : k + 1].ravel()
            np.testing.assert_array_equal(machine.view(seen, 10), want)
    assert due == list(range(length, len(frames) + 1, hop))
