"""The compiler: a model's forward, recorded on the engine's tape, becomes programs for a board.

trace    tape -> graph of values that are one row per time step, or one vector
stages   the graph is cut into loops over rows; only what crosses a cut is a full block
forms    which values are rows of integers
scope    forward instructions of a loop body; `backward` its gradients, for adapters only
program  what is kept and what is recomputed is tried out; the smallest plan wins
plan     arena offsets by liveness
pack     tensors, adapters, programs and descriptions become a blob
fit      a board's flash and RAM against what the blob takes
agree    a packing's answers against those of the most exact one
"""

from __future__ import annotations

from .agree import Agreement, agreement
from .fit import Part, account, require_fit
from .graph import Graph, Lora, Node
from .pack import Description, Options, pack_checkpoint, pack_graph

__all__ = [
    "Agreement",
    "Description",
    "Graph",
    "Lora",
    "Node",
    "Options",
    "Part",
    "account",
    "agreement",
    "pack_checkpoint",
    "pack_graph",
    "require_fit",
]
