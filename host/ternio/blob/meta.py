"""Entries of META, read without the rest of the blob, which takes a while over a serial port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import format as fmt

Reader = Callable[[int, int], bytes]
"""Offset, count -> as many bytes of a blob."""

_MOST_SECTIONS = 16


def read_meta(read: Reader) -> dict[str, Any]:
    """META of a blob that has been checked elsewhere; empty where it is not to be understood, as
    nothing that a board does depends on it.
    """
    import cbor2

    table = read(fmt.HEADER_BYTES, _MOST_SECTIONS * fmt.SECTION_BYTES)
    for start in range(0, len(table) - fmt.SECTION_BYTES + 1, fmt.SECTION_BYTES):
        kind, offset, size, _ = fmt._SECTION.unpack_from(table, start)
        if kind == b"META":
            try:
                meta = cbor2.loads(read(offset, size))
            except (cbor2.CBORError, ValueError, TypeError):
                break
            return meta if isinstance(meta, dict) else {}
    return {}


def channel_names(read: Reader) -> tuple[str, ...]:
    """What the columns were called that the model was trained on; () where it does not say."""
    names = read_meta(read).get("channels")
    return tuple(map(str, names)) if isinstance(names, list) else ()
