"""ternio: ternary neural networks that run, and keep learning, on microcontrollers.

Parts are loaded on first use, so that `import ternio` costs little more than NumPy.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_MODULES = (
    "blob",
    "boards",
    "checkpoint",
    "compile",
    "data",
    "errors",
    "functional",
    "link",
    "lora",
    "models",
    "nn",
    "optim",
    "runtime",
    "train",
)
_NAMES = {
    "Context": "tensor",
    "Tensor": "tensor",
    "manual_seed": "tensor",
    "no_grad": "tensor",
    "set_num_threads": "tensor",
    "TernioError": "errors",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'ternio' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
