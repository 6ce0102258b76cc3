"""The compiler: a model's forward, recorded on the engine's tape, becomes programs for a board."""

from __future__ import annotations

from .fit import Part, account, require_fit
from .graph import Graph, Lora, Node
from .pack import Description, Options, pack_checkpoint, pack_graph

__all__ = [
    "Description",
    "Graph",
    "Lora",
    "Node",
    "Options",
    "Part",
    "account",
    "pack_checkpoint",
    "pack_graph",
    "require_fit",
]
