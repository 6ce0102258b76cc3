"""Board manifests: what a board is, how much memory it has, where its console is, whether it can be
emulated.

A manifest is a PlatformIO board file (boards/<name>.json) with a `ternio` block; a user's own is
given by its path.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ternio.errors import BoardError
from ternio.paths import share_dir

CORES_WITH_DSP = ("cortex-m4", "cortex-m4f", "cortex-m7", "cortex-m33")


@dataclass(frozen=True)
class Region:
    """A stretch of memory: address and length in bytes."""

    base: int
    bytes: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.base + self.bytes

    def __str__(self) -> str:
        return f"{self.bytes} bytes at 0x{self.base:08X}"


@dataclass(frozen=True)
class Board:
    """A board as its manifest describes it; sizes in bytes."""

    name: str
    title: str
    family: str
    chip: str
    core: str
    flash: Region
    firmware_bytes: int
    ram: Region
    arena_bytes: int
    stack_bytes: int
    rx_ring_bytes: int
    frame_bytes: int
    window_bytes: int
    work_limit: int
    adapts: bool
    baud: int
    model_slots: tuple[Region, ...]
    adapter_slots: tuple[Region, ...]
    emulator: dict[str, Any]
    verified: str
    path: Path
    ram_model_slots: tuple[Region, ...] = ()
    ram_adapter_slots: tuple[Region, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_native(self) -> bool:
        """True for the board that is a process on this computer."""
        return self.emulator.get("kind") == "process"

    @property
    def merges_rows(self) -> bool:
        """True for a core that is fastest on the layout WD: one with DSP but without Helium."""
        return self.core in CORES_WITH_DSP

    @property
    def is_emulated(self) -> bool:
        """True when the board can run on this computer, in QEMU or as a process."""
        return bool(self.emulator)

    def arena_beside(self, input_bytes: int) -> int:
        """Arena left for a model's programs beside its input: the window, 2 bytes a sample; of a
        token stream 2 bytes a token of context and 4 a token of the vocabulary. An input above
        `window_bytes` takes from the arena (firmware/src/model/model.c)."""
        rest = self.arena_bytes + self.window_bytes - (input_bytes + 15 & ~15)
        return max(0, min(rest, self.arena_bytes))

    def fingerprint(self) -> str:
        """SHA-256 of what a user may change about a board: its manifest, and its family beside."""
        family = sorted((self.path.parent / "ports" / self.family).glob("*.[ch]"))
        contents = b"".join(path.read_bytes() for path in [self.path, *family])
        return hashlib.sha256(contents).hexdigest()

    @property
    def model_slot_bytes(self) -> int:
        """The largest blob that a model slot in flash holds (slots carry a header of 64 bytes)."""
        return min((slot.bytes for slot in self.model_slots), default=64) - 64

    @property
    def adapter_slot_bytes(self) -> int:
        """The largest adapter file that an adapter slot in flash holds."""
        return min((slot.bytes for slot in self.adapter_slots), default=64) - 64

    def adapter_room(self, storage: str) -> int:
        """The largest adapter file that the board stores in its `storage`, as it calls it."""
        if storage != "ram":
            return self.adapter_slot_bytes
        return min((slot.bytes for slot in self.ram_adapter_slots), default=64) - 64


class _Reader:
    """Typed access to a manifest's fields; every complaint names the file and the field."""

    def __init__(self, path: Path, data: Any, where: str = "") -> None:
        self.path, self.data, self.where = path, data, where
        if not isinstance(data, dict):
            self.fail(where or "the file", "an object", data)

    def fail(self, key: str, expected: str, found: Any) -> None:
        raise BoardError(f"{self.path}: {key} should be {expected}, found {json.dumps(found)[:60]}")

    def name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or not value:
            self.fail(self.name(key), "a text", value)
        return value

    def size(self, key: str, least: int = 0) -> int:
        value = self.data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.fail(self.name(key), f"a whole number of at least {least}", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.fail(self.name(key), "true or false", value)
        return value

    def address(self, key: str) -> int:
        value = self.data.get(key)
        try:
            number = int(value, 0) if isinstance(value, str) else -1
        except ValueError:
            number = -1
        if number < 0:
            self.fail(self.name(key), 'an address as text such as "0x20000000"', value)
        return number

    def object(self, key: str) -> _Reader:
        return _Reader(self.path, self.data.get(key), self.name(key))

    def region(self, least: int = 0) -> Region:
        return Region(self.address("base"), self.size("bytes", least))

    def matching(self, key: str, pattern: str, expected: str) -> str:
        value = self.text(key)
        if not re.fullmatch(pattern, value):
            self.fail(self.name(key), expected, value)
        return value

    def regions(self, key: str) -> tuple[Region, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list):
            self.fail(self.name(key), "a list of {base, bytes}", value)
        return tuple(
            _Reader(self.path, item, f"{self.name(key)}[{i}]").region(least=65)
            for i, item in enumerate(value)
        )


def load_manifest(path: Path) -> Board:
    """Reads and checks a manifest. Raises BoardError naming the field that is missing or wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoardError(f"cannot read the board manifest {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BoardError(f"{path} is not JSON: {error}") from None
    top = _Reader(path, data)
    block = top.object("ternio")
    flash, ram = block.object("flash"), block.object("ram")
    link, console = block.object("link"), block.object("console")
    slots = block.object("slots")
    ram_slots = _Reader(path, block.data.get("ram_slots", {}), "ternio.ram_slots")
    emulator = block.data.get("emulator", {})
    if not isinstance(emulator, dict) or (
        emulator and emulator.get("kind") not in ("qemu", "process")
    ):
        block.fail("ternio.emulator", 'an object of the kind "qemu" or "process"', emulator)
    if emulator.get("kind") == "qemu":
        machine = _Reader(path, emulator, "ternio.emulator")
        machine.matching("machine", r"[A-Za-z0-9_.-]+", "the name of a machine of QEMU")
        if "console" in emulator:
            _require_console(machine.object("console"))
    _require_console(console)
    if "watchdog" in block.data:
        watchdog = block.object("watchdog")
        watchdog.address("base")
        watchdog.size("hz", least=1)
    flags = block.data.get("cflags")
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        block.fail("ternio.cflags", "a list of compiler flags", flags)
    clock = _Reader(path, block.data.get("clock", {}), "ternio.clock")
    for key in clock.data:
        clock.size(key, least=1)
    board = Board(
        name=path.stem,
        title=top.text("name"),
        family=block.matching("family", r"[a-z0-9_]+", "a folder's name: a-z, 0-9 and _"),
        chip=block.matching("chip", r"[\w .,()'/+-]+", "a chip's name"),
        core=block.matching("core", r"cortex-m\d+\w*|host", 'a core such as "cortex-m4f"'),
        flash=flash.region(least=1),
        firmware_bytes=flash.size("firmware_bytes"),
        ram=ram.region(least=1),
        arena_bytes=block.size("arena_bytes", least=1),
        stack_bytes=block.size("stack_bytes", least=1024),
        rx_ring_bytes=link.size("rx_ring_bytes", least=1),
        frame_bytes=link.size("frame_bytes", least=128),
        window_bytes=link.size("window_bytes"),
        work_limit=block.size("work_limit", least=1),
        adapts=block.flag("adapt", True),
        baud=console.size("baud", least=1),
        model_slots=slots.regions("model"),
        adapter_slots=slots.regions("adapter"),
        emulator=emulator,
        verified=block.text("verified"),
        path=path,
        ram_model_slots=ram_slots.regions("model"),
        ram_adapter_slots=ram_slots.regions("adapter"),
        manifest=data,
    )
    _require_sound(board)
    return board


def _require_console(console: _Reader) -> None:
    """Raises BoardError for a UART that is given in half: its place and its interrupt go together,
    and so do its pins.
    """
    console.size("baud", least=1)
    if "base" in console.data or "irq" in console.data:
        console.address("base")
        console.size("irq")
    if "tx" in console.data or "rx" in console.data:
        console.matching("uart", r"\D*\d+", "a UART with its number, such as USART1")
        for key in ("tx", "rx"):
            console.matching(key, r"[A-Ka-k]\d+|[Pp]\d+\.\d+", 'a pin such as "A9" or "P0.24"')


def _require_sound(board: Board) -> None:
    """Raises BoardError for a name that PlatformIO does not take, a receive ring that is no power
    of two, memory that is more than RAM, and for slots outside flash or over each other or the
    firmware.
    """
    path = board.path
    if not re.fullmatch(r"[A-Za-z0-9_-]+", board.name):
        raise BoardError(f"{path}: a board's name is of letters, digits, _ and -: rename the file")
    if board.rx_ring_bytes & (board.rx_ring_bytes - 1):
        raise BoardError(
            f"{path}: ternio.link.rx_ring_bytes should be a power of two, found "
            f"{board.rx_ring_bytes}"
        )
    needed = board.arena_bytes + board.stack_bytes + 2 * board.frame_bytes + board.rx_ring_bytes
    if needed > board.ram.bytes:
        raise BoardError(
            f"{path}: arena, stack and link buffers of {needed} bytes do not fit ternio.ram.bytes, "
            f"{board.ram.bytes}"
        )
    for kind, regions in (("model", board.model_slots), ("adapter", board.adapter_slots)):
        if len(regions) < 2:
            raise BoardError(
                f"{path}: ternio.slots.{kind} should have two areas, found {len(regions)}: one is "
                "written while the other one is in use"
            )
    firmware = Region(board.flash.base, board.firmware_bytes)
    slots = [*board.model_slots, *board.adapter_slots]
    for slot in slots:
        if slot.base < board.flash.base or slot.end > board.flash.end:
            raise BoardError(f"{path}: ternio.slots: {slot} lies outside of flash, {board.flash}")
    for areas in ([firmware, *slots], [*board.ram_model_slots, *board.ram_adapter_slots]):
        areas = sorted(areas, key=lambda area: (area.base, area.bytes))
        for one, next_one in itertools.pairwise(areas):
            if one.end > next_one.base:
                raise BoardError(f"{path}: {one} and {next_one} overlap (slots, firmware_bytes)")


def board_names() -> list[str]:
    """Names of the boards that come with ternio, in alphabetical order."""
    return sorted(path.stem for path in share_dir("boards").glob("*.json"))


def load_board(name: str | Path) -> Board:
    """The board called `name`, or the manifest at the path `name` (anything that ends with .json).

    >>> load_board("netduinoplus2").core
    'cortex-m4f'
    """
    if str(name).endswith(".json"):
        return load_manifest(Path(name))
    path = share_dir("boards") / f"{name}.json"
    if not str(name) or "/" in str(name) or not path.is_file():
        known = ", ".join(board_names())
        raise BoardError(
            f"there is no board called {str(name)!r}: known are {known}, or give a .json file"
        )
    return load_manifest(path)
