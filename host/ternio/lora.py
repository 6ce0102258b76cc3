"""LoRA (arXiv 2106.09685) on the host: low-rank side paths on frozen linear and ternary layers.

    >>> lora.add(model, rank=4, scale=2.0)          # q, v and head get factors, the rest is frozen
    >>> train.fit(model, inputs, new_examples)
    >>> lora.remove(model)                          # the base model again, bit for bit

A packed model carries the same slots for the board (ternio.compile); this module is for models that
stay on the host, and for knowing beforehand what adapting on the board can reach.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable

import numpy as np

from . import functional as F
from .errors import ModelError
from .nn import BitLinear, Linear, Module, Parameter
from .tensor import Tensor

TARGETS = ("q", "v", "head")


class LoRALinear(Module):
    """A frozen layer with a trained side path: y = base(x) + scale * B (A x).

    Args:
        base: the layer, kept as it is.
        rank: rows of A.
        scale: factor of the side path (alpha / rank).

    A is initialised as a linear layer's weight, B with zeros: the layer starts as its base.
    """

    def __init__(self, base: Linear | BitLinear, rank: int, scale: float) -> None:
        out_features, in_features = base.weight.shape
        context, bound = base.weight.context, 1 / math.sqrt(in_features)
        self.base, self.scale = base, scale
        self.a = Parameter(rank, in_features, context=context).uniform_(-bound, bound)
        self.b = Parameter(out_features, rank, context=context)

    def forward(self, x: Tensor) -> Tensor:
        return F.lora(self.base(x), x, self.a, self.b, self.scale)


def add(
    model: Module, targets: Iterable[str] = TARGETS, rank: int = 4, scale: float = 2.0
) -> list[str]:
    """Freezes a model and puts side paths on the layers whose paths match.

    Args:
        model: changed in place.
        targets: patterns of module paths or of their last part, `*` matches anything.
        rank: 1..64.
        scale: factor of the side paths.

    Returns:
        the paths that got one.

    Raises:
        ModelError: nothing matches, or the model has side paths already.
    """
    if not 1 <= rank <= 64:
        raise ModelError(f"LoRA rank {rank}; expected 1..64")
    patterns = tuple(targets)
    if has_factors(model):
        raise ModelError("the model has LoRA factors already; remove() them first")
    linear = [p for p, m in model.named_modules() if isinstance(m, (Linear, BitLinear))]
    chosen = [p for p in linear if any(_matches(p, t) for t in patterns)]
    if not chosen:
        raise ModelError(f"no layer matches {', '.join(patterns)}; there are {', '.join(linear)}")
    model.requires_grad_(False)
    for path in chosen:
        owner, name = _owner(model, path)
        setattr(owner, name, LoRALinear(getattr(owner, name), rank, scale))
    return chosen


def has_factors(model: Module) -> bool:
    """Whether any layer has a side path."""
    return any(isinstance(m, LoRALinear) for _, m in model.named_modules())


def remove(model: Module) -> None:
    """Takes the side paths away and frees all parameters."""
    for path in [p for p, m in model.named_modules() if isinstance(m, LoRALinear)]:
        owner, name = _owner(model, path)
        setattr(owner, name, getattr(owner, name).base)
    model.requires_grad_(True)


def state_dict(model: Module) -> dict[str, np.ndarray]:
    """Copies of the factors only, by path (`blocks.0.attention.q.a`, ...)."""
    return {
        f"{path}.{name}": getattr(module, name).numpy().copy()
        for path, module in model.named_modules()
        if isinstance(module, LoRALinear)
        for name in ("a", "b")
    }


def load_state_dict(model: Module, state: dict[str, np.ndarray]) -> None:
    """Takes over factors; names and shapes must agree exactly with those of add()."""
    own = {
        f"{path}.{name}": getattr(module, name)
        for path, module in model.named_modules()
        if isinstance(module, LoRALinear)
        for name in ("a", "b")
    }
    if set(own) != set(state):
        raise ModelError(f"LoRA factors for {len(state)} matrices; the model has {len(own)}")
    for name, parameter in own.items():
        if np.shape(state[name]) != parameter.shape:
            got = list(np.shape(state[name]))
            raise ModelError(f"{name}: expected shape {list(parameter.shape)}, got {got}")
    for name, parameter in own.items():
        parameter.numpy()[...] = state[name]


def _matches(path: str, pattern: str) -> bool:
    last = path.rpartition(".")[2]
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(last, pattern)


def _owner(model: Module, path: str) -> tuple[Module, str]:
    """The module that holds the layer at `path`, and the attribute's name."""
    *parents, name = path.split(".")
    owner: object = model
    for part in parents:
        owner = owner[int(part)] if isinstance(owner, list) else getattr(owner, part)
    if not isinstance(owner, Module):
        raise ModelError(f"{path}: layers in a list cannot take LoRA; name it as an attribute")
    return owner, name
