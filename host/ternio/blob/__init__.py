"""The blob: the one file that a board runs. Format, ternary packing, adapters, disassembly.

>>> from ternio.blob import Blob                                        # doctest: +SKIP
>>> Blob.decode(open("motion.tern", "rb").read()).io.channels           # doctest: +SKIP
6
"""

from __future__ import annotations

from pathlib import Path

from ..errors import BlobError
from .adapter import AdapterFile, merge, merge_adapter
from .disasm import disassemble
from .format import Adapter, Blob, InputOutput, Instruction, Program, Tensor

__all__ = [
    "Adapter",
    "AdapterFile",
    "Blob",
    "InputOutput",
    "Instruction",
    "Program",
    "Tensor",
    "disassemble",
    "merge",
    "merge_adapter",
    "read_blob",
]


def read_blob(path: str | Path) -> Blob:
    """The model in a file; raises BlobError where the file is no blob or cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BlobError(f"{path}: {error.strerror}") from None
    try:
        return Blob.decode(data)
    except BlobError as error:
        raise BlobError(f"{path}: {error}") from None
