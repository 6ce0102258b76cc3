"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import ModelError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> int:
    """Puts a file in place of the one that may be there, once `write` has filled it.

    Returns:
        its bytes.

    Raises:
        ModelError: there is something other than a regular file, or the disk or the folder does
            not allow it; nothing has changed then.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: is no regular file; name another place to write to")
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            write(file)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path.stat().st_size
