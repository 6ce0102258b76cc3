"""Layers in PyTorch's vocabulary: a module holds parameters and modules as attributes, `forward`
uses them, `state_dict` names them by their path.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         self.hidden, self.head = nn.BitLinear(64, 128), nn.Linear(128, 4)
    ...     def forward(self, x):
    ...         return self.head(self.hidden(x).relu())
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from . import functional as F
from ._engine import lib
from .context import Context, current_context
from .errors import ModelError
from .state_dict import matched
from .structure import describe, inside, walk
from .tensor import Tensor

__all__ = [
    "GEGLU",
    "Attention",
    "BitLinear",
    "Block",
    "Conv1d",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "SwiGLU",
]


class Parameter(Tensor):
    """A tensor that training changes: zeros until something fills it.

    Args:
        shape: its dimensions.
        context: where it lives; by default the current context.
    """

    __slots__ = ()

    def __init__(self, *shape: int, context: Context | None = None) -> None:
        if not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
            raise ModelError(f"parameter of shape {list(shape)}: expected dimensions above 0")
        self.context = context or current_context()
        kind = lib.TE_DTYPE_FLOAT
        self._adopt(lib.te_zeros(self.context.pointer, kind, len(shape), list(shape)))
        self.requires_grad = True

    def fill_(self, value: float) -> Parameter:
        """Sets every element."""
        lib.te_fill(self.pointer, value)
        return self

    def uniform_(self, low: float, high: float) -> Parameter:
        """Random values between two bounds, from the context's generator."""
        lib.te_fill_uniform(self.pointer, low, high)
        return self

    def normal_(self, mean: float = 0.0, std: float = 1.0) -> Parameter:
        """Normally distributed values, from the context's generator."""
        lib.te_fill_normal(self.pointer, mean, std)
        return self

    def kaiming_(self, gain: float = math.sqrt(2)) -> Parameter:
        """Uniform values of deviation gain / sqrt(fan_in), for weights [out, in, ...] before a
        ReLU (arXiv 1502.01852); gain 1 for linear layers.
        """
        self.context.check(lib.te_init_kaiming(self.pointer, gain) == lib.TE_OK)
        return self

    def xavier_(self, gain: float = 1.0) -> Parameter:
        """Uniform values within gain * sqrt(6 / (fan_in + fan_out)), for weights [out, in, ...]
        (Glorot and Bengio 2010).
        """
        self.context.check(lib.te_init_xavier(self.pointer, gain) == lib.TE_OK)
        return self


class Module:
    """Base of layers and models; what it consists of is found in its attributes and their lists."""

    training = True

    def forward(self, *args: object, **named: object) -> Tensor:
        """What the module computes; each module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: object, **named: object) -> Tensor:
        return self.forward(*args, **named)

    def __repr__(self) -> str:
        return describe(self)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Modules directly below, as (name, module); `name.index` for those in a list."""
        for name, value in vars(self).items():
            yield from inside(name, value, Module)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module ("" unless a prefix is given) and all below, as (path, module)."""
        return walk(self, prefix)

    def named_parameters(
        self, recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters, or only the module's own, as (path, parameter); one that is shared
        appears once, or under all of its paths.
        """
        seen: set[int] = set()
        for path, module in self.named_modules() if recurse else [("", self)]:
            for attribute, value in vars(module).items():
                for name, parameter in inside(attribute, value, Parameter):
                    if id(parameter) not in seen or not remove_duplicate:
                        seen.add(id(parameter))
                        yield f"{path}.{name}" if path else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """All parameters."""
        return (p for _, p in self.named_parameters())

    @property
    def context(self) -> Context:
        """The context of the parameters."""
        for parameter in self.parameters():
            return parameter.context
        raise ModelError(f"{type(self).__name__} has no parameters, and so no context")

    def train(self, mode: bool = True) -> Module:
        """Switches to training; returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switches to evaluation; returns the module."""
        return self.train(False)

    def requires_grad_(self, on: bool = True) -> Module:
        """Freezes (False) or frees all parameters; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad = on
        return self

    def zero_grad(self) -> None:
        """Makes all gradients absent."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by path.

        Raises:
            ModelError: two parameters have one path, as of the keys "a.b" and "a" with "b" in it.
        """
        state: dict[str, np.ndarray] = {}
        for name, parameter in self.named_parameters():
            if name in state:
                raise ModelError(
                    f"two parameters are called {name}; give the attributes or keys that lead to "
                    "them names of their own"
                )
            state[name] = parameter.numpy().copy()
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes over parameters; names and shapes must agree exactly. A shared parameter may come
        under any of its names, with the same values under each.

        Raises:
            ModelError: naming what is missing, left over, of another shape or not finite; or what
                cannot change at present (see held()). Nothing is changed then.
        """
        named = list(self.named_parameters(remove_duplicate=False))
        pairs = matched(named, state, type(self).__name__)
        reasons = {id(p): why for _, module in self.named_modules() for p, why in module.held()}
        for parameter, value in pairs:
            if id(parameter) in reasons and not np.array_equal(parameter.numpy(), value):
                name = next(name for name, p in named if p is parameter)
                raise ModelError(f"{name}: {reasons[id(parameter)]}")
        for parameter, value in pairs:
            parameter.numpy()[...] = value

    def held(self) -> Iterable[tuple[Parameter, str]]:
        """Parameters of the module that load_state_dict() must leave at their values, and why."""
        return ()


