"""What modules consist of: values inside attributes, the tree of modules, and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from .tensor import Tensor

if TYPE_CHECKING:
    from .nn import Module

_Kind = TypeVar("_Kind")


def inside(name: str, value: object, kind: type[_Kind]) -> Iterator[tuple[str, _Kind]]:
    """A value of a kind, or those in (nested) lists, tuples and dictionaries, with their paths."""
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from inside(f"{name}.{i}", item, kind)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from inside(f"{name}.{key}", item, kind)


def walk(module: Module, path: str, above: tuple[Module, ...] = ()) -> Iterator[tuple[str, Module]]:
    """A module and all below, as (path, module); one that refers back to a module above it does
    not have that below.
    """
    yield path, module
    above = (*above, module)
    for name, child in module.named_children():
        if not any(child is one for one in above):
            yield from walk(child, f"{path}.{name}" if path else name, above)


def describe(module: Module, above: tuple[Module, ...] = ()) -> str:
    """`Linear(weight [4, 2], bias [4])`: shapes and settings, and each child on a line."""
    facts = []
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            facts.append(f"{name} {list(value.shape)}")
        elif isinstance(value, (bool, int, float, str)) and name != "training":
            facts.append(f"{name}={value!r}")
    above = (*above, module)
    lines = [
        f"({name}): " + ("..." if any(child is one for one in above) else describe(child, above))
        for name, child in module.named_children()
    ]
    text = f"{type(module).__name__}({', '.join(facts)})"
    if not lines:
        return text
    return text + "\n" + "\n".join("  " + line for part in lines for line in part.split("\n"))
