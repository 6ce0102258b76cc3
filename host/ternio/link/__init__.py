"""The link to boards: virtual ones on this computer and real ones on a serial port."""

from __future__ import annotations

import importlib

_NAMES = {
    "BoardClient": "client",
    "BoardInfo": "client",
    "Inference": "client",
    "Step": "client",
    "VirtualBoards": "virtual",
    "VirtualBoard": "virtual",
    "find_boards": "find",
}

__all__ = list(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'ternio.link' has no attribute {name!r}")
