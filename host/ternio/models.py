"""Models by configuration: a transformer that classifies windows of sensor samples.

The forward is written once; training, packing and every board take it from here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from . import functional as F
from . import nn
from .context import no_grad
from .errors import ModelError
from .tensor import Tensor


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of a Classifier; the defaults are the reference model `motion`.

    Attributes:
        channels: per sample.
        length: samples per window.
        classes: number of logits.
        patch: samples that make one row of the first layer; the last patch is filled up with 0.
        width: of the residual stream, a multiple of `heads` with an even quotient.
        layers: transformer blocks.
        heads: query heads.
        kv_heads: key/value heads, a divisor of `heads`; 0 means as many as heads.
        ffn: hidden width of the feed-forward layers.
        ternary: BitLinear layers inside the blocks; else float twins.
        causal: a position sees itself and what came before it.
        rope_base: base of the rotary angles.
        norm_eps: of the RMSNorm layers.
    """

    channels: int
    length: int
    classes: int
    patch: int = 4
    width: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 0
    ffn: int = 128
    ternary: bool = True
    causal: bool = True
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        limits = {
            "channels": (1, 4096),
            "length": (1, 1 << 20),
            "classes": (2, 1024),
            "patch": (1, 4096),
            "width": (2, 4096),
            "layers": (1, 64),
            "heads": (1, 256),
            "kv_heads": (0, 256),
            "ffn": (1, 16384),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ModelError(f"{name} is {value!r}; expected a whole number in {low}..{high}")
        if self.patch > self.length:
            raise ModelError(f"patch {self.patch} is longer than the window of {self.length}")
        if self.patch * self.channels > 65535 or self.positions > 65535:
            raise ModelError("a patch, or the number of patches, exceeds 65535; change patch")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelError(
                f"width {self.width} with {self.heads} heads: expected an even width per head"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ModelError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        if not (self.rope_base > 1 and 0 < self.norm_eps < 1):
            raise ModelError(f"rope_base {self.rope_base}, norm_eps {self.norm_eps}: out of range")

    @property
    def positions(self) -> int:
        """Rows that the transformer sees: patches per window."""
        return -(-self.length // self.patch)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the architecture's name."""
        return {"architecture": "classifier", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierConfig:
        """The reverse of to_dict; ModelError for another architecture or unknown entries."""
        values = dict(values)
        architecture = values.pop("architecture", None)
        if architecture != "classifier":
            raise ModelError(f"architecture {architecture!r}; this version knows 'classifier'")
        known = {f.name: f.type for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ModelError(f"configuration entry {name!r} is unknown to this version")
            if not isinstance(value, (bool, int, float)):
                raise ModelError(f"configuration entry {name!r} is {value!r}; expected a number")
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"incomplete configuration: {error}") from error


class Classifier(nn.Module):
    """Patches of samples -> transformer -> mean over time -> logits.

    Example:
        >>> model = Classifier(ClassifierConfig(channels=6, length=100, classes=4))
        >>> model(np.zeros((1, 100, 6), np.float32)).shape
        (1, 4)
    """

    def __init__(self, config: ClassifierConfig) -> None:
        c = self.config = config
        self.patch_embed = nn.Linear(c.patch * c.channels, c.width)
        self.blocks = [
            nn.Block(
                c.width,
                nn.Attention(
                    c.width, c.heads, c.kv_heads or None, c.causal, c.ternary, c.rope_base
                ),
                nn.SwiGLU(c.width, c.ffn, c.ternary),
                c.norm_eps,
            )
            for _ in range(c.layers)
        ]
        self.norm = nn.RMSNorm(c.width, c.norm_eps)
        self.head = nn.Linear(c.width, c.classes)

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

    def count(self) -> tuple[int, int]:
        """Number of parameters, and how many of them are ternary weights."""
        ternary = sum(
            m.weight.numel() for _, m in self.named_modules() if isinstance(m, nn.BitLinear)
        )
        return sum(p.numel() for p in self.parameters()), ternary
