"""Models by configuration: transformers that classify windows of sensor samples, or write text.

The forward is written once; training, packing and every board take it from here.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from . import functional as F
from . import nn
from .context import no_grad
from .errors import ModelError
from .tensor import Tensor

_Config = TypeVar("_Config", bound="TransformerConfig")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """What the configurations of all models share.

    Attributes:
        width: of the residual stream, a multiple of `heads` with an even quotient.
        layers: transformer blocks.
        heads: query heads.
        kv_heads: key/value heads, a divisor of `heads`; 0 means as many as heads.
        ffn: hidden width of the feed-forward layers.
        ternary: BitLinear layers inside the blocks; else float twins.
        rope_base: base of the rotary angles.
        norm_eps: of the RMSNorm layers.
        qk_norm: RMSNorm of queries and keys as well.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 0
    ffn: int = 128
    ternary: bool = True
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    qk_norm: bool = False

    architecture: ClassVar[str]
    limits: ClassVar[dict[str, tuple[int, int]]] = {
        "width": (2, 4096),
        "layers": (1, 64),
        "heads": (1, 256),
        "kv_heads": (0, 256),
        "ffn": (1, 16384),
    }

    def __post_init__(self) -> None:
        for name, (low, high) in self.limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ModelError(f"{name} is {value!r}; expected a whole number in {low}..{high}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelError(
                f"width {self.width} with {self.heads} heads: expected an even width per head"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ModelError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        if not (self.rope_base > 1 and 0 < self.norm_eps < 1):
            raise ModelError(f"rope_base {self.rope_base}, norm_eps {self.norm_eps}: out of range")

    @property
    def block_weights(self) -> int:
        """Number of weights in the matrices of all blocks."""
        shared = self.width * (self.kv_heads or self.heads) // self.heads
        attention = 2 * self.width * (self.width + shared)
        return self.layers * (attention + 3 * self.width * self.ffn)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the architecture's name."""
        return {"architecture": self.architecture, **asdict(self)}

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any]) -> _Config:
        """The reverse of to_dict; ModelError for another architecture or unknown entries."""
        values = dict(values)
        architecture = values.pop("architecture", None)
        if architecture != cls.architecture:
            raise ModelError(f"architecture {architecture!r}; expected {cls.architecture!r}")
        known = {f.name for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ModelError(f"configuration entry {name!r} is unknown to this version")
            if not isinstance(value, (bool, int, float)):
                raise ModelError(f"configuration entry {name!r} is {value!r}; expected a number")
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"incomplete configuration: {error}") from error

    def blocks(self, causal: bool) -> list[nn.Block]:
        """The transformer blocks."""
        return [
            nn.Block(
                self.width,
                nn.Attention(
                    self.width,
                    self.heads,
                    self.kv_heads or None,
                    causal,
                    self.ternary,
                    self.rope_base,
                    self.qk_norm,
                    self.norm_eps,
                ),
                nn.SwiGLU(self.width, self.ffn, self.ternary),
                self.norm_eps,
            )
            for _ in range(self.layers)
        ]


class Transformer(nn.Module):
    """What the models share.

    Attributes:
        config: their configuration.
    """

    config: TransformerConfig

    def count(self) -> tuple[int, int]:
        """Number of parameters, and how many of them are ternary weights."""
        ternary = sum(
            m.weight.numel() for _, m in self.named_modules() if isinstance(m, nn.BitLinear)
        )
        return sum(p.numel() for p in self.parameters()), ternary


