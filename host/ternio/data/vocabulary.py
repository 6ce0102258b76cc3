"""Vocabularies of language models: characters, or bytes; text to token ids and back.

>>> words = Vocabulary.characters("to be or not to be")
>>> words.decode(words.encode("not"))
'not'
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import ModelError

KINDS = ("characters", "bytes")
CHARACTERS = 95
REST = "\N{REPLACEMENT CHARACTER}"
"""What a character outside the vocabulary reads as."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids and what they stand for.

    Attributes:
        kind: "characters", where id i is characters[i] and one id more, the last, is every other
            character; or "bytes", where an id is a byte (a text's are those of UTF-8).
        alphabet: the characters in order of their code points; "" for bytes.
    """

    kind: str
    alphabet: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelError(f"vocabulary of {self.kind!r}; expected {' or '.join(KINDS)}")
        sound = 1 <= len(self.alphabet) <= 1023 if self.kind == "characters" else not self.alphabet
        if not sound or list(self.alphabet) != sorted(set(self.alphabet)):
            raise ModelError(
                f"vocabulary of {len(self.alphabet)} {self.kind}: expected 1..1023 different "
                "characters in order, or none for bytes"
            )

    @classmethod
    def characters(cls, text: str, count: int = CHARACTERS) -> Vocabulary:
        """The `count` most frequent characters of a text (of equals the lower code points)."""
        found = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
        return cls("characters", "".join(sorted(c for c, _ in found[:count])))

    @classmethod
    def of(cls, kind: str, text: str | bytes) -> Vocabulary:
        """The vocabulary of a kind for a text, which may be bytes where the kind is "bytes"."""
        return cls.characters(_characters(text)) if kind == "characters" else cls(kind)

    def __len__(self) -> int:
        return 256 if self.kind == "bytes" else len(self.alphabet) + 1

    @property
    def choices(self) -> int:
        """Ids that a text is written in: all but that of every other character."""
        return 256 if self.kind == "bytes" else len(self.alphabet)

    @cached_property
    def _code_points(self) -> np.ndarray:
        return np.array([ord(c) for c in self.alphabet], dtype=np.uint32)

    @property
    def tokens(self) -> tuple[bytes, ...]:
        """What each id adds to a text, in UTF-8."""
        if self.kind == "bytes":
            return tuple(bytes([i]) for i in range(256))
        return tuple(c.encode() for c in self.alphabet + REST)

    @property
    def opening(self) -> str:
        """What a text may begin after: a line break where that is known, else a known character."""
        return "\n" if self.kind == "bytes" or "\n" in self.alphabet else self.alphabet[0]

    def encode(self, text: str | bytes) -> np.ndarray:
        """Ids int32 [n] of a text; n is the number of its characters or bytes. Only a vocabulary
        of bytes takes bytes; they need not be UTF-8.
        """
        if self.kind == "bytes":
            data = text.encode() if isinstance(text, str) else text
            return np.frombuffer(data, np.uint8).astype(np.int32)
        points = np.frombuffer(_characters(text).encode("utf-32-le"), np.uint32)
        known = self._code_points
        at = np.minimum(np.searchsorted(known, points), len(known) - 1)
        return np.where(known[at] == points, at, len(known)).astype(np.int32)

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids; bytes that are not UTF-8 read as REST."""
        tokens = self.tokens
        return b"".join(tokens[i] for i in np.asarray(ids).tolist()).decode(errors="replace")

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return {"kind": self.kind, "alphabet": self.alphabet}

    @classmethod
    def from_dict(cls, values: dict) -> Vocabulary:
        """The reverse of to_dict; ModelError for what is none."""
        try:
            return cls(str(values["kind"]), str(values["alphabet"]))
        except (KeyError, TypeError) as error:
            raise ModelError(f"vocabulary: {error!r}") from error


def _characters(text: str | bytes) -> str:
    if not isinstance(text, str):
        raise ModelError(f"vocabulary of characters: expected str, got {type(text).__name__}")
    return text
