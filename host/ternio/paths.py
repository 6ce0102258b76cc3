"""Where ternio finds what it ships (boards, firmware, device sources) and keeps what it makes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ternio.errors import BuildError

_PACKAGE = Path(__file__).resolve().parent


def share_dir(name: str) -> Path:
    """A shipped folder: `boards`, `device` or `firmware`, of the package or of a checkout."""
    for root in (_PACKAGE / "_share", _PACKAGE.parent.parent):
        if (root / name).is_dir():
            return root / name
    raise BuildError(f"the folder {name} that ternio ships is missing: install ternio again")


def cache_dir() -> Path:
    """Builds and other things that can be made again; TERNIO_CACHE_DIR overrides it."""
    return _user_dir("TERNIO_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Notes on running boards and their logs; TERNIO_STATE_DIR overrides it."""
    return _user_dir("TERNIO_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def _user_dir(own: str, standard: str, default: str) -> Path:
    if os.environ.get(own):
        path = Path(os.environ[own])
    else:
        path = Path(os.environ.get(standard) or Path.home() / default) / "ternio"
    with contextlib.suppress(OSError):  # who writes there says what is wrong
        path.mkdir(parents=True, exist_ok=True)
    return path
