"""Files that are written whole or not at all, and never over what they are made from."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import ModelError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> int:
    """Puts a file in place of the one that may be there, once `write` has filled it and it is on
    the disk; of two that write it at once the later one's stays.

    Returns:
        its bytes.

    Raises:
        ModelError: there is something other than a regular file, or the disk or the folder does
            not allow it; nothing has changed then.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: is no regular file; name another place to write to")
    # A name of its own: two may write one file at once. Short, as the whole name may have no room.
    partial = path.with_name(f"{path.name[:32]}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on no content
        os.replace(partial, path)
    except BaseException as error:  # also a Ctrl-C: no half a file is left lying
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            text = f"{path}: cannot be written ({error.strerror or error})"
            raise ModelError(text) from error
        raise
    return path.stat().st_size


def require_apart(output: Path, **sources: Path | str | None) -> None:
    """Raises ModelError where writing `output` would overwrite one of the files it is made from, or
    another output; None stands for a file that is not in play.

    >>> require_apart(Path("new.tern"), checkpoint=Path("old.ckpt"))
    """
    for what, source in sources.items():
        if source is None:
            continue
        same = os.path.realpath(output) == os.path.realpath(source)
        with suppress(OSError):  # one of them is not there
            same = same or output.samefile(source)
        if same:
            raise ModelError(f"{output}: is the {what} itself; name another file to write to")
