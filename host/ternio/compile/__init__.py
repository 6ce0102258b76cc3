"""The compiler: a model's forward, recorded on the engine's tape, becomes programs for a board."""

from __future__ import annotations

from .graph import Graph, Lora, Node
from .pack import Description, Options, pack_graph

__all__ = ["Description", "Graph", "Lora", "Node", "Options", "pack_graph"]