@dataclass(frozen=True)
class ClassifierConfig(TransformerConfig):
    """Shape of a Classifier; the defaults are the reference model `motion`.

    Attributes:
        channels: per sample.
        length: samples per window.
        classes: number of logits.
        patch: samples that make one row of the first layer; the last patch is filled up with 0.
        causal: a position sees itself and what came before it.
    """

    channels: int
    length: int
    classes: int
    patch: int = 4
    causal: bool = True

    architecture: ClassVar[str] = "classifier"
    limits: ClassVar[dict[str, tuple[int, int]]] = {
        "channels": (1, 4096),
        "length": (1, 1 << 20),
        "classes": (2, 1024),
        "patch": (1, 4096),
        **TransformerConfig.limits,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch > self.length:
            raise ModelError(f"patch {self.patch} is longer than the window of {self.length}")
        if self.patch * self.channels > 65535 or self.positions > 65535:
            raise ModelError("a patch, or the number of patches, exceeds 65535; change patch")

    @property
    def positions(self) -> int:
        """Rows that the transformer sees: patches per window."""
        return -(-self.length // self.patch)


class Classifier(Transformer):
    """Patches of samples -> transformer -> mean over time -> logits.

    Example:
        >>> model = Classifier(ClassifierConfig(channels=6, length=100, classes=4))
        >>> model(np.zeros((1, 100, 6), np.float32)).shape
        (1, 4)
    """

    def __init__(self, config: ClassifierConfig) -> None:
        self.config: ClassifierConfig = config
        self.patch_embed = nn.Linear(config.patch * config.channels, config.width)
        self.blocks = config.blocks(config.causal)
        self.norm = nn.RMSNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, config.classes)

    def patches(self, x: np.ndarray) -> Tensor:
        """Windows [n, length, channels] -> [n, positions, patch * channels], zeros at the end."""
        c = self.config
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 3 or x.shape[1:] != (c.length, c.channels):
            raise ModelError(
                f"windows of shape {list(x.shape)}; expected [n, {c.length}, {c.channels}]"
            )
        rows = np.zeros((len(x), c.positions * c.patch, c.channels), dtype=np.float32)
        rows[:, : c.length] = x
        shape = (len(x), c.positions, c.patch * c.channels)
        return Tensor.from_numpy(rows.reshape(shape), self.context)

    def forward(self, x: np.ndarray | Tensor) -> Tensor:
        """Logits [n, classes] of normalised windows (an array) or of patches() of them."""
        h = self.patch_embed(x if isinstance(x, Tensor) else self.patches(x))
        for block in self.blocks:
            h = block(h)
        return self.head(F.mean_pool(self.norm(h)))

    def predict(self, x: np.ndarray, batch: int = 64) -> np.ndarray:
        """Logits float32 [n, classes] of normalised windows, nothing recorded."""
        with no_grad(self.context):
            parts = [self(x[i : i + batch]).numpy() for i in range(0, len(x), batch)]
        return np.concatenate(parts) if parts else np.zeros((0, self.config.classes), np.float32)


@dataclass(frozen=True)
class LanguageModelConfig(TransformerConfig):
    """Shape of a LanguageModel; the defaults are the reference model `text`.

    Attributes:
        vocabulary: number of tokens, and of logits.
        context: positions that the model is trained on, and that a board keeps keys and values of.
    """

    vocabulary: int
    context: int = 128
    _: KW_ONLY
    width: int = 128
    layers: int = 4
    kv_heads: int = 2
    ffn: int = 256
    qk_norm: bool = True

    architecture: ClassVar[str] = "language_model"
    limits: ClassVar[dict[str, tuple[int, int]]] = {
        "vocabulary": (2, 1024),
        "context": (2, 65535),
        **TransformerConfig.limits,
    }


class LanguageModel(Transformer):
    """Token ids -> embedding -> causal transformer -> logits of the token that follows each.

    Example:
        >>> model = LanguageModel(LanguageModelConfig(vocabulary=96))
        >>> model(np.zeros((1, 128), np.int32)).shape
        (1, 128, 96)
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        self.config: LanguageModelConfig = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.blocks = config.blocks(causal=True)
        self.norm = nn.RMSNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, ids: np.ndarray | Tensor) -> Tensor:
        """Logits [n, time, vocabulary] of ids int32 [n, time], time <= context."""
        if not isinstance(ids, Tensor):
            ids = Tensor(ids, context=self.context)
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= self.config.context:
            raise ModelError(
                f"token ids of shape {list(ids.shape)}; expected [n, 1..{self.config.context}]"
            )
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def config_from_dict(values: dict[str, Any]) -> ClassifierConfig | LanguageModelConfig:
    """The configuration that a dictionary of to_dict() describes, of whichever architecture."""
    kinds = {kind.architecture: kind for kind in (ClassifierConfig, LanguageModelConfig)}
    name = values.get("architecture")
    if name not in kinds:
        raise ModelError(f"architecture {name!r}; this version knows {', '.join(kinds)}")
    return kinds[name].from_dict(values)


def build(config: ClassifierConfig | LanguageModelConfig) -> Classifier | LanguageModel:
    """A fresh model of a configuration, its parameters from the current context's generator."""
    if isinstance(config, LanguageModelConfig):
        return LanguageModel(config)
    return Classifier(config)
