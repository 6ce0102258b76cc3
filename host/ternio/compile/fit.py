"""What a blob takes of a board's flash and RAM, part by part, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..blob import opcodes as ops
from ..blob.adapter import HEADER_BYTES as ADAPTER_HEADER_BYTES
from ..blob.check import walk
from ..blob.format import Blob
from ..errors import FitError

if TYPE_CHECKING:
    from ..boards import Board
    from ..models import ClassifierConfig, LanguageModelConfig


STATE_BYTES = 576
"""RAM of the firmware's own variables, at most (tests/firmware/test_firmware_build.py)."""


@dataclass(frozen=True)
class Part:
    """One line of the account. `has` is None where a part counts only towards its total."""

    memory: str  # "flash" or "ram", in bytes, or "work" of one run, as the board limits it
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
    ternary = sum(len(t.data) for t in blob.tensors if t.is_ternary)
    programs = sections["INFR"] + sections.get("ADPT", 0)
    texts = sum(sections.get(kind, 0) for kind in ("LABL", "VOCB", "META"))
    parts = {
        "ternary weights": ternary,
        "float tables": sections["DATA"] - ternary,
        "programs": programs,
        "labels and metadata": texts,
    }
    return {**parts, "header and directories": len(blob.encode()) - sum(parts.values())}


def key_bytes(blob: Blob) -> int:
    """Arena bytes in which `infer` holds keys and values for its attentions."""
    places: dict[int, int] = {}
    for placed in walk(blob.infer.code, blob.io.length if blob.infer.stream else 0):
        i = placed.instruction
        if i.op not in ops.ATTENTIONS:
            continue
        for operand in ops.SPECS[i.op].arena_operands():
            if operand.slot in ("b", "c"):
                word = getattr(i, operand.slot)
                size = operand.size(i.n0, i.n1, i.n2, placed.rows)
                places[word] = max(size, places.get(word, 0))
    return sum(places.values())


def input_bytes(blob: Blob) -> int:
    """Bytes in which a board holds a window, or the tokens of a stream and how it chooses them."""
    io = blob.io
    return 2 * io.length + 4 * io.outputs if io.is_stream else 2 * io.channels * io.length


def input_room(config: ClassifierConfig | LanguageModelConfig, board: Board) -> int:
    """Arena that a board has for the programs of a model to be, beside its input."""
    if config.architecture == "language_model":
        return board.arena_beside(2 * config.context + 4 * config.vocabulary)
    return board.arena_beside(2 * config.channels * config.length)


def account(blob: Blob, board: Board) -> list[Part]:
    """Flash and RAM of a board with this model, part by part, and the work of one run."""
    from ..runtime import Model

    room = board.arena_beside(input_bytes(blob))
    total = sum(blob_parts(blob).values())
    parts = [Part("flash", name, size) for name, size in blob_parts(blob).items()]
    parts.append(Part("flash", "model slot", total, board.model_slot_bytes))
    if blob.adapt is not None:
        size = ADAPTER_HEADER_BYTES + 4 * blob.adapter_floats
        parts.append(Part("flash", "adapter slot", size, board.adapter_slot_bytes))
    arenas = {"infer": blob.infer_arena, "adapt": blob.adapt_arena if board.adapts else 0}
    keys = key_bytes(blob)
    if keys:
        parts.append(Part("ram", "keys and values", keys))
    for name, size in arenas.items():
        if size:
            parts.append(Part("ram", f"{name} arena", size, room))
    reserved = {
        "arena, reserved": board.arena_bytes,
        "input": board.window_bytes,
        "link buffers": board.rx_ring_bytes + 2 * board.frame_bytes,
        "stack": board.stack_bytes,
        "firmware's variables": STATE_BYTES,
    }
    parts += [Part("ram", name, size) for name, size in reserved.items()]
    parts.append(Part("ram", "reserved together", sum(reserved.values()), board.ram.bytes))
    work = Model.open(blob.encode()).infer_work
    parts.append(
        Part("work", "one token" if blob.io.is_stream else "one inference", work, board.work_limit)
    )
    return parts


def require_fit(blob: Blob, board: Board) -> list[Part]:
    """The account, where every part fits.

    Raises:
        FitError: one line that names each part that does not, and by how many bytes.
    """
    parts = account(blob, board)
    over = [p for p in parts if p.missing]
    if over:
        texts = [
            f"{p.name} needs {p.needs} of {p.has}, {p.missing} too many"
            for p in over
            if p.memory != "work"
        ]
        sizes = f"{', '.join(texts)} (bytes)" if texts else ""
        work = (f"{p.name} is work of {p.needs}, {p.has} at most" for p in over[len(texts) :])
        hint = ""
        if all(p.name in ("adapt arena", "adapter slot") for p in over):
            hint = "; --no-adapt packs it for inference only"
        why = "; ".join(text for text in (sizes, *work) if text)
        raise FitError(f"{blob.name} does not fit {board.name}: {why}{hint}")
    return parts
