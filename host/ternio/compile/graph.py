"""The compiler's view of a model: nodes over values that are one row per time step, or one vector.

A value is the number of the node that makes it. Traced from the engine's tape, or built by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import CompileError

LINEAR_OPS = ("linear", "bitlinear")


@dataclass(frozen=True)
class Lora:
    """A low-rank side path. `a`, `b` name trained factors; without, it is a slot for a board."""

    rank: int
    scale: float
    a: str = ""
    b: str = ""

    @property
    def is_slot(self) -> bool:
        return not self.a


@dataclass(frozen=True)
class Node:
    """One operation. `rows`: its value is [T, width], else [width]. `params`: parameters' names."""

    op: str
    inputs: tuple[int, ...]
    width: int
    rows: bool
    params: tuple[str, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    loras: tuple[Lora, ...] = ()
    where: str = ""

    @property
    def label(self) -> str:
        """The name of its weight, else of its place: for messages, tensors and adapters."""
        return self.params[0] if self.params else self.where or self.op


@dataclass
class Graph:
    """The forward for a window of `length` x `channels`, `time` rows; node i makes value i.

    `stream`: of `length` tokens, one a row, each answered by a row of logits.
    """

    channels: int
    length: int
    time: int
    nodes: list[Node] = field(default_factory=list)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    stream: bool = False

    def add(
        self, op: str, *inputs: int, width: int = 0, rows: bool | None = None, **kw: Any
    ) -> int:
        """Appends a node, returns its value. Width and rows are the first input's unless given."""
        first = self.nodes[inputs[0]] if inputs else None
        width = width or (first.width if first else 0)
        if rows is None:
            rows = op != "mean_pool" and (first is None or first.rows)
        self.nodes.append(Node(op, inputs, width, rows, **kw))
        return len(self.nodes) - 1

    @property
    def output(self) -> int:
        """The logits: the value of the last node."""
        return len(self.nodes) - 1

    def consumers(self, value: int) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if value in node.inputs]

    def slots(self) -> list[tuple[int, Lora]]:
        """(node, slot) of every adapter that a board trains, in the order of the directory."""
        return [(i, x) for i, n in enumerate(self.nodes) for x in n.loras if x.is_slot]

    def needs_gradient(self) -> list[bool]:
        """For each value: is there a trainable adapter in what it was computed from?"""
        need: list[bool] = []
        for node in self.nodes:
            own = any(x.is_slot for x in node.loras)
            need.append(own or any(need[v] for v in node.inputs))
        return need

    def with_slots(self, targets: tuple[str, ...], rank: int, scale: float) -> Graph:
        """A copy with a slot on each linear layer that one of the globs names (see `matches`)."""
        names, nodes, hits = [], [], 0
        for node in self.nodes:
            if node.op in LINEAR_OPS:
                names.append(node.label)
                has_slot = any(x.is_slot for x in node.loras)
                if not has_slot and any(matches(node.label, t) for t in targets):
                    node = replace(node, loras=(*node.loras, Lora(rank, scale)))
                hits += any(x.is_slot for x in node.loras)
            nodes.append(node)
        if not hits:
            raise CompileError(
                f"no linear layer matches the adapter targets {', '.join(targets)}; "
                f"the model has {', '.join(names)}"
            )
        return replace(self, nodes=nodes)


def matches(name: str, pattern: str) -> bool:
    """Does a glob name this parameter, its module, or the last part of its module's name?

    >>> matches("layers.0.attention.q.weight", "q"), matches("head.weight", "layers.*")
    (True, False)
    """
    from fnmatch import fnmatchcase

    module = name.removesuffix(".weight")
    return any(fnmatchcase(text, pattern) for text in (name, module, module.rsplit(".", 1)[-1]))
