"""Arena offsets by liveness: which buffers are alive when, which may share, where they go."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ..blob import opcodes as ops
from ..blob.format import align16
from .code import Buffer, Ins, Listing, Loop

PROMOTIONS = 12  # attempts at an order of placing

Plan = tuple[dict[Buffer, int], int]
"""Offset of each buffer, and the bytes of all together."""


@dataclass
class _Use:
    """One access: instruction number, access, loop number (0: none), bytes a row where it steps;
    `by_row`: of a whole block, but only the rows up to the iteration's own."""

    at: int
    access: str
    loop: int
    stride: int
    by_row: bool

    @property
    def step(self) -> bool:
        return self.stride > 0


@dataclass
class _Life:
    """The instructions [start, end] during which a buffer, or a group in one place, is alive.

    `at`: how far behind the start of the place each member is.
    """

    bytes: int
    start: int
    end: int
    members: list[Buffer] = field(default_factory=list)
    at: list[int] = field(default_factory=lambda: [0])

    def follow(self, born: _Life, before: int) -> None:
        """`born` takes the place over, beginning `before` bytes before the last member does."""
        more = max(0, before - self.at[-1])
        self.at = [at + more for at in self.at]
        first = self.at[-1] - before
        self.at += [first + at for at in born.at]
        self.bytes = max(self.bytes + more, first + born.bytes)
        self.end = born.end
        self.members += born.members


class Timeline:
    """A listing with numbered instructions, and every buffer's accesses in it."""

    def __init__(self, listing: Listing, entry: Iterable[Buffer], exit_: Iterable[Buffer]) -> None:
        self.uses: dict[Buffer, list[_Use]] = {}
        self.loops: dict[int, tuple[int, int]] = {}
        self.rows: dict[int, int] = {}  # of each loop; of one that runs backwards negative
        self.flat: list[Ins] = []
        for item in listing:
            if isinstance(item, Loop):
                number, start = len(self.loops) + 1, len(self.flat)
                self.loops[number] = (start, start + len(item.body) - 1)
                self.rows[number] = -item.rows if item.reverse else item.rows
                for ins in item.body:
                    self._add(ins, number)
            else:
                self._add(item, 0)
        self.entry, self.exit = set(entry), set(exit_)
        self.ending: dict[int, list[Buffer]] = {}  # by the loop of their last use
        for buffer, uses in self.uses.items():
            self.ending.setdefault(uses[-1].loop, []).append(buffer)
        self.lives = {buffer: self._life(buffer) for buffer in self.uses}

    def _add(self, ins: Ins, loop: int) -> None:
        for operand, ref, access in ins.accesses():
            stride = operand.size(*(*ins.n, 0, 0, 0)[:3], 1) if ref.step else 0
            by_row = ops.is_by_row(ins.op, operand.slot, ins.flags)
            use = _Use(len(self.flat), access, loop, stride, by_row)
            self.uses.setdefault(ref.buffer, []).append(use)
        self.flat.append(ins)

    def is_local(self, buffer: Buffer) -> bool:
        """Does nothing of the buffer pass from one iteration to the next, or out of its loop?"""
        uses = self.uses[buffer]
        one_loop = len({use.loop for use in uses}) == 1 and not any(use.step for use in uses)
        outside = buffer in self.entry or buffer in self.exit
        return one_loop and not outside and uses[0].access in ("w", "x")

    def _life(self, buffer: Buffer) -> _Life:
        uses = self.uses[buffer]
        start, end = uses[0].at, uses[-1].at
        if not self.is_local(buffer):
            for use in uses:
                if use.loop:
                    first, last = self.loops[use.loop]
                    start, end = min(start, first), max(end, last)
        start = 0 if buffer in self.entry else start
        end = len(self.flat) - 1 if buffer in self.exit else end
        return _Life(buffer.bytes, start, end, [buffer])


def _shared(timeline: Timeline, fixed: dict[Buffer, int], staggered: bool) -> list[_Life]:
    """Lives after element-by-element results have taken the place of an operand that ends there,
    and blocks that of one that is read as they grow; with `staggered` of one with shorter rows."""
    lives = {b: replace(x, members=[b], at=[0]) for b, x in timeline.lives.items()}
    for at, ins in enumerate(timeline.flat):
        refs = {operand.slot: ref for operand, ref, _ in ins.accesses()}
        dst = refs.get("dst")
        if dst is None or (timeline.uses[dst.buffer][0].at, "w") != (at, _access(ins, "dst")):
            continue
        for old, before in _replaceable(timeline, at, dst.buffer, refs):
            merged, born = lives[old], lives[dst.buffer]
            if before:
                fits = staggered and fixed.keys().isdisjoint(merged.members + born.members)
            else:
                fits = merged.bytes == born.bytes
            if merged.members[-1] is old and fits:
                merged.follow(born, before)
                for member in born.members:
                    lives[member] = merged
                break
    return list({id(life): life for life in lives.values()}.values())


def _access(ins: Ins, slot: str) -> str:
    return next(access for operand, _, access in ins.accesses() if operand.slot == slot)


