"""Names of tensors in META: a tree of maps, so that long common prefixes are stored once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def name_tree(names: list[str]) -> dict[str, Any]:
    """Nested maps over the parts of dotted names; a leaf is the index of the name.

    >>> name_tree(["embed", "embed.bias", "blocks.0.q"])
    {'embed': {'': 0, 'bias': 1}, 'blocks': {'0': {'q': 2}}}
    """
    tree: dict[str, Any] = {}
    for index, name in enumerate(names):
        *path, last = name.split(".")
        node = tree
        for part in path:
            if not isinstance(node.setdefault(part, {}), dict):
                node[part] = {"": node[part]}
            node = node[part]
        if isinstance(node.get(last), dict):
            node[last][""] = index
        else:
            node[last] = index
    return tree


def tree_names(tree: Any) -> dict[int, str]:
    """Names by index from a tree; what is not an index is left out."""
    return {index: name for name, index in _leaves(tree, ()) if isinstance(index, int)}


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield ".".join(part for part in path if part), node
    elif len(path) < 16:
        for part, child in node.items():
            yield from _leaves(child, (*path, str(part)))
