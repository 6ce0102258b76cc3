"""From a graph to the programs `infer` and `adapt`: what is kept, what is recomputed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..blob.format import Program, align16
from ..blob.opcodes import Op
from .backward import BackwardScope, reads
from .code import Buffer, Listing, Loop, Ref, encode, work
from .graph import Graph
from .plan import plan_memory
from .scope import PLAIN, Context, Layout, Scope
from .stages import Stage, closure, depth_first, keys_of, optional_cuts, split
from .weights import TensorPool

MAX_CHOSEN_CUTS = 4  # with more attentions only "cut everywhere" and "cut nowhere" are tried


@dataclass(frozen=True)
class Choice:
    """How the passes are laid out: where the forward is cut, what the backward still finds."""

    cuts: frozenset[int]
    keep_keys: bool = True
    keep_sources: bool = True


@dataclass(frozen=True)
class Planned:
    """A program with offsets: arena bytes it needs (adapt: below the state), its work in MACs."""

    choice: Choice
    listing: Listing
    offsets: dict[Buffer, int]
    bytes: int
    macs: int
    window: Buffer
    logits: Buffer

    after_infer: bool = False
    stream: bool = False

    def encode(self, state: int = 0) -> Program:
        window, logits = (self.offsets.get(b, 0) // 4 for b in (self.window, self.logits))
        code = encode(self.listing, self.offsets, self.stream)
        return Program(window, logits, state, code, self.after_infer, self.stream)


@dataclass(frozen=True)
class Normalisation:
    """Per channel: int16 step * gain + shift is what the model was trained on."""

    gain: np.ndarray
    shift: np.ndarray


class _Builder:
    """Emits one program under one choice."""

    def __init__(
        self,
        graph: Graph,
        pool: TensorPool,
        norm: Normalisation,
        choice: Choice,
        layout: Layout = PLAIN,
    ) -> None:
        self.graph, self.choice = graph, choice
        self.stages = split(graph, choice.cuts)
        self.keys = keys_of(graph, tuple(range(len(graph.nodes))))
        window = Buffer("window", 2 * graph.channels * graph.length)
        logits = Buffer("logits", 4 * graph.nodes[graph.output].width)
        self.context = Context(graph, pool, window, logits, norm.gain, norm.shift, layout)
        self.blocks = self.context.blocks

    # ---- Forward ------------------------------------------------------------------------------

    def forward(self, adapting: bool) -> None:
        for number, stage in enumerate(self.stages):
            self.rows_forward(stage.targets)
            later = self.stages[number + 1 :]
            if not adapting or (later and not self.choice.keep_keys):
                self.drop(stage.keys, later)
            if not adapting or (later and not self.choice.keep_sources):
                self.drop(stage.sources - stage.keys, later)
        scope = Scope(self.context)
        for value, node in enumerate(self.graph.nodes):
            if not node.rows and value not in self.context.vectors:
                scope.forward(value)

    def drop(self, values: frozenset[int], still: list[Stage] | None = None) -> None:
        """Forgets blocks that the stages in `still` do not start from."""
        used = frozenset().union(*(s.sources for s in still or []))
        for value in values - used:
            self.blocks.pop(value, None)
            self.context.q8_blocks.pop(value, None)

    def rows_forward(self, targets: frozenset[int]) -> None:
        """One loop that computes `targets`; K and V of the attentions on the way become blocks."""
        q8_blocks = self.context.q8_blocks
        nodes = closure(self.graph, targets, frozenset(self.blocks) | frozenset(q8_blocks))
        keys = keys_of(self.graph, nodes)
        for value in sorted(targets | keys):
            if not self.graph.nodes[value].rows or value == self.graph.output:
                continue
            if self.context.layout.int8_keys and value in self.keys:
                if value not in q8_blocks:
                    q8_blocks[value] = self.context.q8_block(value)
                if not self.is_read_later(value, nodes):
                    continue
            if value not in self.blocks:
                self.blocks[value] = self.context.block(value)
        loop = Loop(self.graph.time)
        self.context.listing.append(loop)
        scope = Scope(self.context, loop)
        for value in depth_first(self.graph, nodes):
            scope.forward(value)

    def is_read_later(self, value: int, nodes: tuple[int, ...]) -> bool:
        """Does a node outside of `nodes` read rows of this value, other than as K or V?"""
        numbers = (c for c in self.graph.consumers(value) if c not in nodes)
        readers = (self.graph.nodes[c] for c in numbers)
        return any(node.op != "attention" or node.inputs[0] == value for node in readers)

    # ---- Backward -----------------------------------------------------------------------------

    def follow(self, leader: _Builder) -> None:
        """The backward for a forward by another builder that left no rows behind."""
        own, made = self.context, leader.context
        own.window, own.logits, own.vectors = made.window, made.logits, dict(made.vectors)
        own.listing = []
        own.blocks.clear()
        self.backward()

    def backward(self) -> None:
        needs = self.graph.needs_gradient()
        seeds = self.vectors_backward(needs)
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            if not any(value in seeds for value in stage.targets):
                continue
            self.materialise(stage.sources | stage.keys)
            seeds = self.rows_backward(stage, needs, seeds)
            self.drop(stage.sources | stage.keys)
        Scope(self.context).emit(Op.OPTIMIZE)

    def vectors_backward(self, needs: list[bool]) -> dict[int, Ref]:
        """Backward outside of loops; returns the gradients of the pooled vectors, per row."""
        scope = BackwardScope(self.context, needs)
        logits = self.graph.output
        width = self.graph.nodes[logits].width
        first = scope.temp(width, "dlogits")
        scope.emit(Op.CROSS_ENTROPY, width, dst=first, a=Ref(self.context.logits))
        scope.seed(logits, first)
        pooled = self.stages[-1].targets if self.stages else frozenset()
        for value in reversed(range(len(self.graph.nodes))):
            if not self.graph.nodes[value].rows and value not in pooled:
                scope.backward(value)
        seeds = {}
        for value in sorted(pooled):
            if value in scope.grads:
                ref, width = scope.take(value), self.graph.nodes[value].width
                share = scope.temp(width, "dpool")
                scope.emit(Op.SCALE, width, dst=share, a=ref, imm=1 / self.graph.time)
                seeds[value] = share
        return seeds

    def materialise(self, values: frozenset[int]) -> None:
        """Computes again those of `values` that were not kept, and what that takes."""
        missing = values - frozenset(self.blocks)
        while missing:
            stage = self.stage_of(min(missing))
            wanted = missing & (stage.targets | stage.keys)
            before = frozenset(self.blocks)
            self.materialise(stage.sources)
            self.rows_forward(wanted)
            self.drop(frozenset(self.blocks) - before - values)
            missing = values - frozenset(self.blocks)

    def stage_of(self, value: int) -> Stage:
        """The stage that computes a block."""
        return next(s for s in self.stages if value in s.nodes and value in s.targets | s.keys)

    def rows_backward(
        self, stage: Stage, needs: list[bool], seeds: dict[int, Ref]
    ) -> dict[int, Ref]:
        """One loop from the last row to the first; returns the gradients of values made earlier."""
        loop = Loop(self.graph.time, reverse=True)
        self.context.listing.append(loop)
        scope = BackwardScope(self.context, needs, loop)
        active = [value for value in reversed(stage.nodes) if needs[value]]
        for value, ref in seeds.items():
            if value in stage.nodes or value in stage.sources:
                scope.seed(value, ref)
        wanted = {v for value in active for v in reads(self.graph.nodes[value], needs)}
        rows = frozenset(v for v in wanted if v not in self.blocks)
        for value in closure(self.graph, rows, frozenset(self.blocks)):
            scope.forward(value)
        for value in active:
            scope.backward(value)
        left = {value: ref for value, ref in seeds.items() if value not in stage.nodes}
        for value in sorted(stage.sources):
            block = scope.settle(value)
            if block is not None:
                left[value] = Ref(block, step=True)
        return left


def choices(graph: Graph, adapting: bool) -> Iterator[Choice]:
    """The layouts that are tried."""
    if graph.stream:
        yield Choice(frozenset())
        return
    cuts = optional_cuts(graph)
    if len(cuts) < MAX_CHOSEN_CUTS:
        sizes = range(len(cuts), -1, -1)
        subsets = [frozenset(s) for n in sizes for s in itertools.combinations(cuts, n)]
    else:
        subsets = [frozenset(cuts), frozenset()]
    keeps = itertools.product((True, False), repeat=2) if adapting else [(True, True)]
    for chosen, (keys, sources) in itertools.product(subsets, list(keeps)):
        yield Choice(chosen, keys, sources)


def _planned(
    builder: _Builder,
    listing: Listing,
    keep: Iterable[Buffer] = (),
    after: Planned | None = None,
) -> Planned:
    """Places a listing. `keep`: blocks that outlive it. `after`: the program that runs first."""
    c = builder.context
    fixed = {b: after.offsets[b] for b in _buffers(listing) & set(after.offsets)} if after else {}
    ends = {c.logits, *keep}
    for buffer in (c.window, c.logits) if after else ():
        fixed[buffer] = after.offsets[buffer]
    offsets, size = plan_memory(listing, {c.window, *fixed}, ends, fixed)
    offsets = fixed | offsets
    if after:
        size = max(size, *(fixed[b] + align16(b.bytes) for b in fixed))
    return Planned(
        builder.choice,
        listing,
        offsets,
        size,
        work(listing),
        c.window,
        c.logits,
        after_infer=bool(after),
        stream=builder.graph.stream,
    )


def _buffers(listing: Listing) -> set[Buffer]:
    flat = (ins for x in listing for ins in (x.body if isinstance(x, Loop) else [x]))
    return {ref.buffer for ins in flat for _, ref, _ in ins.accesses()}


def plan_infer(
    graph: Graph, pool: TensorPool, norm: Normalisation, layout: Layout = PLAIN
) -> Planned:
    """The layout of `infer` that needs the fewest bytes."""
    plans = []
    for choice in choices(graph, adapting=False):
        builder = _Builder(graph, pool, norm, choice, layout)
        builder.forward(adapting=False)
        plans.append(_planned(builder, builder.context.listing))
    return _best(plans, None)


def _best(plans: list[Planned], limit: int | None) -> Planned:
    """The least work within `limit` bytes, if given and possible, else the fewest bytes."""
    within = [p for p in plans if limit is not None and p.bytes <= limit]
    if within:
        return min(within, key=lambda p: (p.macs, p.bytes))
    return min(plans, key=lambda p: (p.bytes, p.macs))


def _about(size: int) -> int:
    """What a plan may cost in memory for being better in another way: a sixteenth, or 1.5 KB."""
    return size + max(size // 16, 1536)


def plan_both(
    graph: Graph,
    pool: TensorPool,
    norm: Normalisation,
    limit: int | None = None,
    layout: Layout = PLAIN,
) -> tuple[Planned, Planned]:
    """The best layouts of `infer` and `adapt`; `limit`: arena bytes for adapt below its state.

    Where it costs neither program much memory (see `_about`), `adapt` takes its forward from
    `infer` in place of repeating it, which saves a third of the programs in flash. `layout` is
    for `infer` alone: gradients need floats, so after integers only the logits and what they were
    made of are taken over, and `adapt` computes the rows again.
    """
    infer = plan_infer(graph, pool, norm, layout)
    exact = not (layout.int8_keys or layout.integer_rows)
    whole, shared = [], []
    for choice in choices(graph, adapting=True):
        builder = _Builder(graph, pool, norm, choice)
        builder.forward(adapting=True)
        listing = builder.context.listing
        end = len(listing)
        builder.backward()
        whole.append(_planned(builder, listing))
        forward, backward, leader = listing[:end], listing[end:], builder
        if not exact:
            if not (choice.keep_keys and choice.keep_sources):
                continue  # there are none to keep
            leader = _Builder(graph, pool, norm, infer.choice, layout)
            leader.forward(adapting=False)
            builder.follow(leader)
            forward, backward = leader.context.listing, builder.context.listing
        keep = _buffers(forward) & _buffers(backward)
        first = _planned(leader, forward, keep)
        if first.bytes <= _about(infer.bytes):
            shared.append((first, _planned(builder, backward, after=first)))
    best = _best(whole, limit)
    good = [pair for pair in shared if pair[1].bytes <= max(limit or 0, _about(best.bytes))]
    if not good:
        return infer, best
    adapt = _best([pair[1] for pair in good], limit)
    return next(pair for pair in good if pair[1] is adapt)


def without_slots(graph: Graph) -> Graph:
    """The graph with its slots left out."""
    nodes = [replace(n, loras=tuple(x for x in n.loras if not x.is_slot)) for n in graph.nodes]
    return replace(graph, nodes=nodes)


def state_bytes(floats: int) -> int:
    """Arena bytes of factors, gradients, first and second moments of P floats."""
    return 4 * align16(4 * floats)
