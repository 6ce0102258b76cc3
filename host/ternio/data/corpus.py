"""Texts to train language models on: a UTF-8 file, the bytes of any file, or the reference text by
name.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .text import read_bytes, read_text
from .vocabulary import Vocabulary

REFERENCE_TEXT = "text"


@dataclass(frozen=True)
class Corpus:
    """A text as token ids: the first part to train on, the rest to validate.

    Attributes:
        name: what to call it in a report.
        vocabulary: of the ids.
        train, validation: int32 ids.
        notes: lines for a person.
    """

    name: str
    vocabulary: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of ids and vocabulary: two corpora with one digest train the same."""
        parts = (str(self.vocabulary).encode(), self.train.tobytes(), self.validation.tobytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def make_corpus(
    text: str | bytes, name: str, context: int, vocabulary: str | Vocabulary = "characters"
) -> Corpus:
    """Encodes a text and sets its last 5 % aside.

    Args:
        text: at least long enough for one window of `context` tokens on each side; bytes for a
            vocabulary of bytes only.
        name: for reports and messages.
        context: tokens per window.
        vocabulary: "characters" (those of the text), "bytes", or a given one.

    Raises:
        DataError: the text is too short.
    """
    if isinstance(vocabulary, str):
        vocabulary = Vocabulary.of(vocabulary, text)
    ids = vocabulary.encode(text)
    cut = len(ids) - len(ids) // 20
    if len(ids) - cut < context + 1:
        raise DataError(
            f"{name}: {len(ids)} {vocabulary.kind}; at least {20 * (context + 1)} are needed for a "
            f"context of {context} (the last 5 % validate); use a longer text or --context"
        )
    notes = []
    if vocabulary.kind == "characters":
        rest = int((ids == len(vocabulary) - 1).sum())
        if rest:
            notes.append(
                f"{name}: {rest} of {len(ids)} characters are outside the vocabulary of "
                f"{len(vocabulary) - 1}; they train as one"
            )
    return Corpus(name, vocabulary, ids[:cut], ids[cut:], tuple(notes))


def reference_text() -> str:
    """The Python language reference as it ships inside the running CPython.

    All values of `pydoc_data.topics` in the order of their keys, an empty line between two. It
    differs with the version of Python: 465 126 characters in 3.11.
    """
    from pydoc_data.topics import topics

    return "\n\n".join(topics[key] for key in sorted(topics))


def load_corpus(
    source: str | Path, context: int = 128, vocabulary: str | Vocabulary = "characters"
) -> Corpus:
    """The reference text (`text`, unless a file has that name) or a file: with a vocabulary of
    bytes any one as it is, else UTF-8, its line ends made `\\n`.

    Args:
        source, context, vocabulary: see make_corpus().

    Raises:
        DataError: the file is missing, empty or too short, or not UTF-8 where it must be.
    """
    if str(source) == REFERENCE_TEXT and not Path(source).exists():
        text = reference_text()
        corpus = make_corpus(text, "Python reference", context, vocabulary)
        version = ".".join(platform.python_version_tuple()[:2])
        note = f"the reference text of Python {version}: {len(text)} characters"
        return replace(corpus, notes=(note, *corpus.notes))
    path = Path(source)
    kind = vocabulary if isinstance(vocabulary, str) else vocabulary.kind
    if kind == "bytes":
        return make_corpus(read_bytes(path), path.name, context, vocabulary)
    text = read_text(path, ", or train on its bytes: --vocabulary bytes")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return make_corpus(text, path.name, context, vocabulary)
