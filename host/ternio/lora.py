"""LoRA (arXiv 2106.09685) on the host: low-rank side paths on frozen linear and ternary layers.

    >>> lora.add(model, rank=4, scale=2.0)          # q, v and head get factors, the rest is frozen
    >>> train.fit(model, inputs, new_examples)
    >>> lora.save("wrist.lora", model)
    >>> lora.remove(model)                          # the base model again, bit for bit
    >>> lora.load("wrist.lora", model)

A packed model carries the same slots for the board (ternio.compile); this module is for models that
stay on the host, and for knowing beforehand what adapting on the board can reach.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from . import functional as F
from .errors import ModelError
from .files import write_whole
from .nn import BitLinear, Linear, Module, Parameter
from .state_dict import float32
from .tensor import Tensor

FORMAT = "ternio lora 1"
TARGETS = ("q", "v", "head")
LARGEST = float(np.finfo(np.float32).max)  # scale


class LoRALinear(Module):
    """A frozen layer with a trained side path: y = base(x) + scale * B (A x).

    Args:
        base: the layer, kept as it is.
        rank: rows of A.
        scale: factor of the side path (alpha / rank).

    A is initialised as a linear layer's weight (Kaiming), B with zeros: the layer starts as its
    base.

    Attributes:
        unmerged: the base's own weight while the factors are part of it, else None.
    """

    def __init__(self, base: Linear | BitLinear, rank: int, scale: float) -> None:
        out_features, in_features = base.weight.shape
        context, bound = base.weight.context, 1 / math.sqrt(in_features)
        self.base, self.scale = base, scale
        self.a = Parameter(rank, in_features, context=context).uniform_(-bound, bound)
        self.b = Parameter(out_features, rank, context=context)
        self.unmerged: np.ndarray | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.unmerged is not None:
            return self.base(x)
        return F.lora(self.base(x), x, self.a, self.b, self.scale)

    def held(self) -> Iterable[tuple[Parameter, str]]:
        """All three while they are merged: a state does not say whether its weight has the factors
        in it, and either guess would be wrong for some; what unmerge() puts back would be another
        state's.
        """
        if self.unmerged is None:
            return ()
        why = "merged with its LoRA factors; lora.unmerge() the model before it takes other values"
        return ((p, why) for p in (self.base.weight, self.a, self.b))


def add(
    model: Module, targets: Iterable[str] | str = TARGETS, rank: int = 4, scale: float = 2.0
) -> list[str]:
    """Freezes a model and puts side paths on the layers whose paths match.

    Args:
        model: changed in place.
        targets: patterns of module paths or of their last part, `*` matches anything; or one.
        rank: 1..64.
        scale: factor of the side paths.

    Returns:
        the paths that got one.

    Raises:
        ModelError: nothing matches, or the model has side paths already.
    """
    if not (isinstance(rank, (int, np.integer)) and 1 <= rank <= 64):
        raise ModelError(f"LoRA rank {rank}; expected 1..64")
    if not abs(scale) <= LARGEST:
        raise ModelError(f"LoRA scale {scale}; expected a finite number of float32")
    patterns = (targets,) if isinstance(targets, str) else tuple(targets)
    if has_factors(model):
        raise ModelError("the model has LoRA factors already; remove() them first")
    linear = _linear_layers(model)
    chosen = [p for p in linear if any(_matches(p, t) for t in patterns)]
    if not chosen:
        raise ModelError(f"no layer matches {', '.join(patterns)}; there are {', '.join(linear)}")
    _attach(model, dict.fromkeys(chosen, (int(rank), float(scale))))
    return chosen


def has_factors(model: Module) -> bool:
    """Whether any layer has a side path."""
    return bool(_layers(model))


def remove(model: Module, keep: bool = False) -> None:
    """Takes the side paths away; parameters train again that did before add().

    Args:
        model: changed in place.
        keep: leave merged weights as they are (see merge()); else the base is what it was.
    """
    if not keep:
        unmerge(model)
    for path, layer in _layers(model):
        if keep and layer.unmerged is None:
            raise ModelError(f"{path}: its factors would be lost; merge() them first")
    _replace(model, {id(layer): layer.base for _, layer in _layers(model)})
    for _, module in model.named_modules():
        frozen = vars(module).pop("frozen_before_lora", None)
        if frozen is not None:
            for name, parameter in module.named_parameters(recurse=False):
                parameter.requires_grad = name not in frozen


def merge(model: Module) -> None:
    """Adds the factors to the weights, scale * B A, so that they cost no time; float layers only.
    Called again it takes up factors that have changed since.

    Raises:
        ModelError: a layer is ternary: the sum would not be. Nothing is changed then.
    """
    layers = _layers(model)
    for path, layer in layers:
        if isinstance(layer.base, BitLinear):
            raise ModelError(f"{path}: a ternary layer cannot take up its factors")
        if _holders(model, layer.base.weight) > 1:
            raise ModelError(f"{path}: its weight is another layer's as well, merging changes both")
    for _, layer in layers:
        if layer.unmerged is None:
            layer.unmerged = layer.base.weight.numpy().copy()
        _take_up(layer)


def unmerge(model: Module) -> None:
    """The reverse of merge(), bit for bit."""
    for _, layer in _layers(model):
        if layer.unmerged is not None:
            layer.base.weight.numpy()[...] = layer.unmerged
            layer.unmerged = None


def state_dict(model: Module) -> dict[str, np.ndarray]:
    """Copies of the factors only, by path (`blocks.0.attention.q.a`, ...)."""
    return {name: p.numpy().copy() for name, p in _factors(model).items()}


def load_state_dict(model: Module, state: dict[str, np.ndarray]) -> None:
    """Takes over factors; names and shapes must agree exactly with those of add(). Layers that are
    merged are merged anew.

    Raises:
        ModelError: the state does not fit. Nothing is changed then.
    """
    own = _factors(model)
    if set(own) != set(state):
        raise ModelError(f"LoRA factors for {len(state)} matrices; the model has {len(own)}")
    values = {n: float32(n, state[n], p.shape, "fiu") for n, p in own.items()}
    for name, parameter in own.items():
        parameter.numpy()[...] = values[name]
    for _, layer in _layers(model):
        if layer.unmerged is not None:
            _take_up(layer)


def save(path: str | Path, model: Module) -> int:
    """Writes the factors (an .npz file, no pickle), bound to the weights that they belong to.

    Returns:
        its bytes.
    """
    path, layers = Path(path), _layers(model)
    if not layers:
        raise ModelError("the model has no LoRA factors to save")
    about = {
        "format": FORMAT,
        "base": base_digest(model),
        "layers": {path: [layer.a.shape[0], layer.scale] for path, layer in layers},
    }
    arrays = {f"factor/{name}": value for name, value in state_dict(model).items()}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    return write_whole(path, lambda file: np.savez_compressed(file, **arrays))


def load(path: str | Path, model: Module) -> list[str]:
    """Puts the side paths of a file on the model they were trained on; replaces those it has.

    Returns:
        the paths of the layers.

    Raises:
        ModelError: the file is damaged or belongs to other weights. The model is unchanged then.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
        if about["format"] != FORMAT:
            raise ValueError(about["format"])
        layers = {str(p): (int(r), float(s)) for p, (r, s) in about["layers"].items()}
        digest = str(about["base"])
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # NumPy, zipfile, zlib and json raise a dozen kinds for damage
        raise ModelError(f"{path.name}: damaged, or not a file of lora.save()") from error
    if digest != base_digest(model):
        raise ModelError(f"{path.name}: trained on another model, or on other weights of this one")
    state = {name.removeprefix("factor/"): value for name, value in arrays.items()}
    bases = _linear_layers(model)
    expected = {}
    for name, (rank, scale) in layers.items():
        if name not in bases or not 1 <= rank <= 64 or not abs(scale) <= LARGEST:
            raise ModelError(f"{path.name}: rank {rank} at {name!r}: not a layer of the model")
        outputs, inputs = bases[name].weight.shape
        expected |= {f"{name}.a": (rank, inputs), f"{name}.b": (outputs, rank)}
    if {k: v.shape for k, v in state.items()} != expected or not _finite(state):
        raise ModelError(f"{path.name}: the factors do not fit the layers they are for")
    if has_factors(model):
        remove(model)
    _attach(model, layers)
    load_state_dict(model, state)
    return list(layers)


