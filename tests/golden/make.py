"""Makes the golden blob: `python tests/golden/make.py` writes tiny.tern beside this file where it
is not there yet, and the worked example (section 8) of device/FORMAT.md from it.

All weights follow from a formula, so that the file can be made again anywhere. It must never change
meaning within a version of the format: where the compiler learns to do better, the old file stays,
and a new one is added next to it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ternio.blob import Blob, disassemble
from ternio.compile import Description, Graph, Options, pack_graph

HERE = Path(__file__).resolve().parent
BLOB = HERE / "tiny.tern"
DOCUMENT = HERE.parents[1] / "device" / "FORMAT.md"
HEADING = "## 8. Worked example"


def weight(rows: int, cols: int, phase: int) -> np.ndarray:
    """Values in (-1, 1), multiples of 1/8: exact in every format."""
    i = np.arange(rows * cols) * 37 + phase * 11
    return (((i * i + i) % 15 - 7) / 8).reshape(rows, cols).astype(np.float32)


def tiny() -> Graph:
    """Two channels, six samples, patches of two; one layer of width 8; two classes."""
    g = Graph(channels=2, length=6, time=3)

    def linear(x: int, name: str, width: int, op: str = "bitlinear") -> int:
        g.params[name] = weight(width, g.nodes[x].width, len(g.params) + 1)
        return g.add(op, x, width=width, params=(name,), where=name)

    def norm(x: int, name: str) -> int:
        g.params[name] = 1 + weight(1, g.nodes[x].width, len(g.params) + 1)[0] / 4
        return g.add("rmsnorm", x, params=(name,), attrs={"eps": 2**-16}, where=name)

    x = linear(g.add("input", width=4), "patch", 8, "linear")
    h = norm(x, "norm")
    q, k, v = (linear(h, name, 8) for name in "qkv")
    rope = {"head_dim": 4, "base": 16.0}
    q, k = (g.add("rope", value, attrs=rope) for value in (q, k))
    a = g.add("attention", q, k, v, attrs={"heads": 2, "kv_heads": 2, "causal": True})
    x = g.add("add", x, linear(a, "o", 8))
    linear(g.add("mean_pool", x), "head", 2, "linear")
    return g


def make() -> Blob:
    """The golden blob."""
    about = Description(
        name="tiny",
        labels=("no", "yes"),
        input_scale=np.array([0.5, 0.25], np.float32),
        gain=np.array([2**-9, 2**-10], np.float32),
        shift=np.array([0.125, -0.25], np.float32),
        rate_hz=50.0,
        patch=2,
        meta={"channels": ["x", "y"]},
    )
    options = Options(
        rank=1, scale=2.0, targets=("v", "head"), float_dtype="f16", kv="float", integer_rows=False
    )
    return pack_graph(tiny(), about, options)


def window() -> np.ndarray:
    """The window of the worked example, int16 [6, 2]."""
    return np.array([[100, -200], [300, 50], [-400, 120], [0, 7], [250, -33], [-90, 81]], np.int16)


def hex_lines(data: bytes, start: int, end: int) -> list[str]:
    """`offset  16 bytes` per line."""
    return [f"{at:05x}  {data[at : min(at + 16, end)].hex(' ')}" for at in range(start, end, 16)]


def example(data: bytes) -> str:
    """Section 8 of FORMAT.md: the golden blob's bytes, explained."""
    blob = Blob.decode(data)
    sections = {kind: (at, size, count) for kind, at, size, count in section_table(data)}
    lines = [
        HEADING,
        "",
        f"`tests/golden/tiny.tern`, {len(data)} bytes, made by `tests/golden/make.py` as is this "
        "section. Python, the C loader and this text are tested against each other.",
        "Two channels, six samples, patches of two; one causal attention of two heads of four; two "
        "classes.",
        "",
        "Header and section table:",
        "",
        "```text",
        *hex_lines(data, 0, 0x60 + 16 * len(sections)),
        "```",
        "",
        "| section | offset | bytes | count |",
        "|---|---|---|---|",
        *(f"| `{k}` | 0x{at:x} | {size} | {n} |" for k, (at, size, n) in sections.items()),
        "",
        f"Arena: {blob.infer_arena} bytes for `infer`, {blob.adapt_arena} for `adapt`; the state "
        f"of {blob.adapter_floats} factors starts at byte {blob.adapt.state}.",
        "",
    ]
    lines += _tensor_example(blob, data, sections)
    lines += _program_example(blob, data, sections)
    return "\n".join(lines) + "\n"


def _tensor_example(blob: Blob, data: bytes, sections: dict) -> list[str]:
    index = next(i for i, t in enumerate(blob.tensors) if t.name == "q")
    t = blob.tensors[index]
    at = sections["TDIR"][0] + 32 * index
    (offset,) = np.frombuffer(data, "<u4", 1, at + 12)
    start = sections["DATA"][0] + int(offset)
    return [
        f"Tensor {index}, `q`, T2 of 8 rows and 8 columns, gamma {t.gamma!r}. Its entry and its "
        "data: a row of 16 padded columns is 4 bytes, and byte b holds",
        "columns b, 4 + b, 8 + b and 12 + b, lowest bits first.",
        "",
        "```text",
        *hex_lines(data, at, at + 32),
        "",
        *hex_lines(data, start, start + len(t.data)),
        "```",
        "",
        f"Its first row is `{' '.join(f'{w:+d}' for w in t.trits()[0])}`.",
        "",
    ]


def _program_example(blob: Blob, data: bytes, sections: dict) -> list[str]:
    at = sections["INFR"][0]
    second = at + 32 + 40
    return [
        "Program header of `INFR`, its LOOP and its INPUT:",
        "",
        "```text",
        *hex_lines(data, at, at + 32),
        *hex_lines(data, at + 32, second),
        *hex_lines(data, second, second + 40),
        "```",
        "",
        "Program `infer` (`@`: arena byte, `[t]`: row t of the operand):",
        "",
        "```text",
        *disassemble(blob, blob.infer),
        "```",
        "",
        f"Program `adapt`{', which goes on from `infer`' if blob.adapt.after_infer else ''}:",
        "",
        "```text",
        *disassemble(blob, blob.adapt),
        "```",
    ]


def section_table(data: bytes) -> list[tuple[str, int, int, int]]:
    """(type, offset, bytes, count) of each section, read from the bytes."""
    (count,) = np.frombuffer(data, "<u4", 1, 0x34)
    table = []
    for i in range(int(count)):
        at = 0x60 + 16 * i
        fields = np.frombuffer(data, "<u4", 3, at + 4)
        table.append((data[at : at + 4].decode(), *(int(x) for x in fields)))
    return table


def document_with(text: str, data: bytes) -> str:
    """FORMAT.md with section 8 as the blob says."""
    return text.partition(HEADING)[0].rstrip() + "\n\n" + example(data)


if __name__ == "__main__":
    if "--new" in sys.argv or not BLOB.exists():
        BLOB.write_bytes(make().encode())
    DOCUMENT.write_text(document_with(DOCUMENT.read_text(), BLOB.read_bytes()))
