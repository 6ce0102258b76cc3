"""What both PlatformIO builders share: flags, generated files, sources, the model section, sizes.

`env` is SCons's construction environment as PlatformIO prepares it.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import boardgen

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes"]
FLOAT_RULES = ["-ffp-contract=off", "-fno-math-errno"]
# Object path and section -> part of the size table, first match wins.
PARTS = [
    ("padding", r"^padding "),
    ("adaptation", r"/runtime.*(adapt|_bwd|backward|optimize|cross_entropy|_log$|_t$|transposed)"),
    ("adaptation", r"/runtime.*(dsp_columns|_slope$)"),
    ("model checks", r"/tr_(blob|check|hash|status)\.o"),
    ("inference", r"/runtime(_asm)?/"),
    ("link", r"/src/link/"),
    ("console", r"/src/console/"),
    ("storage", r"/src/storage/"),
    ("model service", r"/src/model/"),
    ("cbor", r"/zcbor/"),
    ("port", r"/port(_shared)?/"),
    ("core", r"/src/"),
    ("model", r"/model_slot"),
    ("libc", r"\.a(\(| |$)"),
]


def configure(env, emulated: bool) -> None:
    """Adds flags, generated headers, all sources and the model to the build of one board."""
    board = env["BOARD"]
    boards_dir = Path(env.GetProjectConfig().get("platformio", "boards_dir"))
    manifest = boardgen.load_manifest(boards_dir / f"{board}.json")
    family = manifest["ternio"]["family"]
    port = boardgen.find_port(boards_dir, family)
    if port is None:
        raise SystemExit(
            f"error: {board} is of the family {family}, which has no folder in firmware/ports"
        )
    shared = Path(__file__).resolve().parents[1] / "ports" / "cortexm"
    generated = Path(env.subst("$BUILD_DIR")) / "generated"
    config = boardgen.board_config(board, manifest, emulated)
    boardgen.write_if_changed(generated / "board_config.h", config.encode())
    boardgen.write_if_changed(generated / "memory.ld", boardgen.memory_ld(manifest).encode())

    core = manifest["ternio"]["cflags"]
    zcbor = boardgen.zcbor_dir()
    if zcbor is None:
        raise SystemExit("error: the PyPI package zcbor is missing: pip install zcbor==0.9.1")
    sources, runtime = shared.parents[1] / "src", shared.parents[2] / "device"
    env.Append(
        CPPPATH=[
            str(p) for p in (generated, sources, shared, runtime / "include", zcbor / "include")
        ],
        CFLAGS=["-std=gnu11"],
        CCFLAGS=[*core, "-O2", "-g", "-ffunction-sections", "-fdata-sections", *FLOAT_RULES],
        ASFLAGS=core,
        LINKFLAGS=[
            *core,
            "-nostartfiles",
            "--specs=nano.specs",
            "-Wl,--gc-sections,--fatal-warnings",
            f"-Wl,-Map={env.subst('$BUILD_DIR')}/firmware.map",
            f"-L{generated}",
        ],
        LIBS=["c", "gcc"],
    )
    env.Replace(LDSCRIPT_PATH=str(shared / "link.ld"))
    if not manifest["ternio"].get("adapt", True):
        env.Append(CPPDEFINES=["TR_NO_ADAPT"])
    env.Append(CCFLAGS=WARNINGS)
    env.BuildSources("$BUILD_DIR/port", str(port))
    env.BuildSources("$BUILD_DIR/port_shared", str(shared))
    env.BuildSources("$BUILD_DIR/runtime", str(runtime / "src"), "+<**/*.c>")
    env.BuildSources("$BUILD_DIR/runtime_asm", str(runtime / "src"), "+<**/*.S>")
    theirs = {"CCFLAGS": ["$CCFLAGS", *boardgen.ZCBOR_FLAGS]}
    chosen = " ".join(f"+<{name}>" for name in boardgen.ZCBOR_SOURCES)
    for node in env.CollectBuildFiles("$BUILD_DIR/zcbor", str(zcbor / "src"), chosen):
        env.Append(PIOBUILDFILES=[env.Object(node, **theirs)])
    add_model(env, generated)


def add_model(env, generated: Path) -> None:
    """Puts a blob into slot A of the image when TERNIO_MODEL or the option custom_model names one.

    The slot's sequence is the time of the build, so that a model flashed with an image is newer
    than whatever the board had; SOURCE_DATE_EPOCH makes it reproducible.
    """
    name = os.environ.get("TERNIO_MODEL") or env.GetProjectOption("custom_model", "")
    slot = b""
    if name:
        path = Path(name)
        if not path.is_file():
            raise SystemExit(f"error: the model {name} is not a file")
        sequence = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        slot = boardgen.slot_image("model", path.read_bytes(), sequence)
    boardgen.write_if_changed(generated / "model_slot.bin", slot)
    source = generated / "model_slot.S"
    text = f'    .section .model_slot, "a"\n    .incbin "{generated / "model_slot.bin"}"\n'
    boardgen.write_if_changed(source, text.encode())
    node = env.Object("$BUILD_DIR/model_slot.o", str(source))
    env.Depends(node, str(generated / "model_slot.bin"))
    env.Append(PIOBUILDFILES=[node])


def sizes_by_part(map_text: str) -> dict[str, dict[str, int]]:
    """Bytes of flash and RAM per part, summed over the sections that the linker's map lists; what
    lies between them for alignment counts as `padding`. The stack is in no section.
    """
    table: dict[str, dict[str, int]] = {}
    body = map_text.split("Linker script and memory map", 1)[-1]
    body = re.sub(
        r"^( \S+)\n +(0x)", r"\1 \2", body, flags=re.M
    )  # long section names take a line of their own
    pattern = re.compile(r"^( ?)(\S+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?: +(.*))?$", re.M)
    output = ""
    for indent, section, address, size, path in pattern.findall(body):
        bytes_ = int(size, 16)
        if not indent:
            output = section
            continue
        if section == "*fill*":
            section, path = output, "padding"
        section = section.removeprefix(".")
        if not bytes_ or not (int(address, 16) or section == "vectors"):
            continue
        part = next((name for name, rule in PARTS if re.search(rule, f"{path} {section}")), "other")
        row = table.setdefault(part, {"flash": 0, "ram": 0})
        kind = section.split(".")[0]
        if kind in ("text", "rodata", "data", "vectors", "model_slot"):
            row["flash"] += bytes_
        if kind in ("data", "bss", "arena", "noinit", "COMMON"):
            row["ram"] += bytes_
    return {part: row for part, row in table.items() if row["flash"] or row["ram"]}


def print_sizes(target, source, env) -> None:
    """The table that closes a build, also as sizes.json: flash and RAM of every part in bytes."""
    map_path = Path(env.subst("$BUILD_DIR")) / "firmware.map"
    table = sizes_by_part(map_path.read_text(encoding="utf-8"))
    sizes_path = map_path.with_name("sizes.json")
    sizes_path.write_text(json.dumps(table), encoding="utf-8")
    print(f"{'part':<16}{'flash':>9}{'RAM':>9}")
    for part, row in sorted(table.items(), key=lambda item: -item[1]["flash"]):
        print(f"{part:<16}{row['flash']:>9}{row['ram']:>9}")
    total = {kind: sum(row[kind] for row in table.values()) for kind in ("flash", "ram")}
    print(f"{'total':<16}{total['flash']:>9}{total['ram']:>9}")