def base_digest(model: Module) -> str:
    """SHA-256 of a model's parameters, without factors whether merged or not."""
    merged = {id(x.base.weight): x.unmerged for _, x in _layers(model) if x.unmerged is not None}
    factors, digest = set(_factors(model)), hashlib.sha256()
    for name, parameter in model.named_parameters():
        if name not in factors:
            value = merged.get(id(parameter), parameter.numpy())
            digest.update(name.replace(".base.", ".").encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def _finite(state: dict[str, np.ndarray]) -> bool:
    return all(v.dtype.kind == "f" and bool(np.isfinite(v).all()) for v in state.values())


def _layers(model: Module) -> list[tuple[str, LoRALinear]]:
    """Layers with a side path, by path; one of two names once."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            found.setdefault(id(module), (path, module))
    return list(found.values())


def _holders(model: Module, parameter: Parameter) -> int:
    """Modules that have a parameter for an attribute."""
    modules = {id(module): module for _, module in model.named_modules()}.values()
    return sum(any(v is parameter for v in vars(module).values()) for module in modules)


def _linear_layers(model: Module) -> dict[str, Linear | BitLinear]:
    """Layers that can have one, or that are the base of one, by the path they have without."""
    return {
        path.removesuffix(".base"): module
        for path, module in model.named_modules()
        if isinstance(module, (Linear, BitLinear))
    }


def _factors(model: Module) -> dict[str, Parameter]:
    return {f"{p}.{name}": getattr(m, name) for p, m in _layers(model) for name in ("a", "b")}


def _attach(model: Module, layers: dict[str, tuple[int, float]]) -> None:
    """Freezes the model and puts side paths of a rank and scale on layers."""
    bases = _linear_layers(model)
    fixed = {id(held) for owner, _, held in _places(model) if isinstance(owner, tuple)}
    for path in layers:
        if not path or id(bases[path]) in fixed:
            raise ModelError(
                f"{path or 'the model itself'}: cannot be replaced by a layer with factors; hold "
                "it in an attribute, a list or a dictionary of a module"
            )
    for _, module in model.named_modules():
        own = module.named_parameters(recurse=False)
        frozen = tuple(name for name, p in own if not p.requires_grad)
        vars(module).setdefault("frozen_before_lora", frozen)
    model.requires_grad_(False)
    made: dict[int, LoRALinear] = {}  # a layer of two names gets one side path
    for path, (rank, scale) in layers.items():
        base = bases[path]
        if id(base) not in made:
            made[id(base)] = LoRALinear(base, rank, scale)
    _replace(model, made)


def _take_up(layer: LoRALinear) -> None:
    """Makes a merged layer's weight its own one and its factors."""
    change = np.float32(layer.scale) * (layer.b.numpy() @ layer.a.numpy())
    layer.base.weight.numpy()[...] = layer.unmerged + change


def _matches(path: str, pattern: str) -> bool:
    last = path.rpartition(".")[2]
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(last, pattern)


def _places(model: Module) -> Iterator[tuple[object, object, Module]]:
    """Where modules are held: (module, list, tuple or dictionary; name, index or key; module)."""
    for _, module in model.named_modules():
        open_: list[object] = [module]
        while open_:
            owner = open_.pop()
            for key, held in _entries(owner):
                if isinstance(held, Module):
                    yield owner, key, held
                elif isinstance(held, (list, tuple, dict)):
                    open_.append(held)


def _entries(owner: object) -> list[tuple[object, object]]:
    if isinstance(owner, (list, tuple)):
        return list(enumerate(owner))
    return list((owner if isinstance(owner, dict) else vars(owner)).items())


def _replace(model: Module, new: Mapping[int, Module]) -> None:
    """Puts new modules, by the id of the old ones, wherever the old ones are held."""
    for owner, key, held in list(_places(model)):
        if id(held) in new:
            if isinstance(owner, Module):
                setattr(owner, str(key), new[id(held)])
            else:
                owner[key] = new[id(held)]
