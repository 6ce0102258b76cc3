"""Cutting the forward into stages: each is one loop over rows; what crosses a cut is a block."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CompileError
from .graph import Graph


@dataclass(frozen=True)
class Stage:
    """`targets`: values that the stage leaves behind; `sources`: those it starts from; `nodes`:
    what it computes, in order; `keys`: K and V of its attentions, which are blocks meanwhile."""

    targets: frozenset[int]
    sources: frozenset[int]
    nodes: tuple[int, ...]
    keys: frozenset[int]


def closure(graph: Graph, targets: frozenset[int], there: frozenset[int]) -> tuple[int, ...]:
    """The nodes that compute `targets` from the values that are `there`, in order."""
    todo, found = [v for v in targets if v not in there], set()
    while todo:
        value = todo.pop()
        if value not in found:
            found.add(value)
            todo += [v for v in graph.nodes[value].inputs if v not in there]
    return tuple(sorted(found))


def depth_first(graph: Graph, nodes: tuple[int, ...]) -> list[int]:
    """`nodes` in an order in which few values wait: each follows what it needs as late as may be.
    An attention's K and V come before its query, for they go to their blocks at once."""
    waiting, order = set(nodes), []
    for end in reversed(nodes):
        todo = [end]
        while todo:
            value = todo[-1]
            inputs = graph.nodes[value].inputs
            if graph.nodes[value].op == "attention":
                inputs = (*inputs[1:], inputs[0])
            needed = [v for v in inputs if v in waiting and v != value]
            if value in waiting and needed:
                todo.append(needed[0])
                continue
            todo.pop()
            if value in waiting:
                waiting.discard(value)
                order.append(value)
    return order


def attentions(graph: Graph) -> list[int]:
    return [i for i, node in enumerate(graph.nodes) if node.op == "attention"]


def keys_of(graph: Graph, nodes: tuple[int, ...]) -> frozenset[int]:
    """K and V of the attentions among `nodes`."""
    found = [graph.nodes[i] for i in nodes if graph.nodes[i].op == "attention"]
    return frozenset(v for node in found for v in node.inputs[1:])


def live_at(graph: Graph, position: int) -> frozenset[int]:
    """Row values made before node `position` and read from there on."""
    made = range(position)
    read = {v for node in graph.nodes[position:] for v in node.inputs}
    return frozenset(v for v in made if v in read and graph.nodes[v].rows)


def _best_cut(graph: Graph, first: int, second: int) -> frozenset[int]:
    """The cheapest values to hold between two attentions; the latest such place on a tie."""
    candidates = [live_at(graph, p) for p in range(first + 1, second + 1)]
    return min(reversed(candidates), key=lambda vs: sum(graph.nodes[v].width for v in vs))


def is_full(graph: Graph, attention: int) -> bool:
    """Does every row of this attention read all rows of K and V, which must then be there first?"""
    return not graph.nodes[attention].attrs["causal"]


def optional_cuts(graph: Graph) -> list[int]:
    """Numbers of the gaps between attentions where a cut is a choice: those before a causal one."""
    found = attentions(graph)
    return [i for i in range(len(found) - 1) if not is_full(graph, found[i + 1])]


def split(graph: Graph, cuts: frozenset[int]) -> list[Stage]:
    """Stages for a set of cuts; before an attention without causal mask there is always one."""
    found = attentions(graph)
    targets: list[frozenset[int]] = []
    if found and is_full(graph, found[0]):
        targets.append(frozenset(graph.nodes[found[0]].inputs[1:]))
    for i in range(len(found) - 1):
        full = is_full(graph, found[i + 1])
        if i in cuts or full:
            cut = _best_cut(graph, found[i], found[i + 1])
            keys = graph.nodes[found[i + 1]].inputs[1:] if full else ()
            targets.append(cut | frozenset(keys))
    if any(node.rows for node in graph.nodes):
        targets.append(_ends(graph))
    return _stages(graph, targets)


def _ends(graph: Graph) -> frozenset[int]:
    """Vectors that are made from rows: what the last stage is for."""
    if graph.stream:
        if not graph.nodes[graph.output].rows:
            raise CompileError("the model gives one output for all tokens; one for each expected")
        if any(is_full(graph, i) for i in attentions(graph)):
            raise CompileError("attention to tokens that are still to come; a stream needs a mask")
        return frozenset({graph.output})
    ends = frozenset(
        i
        for i, node in enumerate(graph.nodes)
        if not node.rows and any(graph.nodes[v].rows for v in node.inputs)
    )
    if graph.nodes[graph.output].rows:
        raise CompileError(
            "the model gives one output per time step; a pooling over time is missing"
        )
    return ends


def _stages(graph: Graph, targets: list[frozenset[int]]) -> list[Stage]:
    stages: list[Stage] = []
    there: frozenset[int] = frozenset()
    for wanted in targets:
        nodes = closure(graph, wanted, there)
        read = frozenset(v for i in nodes for v in graph.nodes[i].inputs)
        keys = keys_of(graph, nodes)
        stages.append(Stage(wanted - there, (read & there) | (keys & there), nodes, keys))
        there |= wanted
    return stages
