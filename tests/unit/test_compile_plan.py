"""The memory planner: what is alive at the same time does not overlap, what may share does."""

from __future__ import annotations

from ternio.blob.opcodes import Op
from ternio.compile.code import Buffer, Ins, Loop, Ref, encode
from ternio.compile.plan import plan_memory


def copy(dst: Ref, a: Ref) -> Ins:
    return Ins(Op.COPY, (4,), {"dst": dst, "a": a})


def row(buffer: Buffer) -> Ref:
    return Ref(buffer, step=True)


def buffers(count: int, rows: int = 1) -> list[Buffer]:
    return [Buffer(f"b{i}", 16 * rows) for i in range(count)]


def test_an_elementwise_result_takes_the_place_of_an_operand_that_ends() -> None:
    a, b, c, d = buffers(4)
    steps = [copy(Ref(b), Ref(a)), copy(Ref(c), Ref(b)), copy(Ref(d), Ref(c))]
    offsets, size = plan_memory(steps, entry=[a], exit_=[d])
    assert offsets[b] == offsets[c]
    assert size == 32


def test_an_operand_that_is_read_again_keeps_its_place() -> None:
    a, b, c, d = buffers(4)
    add = Ins(Op.ADD, (4,), {"dst": Ref(d), "a": Ref(b), "b": Ref(c)})
    steps = [copy(Ref(b), Ref(a)), copy(Ref(c), Ref(b)), add]
    offsets, _ = plan_memory(steps, entry=[a], exit_=[d])
    assert len({offsets[b], offsets[c], offsets[d]}) == 3


def test_a_block_replaces_one_that_its_loop_has_finished_reading() -> None:
    old, new = buffers(2, rows=5)
    (temp,) = buffers(1)
    late = Loop(5, body=[copy(Ref(temp), row(old)), copy(row(new), Ref(temp))])
    offsets, size = plan_memory([late], entry=[old], exit_=[new])
    assert offsets[old] == offsets[new]
    assert size == 96


def test_a_block_does_not_replace_one_whose_row_is_still_read() -> None:
    old, new = buffers(2, rows=5)
    one, two = buffers(2)
    early = Loop(
        5,
        body=[
            copy(Ref(one), row(old)),
            copy(row(new), Ref(one)),
            Ins(Op.ADD, (4,), {"dst": Ref(two), "a": row(old), "b": row(new)}),
            copy(row(new), Ref(two)),
        ],
    )
    offsets, _ = plan_memory([early], entry=[old], exit_=[new])
    assert offsets[old] != offsets[new]


def test_blocks_of_different_row_length_are_not_exchanged() -> None:
    old, new = Buffer("old", 96), Buffer("new", 96)
    read = Ins(Op.COPY, (8,), {"dst": Ref(Buffer("temp", 32)), "a": row(old)})
    write = Ins(Op.INPUT, (12, 1), {"dst": row(new), "a": row(Buffer("window", 48))}, imm=24)
    offsets, _ = plan_memory([Loop(2, body=[read, write])], entry=[old], exit_=[new])
    assert offsets[old] != offsets[new]


def test_what_one_iteration_leaves_for_the_next_lives_through_the_loop() -> None:
    total, x = buffers(2)
    block = Buffer("block", 16 * 5)
    pool = Ins(Op.MEANPOOL, (4,), {"dst": Ref(total), "a": row(block)})
    loop = Loop(5, body=[copy(Ref(x), row(block)), pool])
    offsets, size = plan_memory([loop], entry=[block], exit_=[total])
    assert len({offsets[total], offsets[x], offsets[block]}) == 3
    assert size == 80 + 32


def test_fixed_buffers_stay_and_others_go_around_them() -> None:
    a, b, c = buffers(3)
    fixed = {a: 32}
    offsets, _ = plan_memory([copy(Ref(b), Ref(a)), copy(Ref(c), Ref(a))], [a], [b, c], fixed)
    assert offsets[a] == 32
    assert len(set(offsets.values())) == 3


def test_loops_are_encoded_in_front_of_their_bodies() -> None:
    a, b = buffers(2, rows=3)
    code = encode([Loop(3, True, [copy(row(b), row(a))]), Ins(Op.OPTIMIZE, (), {})], {a: 0, b: 48})
    assert [(i.op, i.flags, i.n0, i.n1) for i in code] == [
        (1, 1, 3, 1),
        (4, 0, 4, 0),
        (79, 0, 0, 0),
    ]
    assert (code[1].dst, code[1].a) == (0x3000000C, 0x30000000)
