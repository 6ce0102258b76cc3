"""What a blob takes of a board's flash and RAM, part by part, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..blob.adapter import HEADER_BYTES as ADAPTER_HEADER_BYTES
from ..blob.format import Blob
from ..errors import FitError

if TYPE_CHECKING:
    from ..boards import Board


@dataclass(frozen=True)
class Part:
    """One line of the account. `has` is None where a part counts only towards its total."""

    memory: str  # "flash" or "ram"
    name: str
    needs: int
    has: int | None = None

    @property
    def missing(self) -> int:
        """Bytes that are too many; 0 where the part fits."""
        return max(0, self.needs - self.has) if self.has is not None else 0


def blob_parts(blob: Blob) -> dict[str, int]:
    """Bytes of a blob by what they are for; the values add up to its length."""
    sections = {kind: len(content) for kind, content, _ in blob.sections()}
    ternary = sum(len(t.data) for t in blob.tensors if t.dtype == "T2")
    programs = sections["INFR"] + sections.get("ADPT", 0)
    texts = sum(sections.get(kind, 0) for kind in ("LABL", "VOCB", "META"))
    parts = {
        "ternary weights": ternary,
        "float tables": sections["DATA"] - ternary,
        "programs": programs,
        "labels and metadata": texts,
    }
    return {**parts, "header and directories": len(blob.encode()) - sum(parts.values())}


def account(blob: Blob, board: Board) -> list[Part]:
    """Flash and RAM of a board with this model, part by part."""
    link = board.manifest["ternio"]["link"]
    buffers = sum(size for name, size in link.items() if name.endswith("_bytes"))
    total = sum(blob_parts(blob).values())
    parts = [Part("flash", name, size) for name, size in blob_parts(blob).items()]
    parts.append(Part("flash", "model slot", total, board.model_slot_bytes))
    if blob.adapt is not None:
        size = ADAPTER_HEADER_BYTES + 4 * blob.adapter_floats
        parts.append(Part("flash", "adapter slot", size, board.adapter_slot_bytes))
    arenas = {"infer": blob.infer_arena, "adapt": blob.adapt_arena}
    for name, size in arenas.items():
        if size:
            parts.append(Part("ram", f"{name} arena", size, board.arena_bytes))
    parts.append(Part("ram", "link buffers", buffers))
    parts.append(Part("ram", "stack", board.stack_bytes))
    together = max(arenas.values()) + buffers + board.stack_bytes
    parts.append(Part("ram", "together", together, board.ram.bytes))
    return parts


def require_fit(blob: Blob, board: Board) -> list[Part]:
    """The account, where every part fits.

    Raises:
        FitError: one line that names each part that does not, and by how many bytes.
    """
    parts = account(blob, board)
    over = [p for p in parts if p.missing]
    if over:
        texts = (f"{p.name} needs {p.needs} of {p.has}, {p.missing} too many" for p in over)
        hint = ""
        if all(p.name in ("adapt arena", "adapter slot", "together") for p in over):
            hint = "; --no-adapt packs it for inference only"
        raise FitError(f"{blob.name} does not fit {board.name}: {', '.join(texts)} (bytes){hint}")
    return parts