class Linear(Module):
    """y = x w^T + b; initialised uniformly within 1/sqrt(in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.weight = Parameter(out_features, in_features)
        bound = 1 / math.sqrt(in_features)
        self.weight.uniform_(-bound, bound)
        self.bias = Parameter(out_features).uniform_(-bound, bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class BitLinear(Module):
    """A linear layer whose weights are ternary and whose inputs are int8 (arXiv 2402.17764)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        self.weight = Parameter(out_features, in_features)
        bound = 1 / math.sqrt(in_features)
        self.weight.uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return F.bitlinear(x, self.weight)


class RMSNorm(Module):
    """Division by the root mean square, times a gain (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        self.weight, self.eps = Parameter(width).fill_(1.0), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight, self.eps)


class LayerNorm(Module):
    """Mean 0 and deviation 1, times a gain, plus a bias (arXiv 1607.06450)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        self.weight, self.bias, self.eps = Parameter(width).fill_(1.0), Parameter(width), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.eps)


class Conv1d(Module):
    """Convolution over time, channels last; see functional.conv1d.

    Args:
        in_channels, out_channels: per sample.
        kernel_size: samples.
        stride: samples between two results.
        padding: zeros on both sides, or (left, right).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        self.weight = Parameter(out_channels, kernel_size, in_channels)
        bound = 1 / math.sqrt(in_channels * kernel_size)
        self.weight.uniform_(-bound, bound)
        self.bias = Parameter(out_channels).uniform_(-bound, bound) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding)


class Dropout(Module):
    """In training sets elements to 0 with probability p (arXiv 1207.0580)."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)


class Embedding(Module):
    """A learned vector per id."""

    def __init__(self, rows: int, width: int) -> None:
        self.weight = Parameter(rows, width).normal_(0.0, 1.0)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


class Sequential(Module):
    """Modules (or functions of a tensor), one after the other."""

    def __init__(self, *layers: Callable[[Tensor], Tensor]) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def _linear(ternary: bool, in_features: int, out_features: int) -> Module:
    """The bias-free layer that transformer blocks are made of."""
    if ternary:
        return BitLinear(in_features, out_features)
    return Linear(in_features, out_features, bias=False)


class Attention(Module):
    """Self-attention with rotary positions; query heads share key/value heads in groups.

    Args:
        width: of input and output, heads * head_dim.
        heads, kv_heads: query heads and key/value heads, a divisor of these; by default as many.
        causal: position t sees positions 0..t only; ternary: BitLinear instead of Linear.
        rope_base: base of the rotary angles.
        qk_norm: RMSNorm of queries and keys, each over its whole row, before they are turned
            (arXiv 2501.00656); bears higher learning rates.
        norm_eps: of these norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        causal: bool = True,
        ternary: bool = True,
        rope_base: float = 10000.0,
        qk_norm: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        kv_heads = heads if kv_heads is None else kv_heads
        if min(heads, kv_heads) < 1 or width % heads or heads % kv_heads:
            what = f"{heads} heads and {kv_heads} kv_heads"
            raise ModelError(f"attention of width {width} cannot have {what}")
        self.heads, self.kv_heads = heads, kv_heads
        self.causal, self.rope_base, self.head_dim = causal, rope_base, width // heads
        shared = self.kv_heads * self.head_dim
        self.q = _linear(ternary, width, width)
        self.k = _linear(ternary, width, shared)
        self.v = _linear(ternary, width, shared)
        self.o = _linear(ternary, width, width)
        self.q_norm = RMSNorm(width, norm_eps) if qk_norm else None
        self.k_norm = RMSNorm(shared, norm_eps) if qk_norm else None

    def forward(self, x: Tensor) -> Tensor:
        q = self._turned(self.q(x), self.q_norm)
        k = self._turned(self.k(x), self.k_norm)
        return self.o(F.attention(q, k, self.v(x), self.heads, self.kv_heads, self.causal))

    def _turned(self, x: Tensor, norm: RMSNorm | None) -> Tensor:
        """Queries or keys as they are compared."""
        return F.rope(norm(x) if norm else x, self.head_dim, self.rope_base)


class SwiGLU(Module):
    """The gated feed-forward layer: down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, ternary: bool = True) -> None:
        self.gate = _linear(ternary, width, hidden)
        self.up = _linear(ternary, width, hidden)
        self.down = _linear(ternary, hidden, width)

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        """The gate at work."""
        return F.swiglu(gate, up)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.combine(self.gate(x), self.up(x)))


class GEGLU(SwiGLU):
    """The same with GELU: down(gelu(gate(x)) * up(x))."""

    def combine(self, gate: Tensor, up: Tensor) -> Tensor:
        return F.geglu(gate, up)


class Block(Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(
        self, width: int, attention: Module, feed_forward: Module, eps: float = 1e-5
    ) -> None:
        self.attention_norm, self.attention = RMSNorm(width, eps), attention
        self.feed_forward_norm, self.feed_forward = RMSNorm(width, eps), feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))
