"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from .errors import ModelError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> int:
    """Puts a file in place of the one that may be there, once `write` has filled it.

    Returns:
        its bytes.

    Raises:
        ModelError: the disk or the folder does not allow it; nothing has changed then.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            write(file)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path.stat().st_size
