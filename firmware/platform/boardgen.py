"""From a board manifest (boards/<name>.json) to what the C sources and the linker read.

Used by the PlatformIO builders and by the Python package's build of the native board; standard
library only.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import zlib
from pathlib import Path

SLOT_HEADER_BYTES = 64
SLOT_MAGIC = b"TSLT"
SLOT_KINDS = {"model": 1, "adapter": 2}

# Sources of the PyPI package zcbor that the firmware uses. Release 0.9.1 reads float bits through
# pointers of another type, which -O2 takes for undefined.
ZCBOR_SOURCES = ("zcbor_common.c", "zcbor_decode.c", "zcbor_encode.c")
ZCBOR_FLAGS = ("-fno-strict-aliasing", "-w")


def zcbor_dir() -> Path | None:
    """Where zcbor keeps its C sources (src/, include/), None when it is not installed; its Python
    code is not run."""
    spec = importlib.util.find_spec("zcbor")
    return Path(spec.origin).parent if spec and spec.origin else None


def load_manifest(path: Path) -> dict:
    """The manifest at `path`, with the addresses of its `ternio` block as integers."""
    manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    ternio = manifest["ternio"]
    areas = [ternio["flash"], ternio["ram"]]
    for slots in (ternio["slots"], ternio.get("ram_slots", {})):
        for group in slots.values():
            areas.extend(group)
    for area in areas:
        area["base"] = int(area["base"], 0)
    return manifest


def _pin(text: str) -> tuple[int, int]:
    """`C6` -> (2, 6), `P0.24` -> (0, 24): port index and pin number."""
    if "." in text:
        port, pin = text.upper().removeprefix("P").split(".")
        return int(port), int(pin)
    return ord(text[0].upper()) - ord("A"), int(text[1:])


def find_port(boards_dir: Path, family: str) -> Path | None:
    """The folder of a chip family: `ports/<family>` beside the manifests, else in firmware/."""
    here = Path(__file__).resolve().parents[1] / "ports"
    folders = (Path(boards_dir) / "ports" / family, here / family)
    return next((folder for folder in folders if folder.is_dir()), None)


def _slot_rows(slots: dict) -> str:
    rows = [
        f"{{{SLOT_KINDS[kind]}, 0x{area['base']:08X}u, {area['bytes']}u}}"
        for kind in SLOT_KINDS
        for area in slots.get(kind, [])
    ]
    return "{" + ", ".join(rows) + "}" if rows else "{{0, 0, 0}}"


def board_config(board: str, manifest: dict, emulated: bool) -> str:
    """Text of board_config.h: every fact of the board that C needs, and nothing else."""
    ternio = manifest["ternio"]
    console = ternio["console"]
    if emulated:
        console = ternio.get("emulator", {}).get("console", console)
    link = ternio["link"]
    facts: dict[str, object] = {
        "BOARD_NAME": json.dumps(board),
        "BOARD_TITLE": json.dumps(manifest["name"]),
        "BOARD_CHIP": json.dumps(ternio["chip"]),
        "BOARD_CORE": json.dumps(ternio["core"]),
        "BOARD_ARENA_BYTES": ternio["arena_bytes"],
        "BOARD_STACK_BYTES": ternio["stack_bytes"],
        "BOARD_RX_RING_BYTES": link["rx_ring_bytes"],
        "BOARD_FRAME_BYTES": link["frame_bytes"],
        "BOARD_WINDOW_BYTES": link["window_bytes"],
        "BOARD_BAUD": console["baud"],
        "BOARD_FLASH_BASE": f"0x{ternio['flash']['base']:08X}u",
        "BOARD_FLASH_BYTES": f"{ternio['flash']['bytes']}u",
        "BOARD_WORK_LIMIT": f"{ternio['work_limit']}u",
        "BOARD_FLASH_SLOT_COUNT": sum(len(v) for v in ternio["slots"].values()),
        "BOARD_FLASH_SLOTS": _slot_rows(ternio["slots"]),
        "BOARD_RAM_SLOT_COUNT": sum(len(v) for v in ternio.get("ram_slots", {}).values()),
        "BOARD_RAM_SLOTS": _slot_rows(ternio.get("ram_slots", {})),
    }
    for name, hertz in ternio.get("clock", {}).items():
        facts[f"BOARD_{name.upper()}"] = f"{hertz}u"
    if "base" in console:
        facts["BOARD_CONSOLE_BASE"] = f"{console['base']}u"
        facts["BOARD_CONSOLE_IRQ"] = f"{console['irq']}u"
    if "watchdog" in ternio:
        facts["BOARD_WATCHDOG_BASE"] = f"{ternio['watchdog']['base']}u"
        facts["BOARD_WATCHDOG_HZ"] = f"{ternio['watchdog']['hz']}u"
    if "tx" in console:
        facts["BOARD_CONSOLE_UART"] = int("".join(c for c in console["uart"] if c.isdigit()))
        for name in ("tx", "rx"):
            port, pin = _pin(console[name])
            facts[f"BOARD_CONSOLE_{name.upper()}_PORT"] = port
            facts[f"BOARD_CONSOLE_{name.upper()}_PIN"] = pin
    lines = [f"#define {name} {value}" for name, value in facts.items()]
    head = f"/* Facts of the board `{board}`, generated from boards/{board}.json. */"
    return "\n".join(
        [head, "#ifndef BOARD_CONFIG_H", "#define BOARD_CONFIG_H", "", *lines, "", "#endif", ""]
    )


def memory_ld(manifest: dict) -> str:
    """Text of memory.ld: the linker's regions. RAM ends where the emulator's RAM slots begin."""
    ternio = manifest["ternio"]
    flash, ram = ternio["flash"], ternio["ram"]
    slots = [area["base"] for group in ternio.get("ram_slots", {}).values() for area in group]
    inside = [base for base in slots if base >= ram["base"]]
    ram_bytes = min([ram["base"] + ram["bytes"], *inside]) - ram["base"]
    model = ternio["slots"]["model"][0]
    return (
        "MEMORY\n{\n"
        f"    FLASH (rx) : ORIGIN = 0x{flash['base']:08X}, LENGTH = {flash['firmware_bytes']}\n"
        f"    MODEL (r) : ORIGIN = 0x{model['base']:08X}, LENGTH = {model['bytes']}\n"
        f"    RAM (rwx) : ORIGIN = 0x{ram['base']:08X}, LENGTH = {ram_bytes}\n"
        "}\n"
        f"_stack_bytes = {ternio['stack_bytes']};\n"
    )


def slot_image(kind: str, content: bytes, sequence: int) -> bytes:
    """A slot as it lies in flash: the 64-byte header of storage/slots.h, then the content."""
    fields = struct.pack(
        "<4s4I", SLOT_MAGIC, sequence, len(content), zlib.crc32(content), SLOT_KINDS[kind]
    )
    header = fields + struct.pack("<I", zlib.crc32(fields))
    return header.ljust(SLOT_HEADER_BYTES, b"\xff") + content


def write_if_changed(path: Path, content: bytes) -> None:
    """Writes a file only when it differs, so that a build does not redo what depends on it."""
    path = Path(path)
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
