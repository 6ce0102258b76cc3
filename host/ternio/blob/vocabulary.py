"""The vocabulary of a model of tokens as a blob carries it (section VOCB of FORMAT.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from ..errors import BlobError

CHARACTERS, BYTES = 1, 2
ANY_OTHER = 0xFFFFFFFF
"""The code point of the token that every other character becomes."""


@dataclass(frozen=True)
class Vocabulary:
    """What each token stands for: `code_points` in ascending order, or none where a token is a byte
    of UTF-8."""

    code_points: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.code_points) or 256

    @property
    def is_bytes(self) -> bool:
        return not self.code_points

    def encode(self) -> bytes:
        """The content of the section."""
        form = BYTES if self.is_bytes else CHARACTERS
        return struct.pack(f"<I{len(self.code_points)}I", form, *self.code_points)

    @classmethod
    def decode(cls, content: bytes, count: int) -> Vocabulary:
        """Reads a section of `count` tokens; raises BlobError where it is not as specified."""
        form = struct.unpack_from("<I", content)[0] if len(content) >= 4 else 0
        if form not in (CHARACTERS, BYTES):
            raise BlobError(f"VOCB: form {form} is not known")
        expected = 4 + 4 * count if form == CHARACTERS else 4
        if len(content) != expected or (form == BYTES and count != 256):
            raise BlobError(f"VOCB: {len(content)} bytes do not fit {count} tokens")
        points = struct.unpack_from(f"<{(expected - 4) // 4}I", content, 4)
        if any(a >= b for a, b in pairwise(points)):
            raise BlobError("VOCB: the characters are not in ascending order")
        if not all(_is_character(p) or p == ANY_OTHER for p in points):
            raise BlobError("VOCB: a code point is not one of a character")
        return cls(points)


def _is_character(point: int) -> bool:
    return 0 < point < 0xD800 or 0xE000 <= point < 0x110000