def _replaceable(timeline: Timeline, at: int, new: Buffer, refs: dict) -> list[tuple[Buffer, int]]:
    """Buffers whose place `new`, first written at `at`, may take over, and how many bytes before
    theirs it then has to begin."""
    found = []
    if ops.SPECS[timeline.flat[at].op].elementwise and timeline.is_local(new):
        for slot in ("a", "b", "c"):
            ref = refs.get(slot)
            if ref is None or not timeline.is_local(ref.buffer):
                continue
            if timeline.uses[ref.buffer][-1].at == at:
                found.append((ref.buffer, 0))
    found += _finished_blocks(timeline, at, new)
    return found


def _finished_blocks(timeline: Timeline, at: int, new: Buffer) -> list[tuple[Buffer, int]]:
    """Blocks that the loop of `at` reads for the last time, each row before `new`'s is written.

    Where rows of the new block are longer, it has to begin so much before the old one that its row
    t ends where the old one's does.
    """
    uses = timeline.uses[new]
    loop, stride = uses[0].loop, uses[0].stride
    inside = [use for use in uses if use.loop == loop]
    if not loop or not all(use.step or use.by_row for use in inside):
        return []
    if timeline.rows[loop] < 0 and any(use.by_row for use in inside):
        return []
    elementwise = ops.SPECS[timeline.flat[at].op].elementwise
    found = []
    for buffer in timeline.ending[loop]:
        old = timeline.uses[buffer]
        if buffer is new or buffer in timeline.exit:
            continue
        strides = {use.stride for use in old if use.loop == loop}
        earlier = old[-1].at < at or (elementwise and old[-1].at == at)
        if strides == {stride} and earlier:
            found.append((buffer, 0))
        elif len(strides) == 1 and 0 < min(strides) < stride and old[-1].at < at:
            rows = timeline.rows[loop]
            if rows > 0:
                found.append((buffer, align16((stride - min(strides)) * (rows - 1))))
    return found


def place(order: list[_Life], fixed: dict[Buffer, int]) -> Plan:
    """First fit in the given order: (offset of each buffer, bytes in all)."""
    placed = np.empty((4, len(order)), dtype=np.int64)  # first, last instruction, offset, end
    offsets: dict[Buffer, int] = {}
    for count, life in enumerate(sorted(order, key=lambda x: x.members[0] not in fixed)):
        size = align16(life.bytes)
        offset = fixed.get(life.members[0])
        if offset is None:
            first, last, starts, ends = placed[:, :count]
            beside = np.flatnonzero((first <= life.end) & (last >= life.start))
            offset = 0
            spans = zip(starts[beside].tolist(), ends[beside].tolist(), strict=True)
            for start, end in sorted(spans):
                if start < offset + size and offset < end:
                    offset = end
        placed[:, count] = life.start, life.end, offset, offset + size
        offsets.update((m, offset + at) for m, at in zip(life.members, life.at, strict=True))
    return offsets, int(placed[3].max(initial=0))


def plan_memory(
    listing: Listing,
    entry: Iterable[Buffer] = (),
    exit_: Iterable[Buffer] = (),
    fixed: dict[Buffer, int] | None = None,
) -> tuple[dict[Buffer, int], int]:
    """Offsets (multiples of 16) of all buffers, and the bytes they need together.

    `entry` holds data before the first instruction, `exit_` still after the last; `fixed` says
    where buffers of `entry` are already. Several orders of placing are tried; the smallest counts.
    """
    timeline = Timeline(listing, entry, exit_)
    fixed = fixed or {}
    variants = [_shared(timeline, fixed, staggered=False), _shared(timeline, fixed, staggered=True)]
    if len(variants[0]) == len(variants[1]):
        variants.pop()
    keys = (
        lambda x: (-x.bytes, x.start),
        lambda x: (-x.bytes * (x.end - x.start + 1), x.start),
        lambda x: (x.start - x.end, -x.bytes),
        lambda x: (x.start, -x.bytes),
    )
    orders = []
    for lives, key in itertools.product(variants, keys):
        # what outlives the listing goes first, so that a program that follows finds one free piece
        order = sorted(lives, key=key)
        orders.append(sorted(order, key=lambda x: timeline.exit.isdisjoint(x.members)))
    plans = [place(order, fixed) for order in orders]
    best = min(range(len(plans)), key=lambda i: plans[i][1])
    return _improved(orders[best], fixed, plans[best], min(map(min_bytes, variants)))


def _improved(order: list[_Life], fixed: dict[Buffer, int], first: Plan, least: int) -> Plan:
    """`first`, or a better plan that comes from placing what ended on top before all others, again
    and again; `least` bytes cannot be done without."""
    best = plan = first
    for _ in range(PROMOTIONS):
        offsets, size = plan
        top = next(x for x in order if offsets[x.members[0]] - x.at[0] + align16(x.bytes) == size)
        if best[1] == least or top is order[0]:
            break
        order = [top, *(x for x in order if x is not top)]
        plan = place(order, fixed)
        best = min(best, plan, key=lambda p: p[1])
    return best


def min_bytes(lives: list[_Life]) -> int:
    """What no plan can do without: the most bytes that are alive at one instruction."""
    changes = [(x.start, align16(x.bytes)) for x in lives]
    changes += [(x.end + 1, -align16(x.bytes)) for x in lives]
    return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)
