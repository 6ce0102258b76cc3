"""Board manifests: the shipped ones are whole, a user's own is read by path, mistakes are named."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from ternio.boards import board_names, load_board
from ternio.errors import BoardError
from ternio.firmware import pio
from ternio.paths import share_dir


@pytest.fixture
def manifest() -> dict:
    path = share_dir("boards") / "netduinoplus2.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_shipped_manifests_are_whole():
    assert {"microbit", "native", "netduinoplus2"} <= set(board_names())
    for name in board_names():
        board = load_board(name)
        assert board.name == name
        assert board.arena_bytes + board.stack_bytes < board.ram.bytes
        assert board.frame_bytes <= board.arena_bytes


def test_facts_of_the_reference_board():
    board = load_board("netduinoplus2")
    assert (board.flash.bytes, board.ram.bytes) == (1 << 20, 128 << 10)
    assert board.flash.base == 0x08000000
    assert board.model_slot_bytes == (256 << 10) - 64
    assert board.is_emulated and not board.is_native
    assert load_board("native").is_native


def test_slots_do_not_overlap():
    for name in board_names():
        board = load_board(name)
        slots = sorted(board.model_slots + board.adapter_slots, key=lambda slot: slot.base)
        assert len(slots) == 4
        for a, b in pairwise(slots):
            assert a.base + a.bytes <= b.base
        assert slots[-1].base + slots[-1].bytes <= board.flash.base + board.flash.bytes


def test_a_users_own_manifest_by_path(manifest, tmp_path):
    manifest["ternio"]["arena_bytes"] = 12345
    path = tmp_path / "desk.json"
    path.write_text(json.dumps(manifest))
    board = load_board(path)
    assert (board.name, board.arena_bytes) == ("desk", 12345)


def test_unknown_names_say_which_there_are():
    for name in ("nope", "", "../boards/native"):
        with pytest.raises(BoardError, match="netduinoplus2"):
            load_board(name)


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        (["ternio"], None, "ternio should be an object"),
        (["ternio", "arena_bytes"], "much", "ternio.arena_bytes should be a whole number"),
        (["ternio", "arena_bytes"], True, "ternio.arena_bytes"),
        (["ternio", "flash", "base"], 0, "ternio.flash.base should be an address"),
        (["ternio", "flash", "base"], "0xZZ", "ternio.flash.base should be an address"),
        (["ternio", "ram"], [], "ternio.ram should be an object"),
        (["ternio", "link", "frame_bytes"], 64, "ternio.link.frame_bytes"),
        (["ternio", "slots", "model"], {}, "ternio.slots.model should be a list"),
        (["ternio", "slots", "model"], [{"base": "0x0", "bytes": 8}], r"slots.model\[0\].bytes"),
        (["ternio", "emulator"], {"kind": "bochs"}, "ternio.emulator"),
        (["ternio", "emulator"], {"kind": "qemu"}, "ternio.emulator.machine should be a text"),
        (["ternio", "family"], "", "ternio.family should be a text"),
        (["ternio", "link", "rx_ring_bytes"], 1000, "rx_ring_bytes should be a power of two"),
        (["ternio", "watchdog"], {"base": "0x4"}, "ternio.watchdog.hz"),
        (
            ["ternio", "slots", "model", 1, "base"],
            "0x08050000",
            "bytes at 0x08020000 and .*overlap",
        ),
        (["ternio", "flash", "firmware_bytes"], 131073, "131073 bytes at 0x08000000 and .*overlap"),
        (["ternio", "slots", "adapter", 1, "base"], "0x080FFFFF", "lies outside of flash"),
        (["ternio", "ram_slots", "model", 0, "base"], "0x200233C0", "overlap"),
        (["ternio", "slots", "adapter"], [], "slots.adapter should have two areas, found 0"),
        (["ternio", "console"], {"baud": 9600, "base": "0x4000"}, "console.irq should be a whole"),
        (["ternio", "console"], {"baud": 9600, "irq": 3}, "console.base should be an address"),
        (["ternio", "console", "tx"], "PC6", 'console.tx should be a pin such as "A9"'),
        (["ternio", "console", "uart"], "main", "console.uart should be a UART with its number"),
        (["ternio", "emulator", "console", "rx"], 5, "emulator.console.rx should be a text"),
        (["name"], None, "name should be a text"),
        (["ternio", "core"], "z80", "ternio.core should be a core such as"),
        (["ternio", "cflags"], "-mthumb", "ternio.cflags should be a list of compiler flags"),
        (["ternio", "family"], "../../etc", "ternio.family should be a folder's name"),
        (["ternio", "chip"], 'x"\n#error', "ternio.chip should be a chip's name"),
        (["ternio", "clock", "cpu_hz"], 0, "ternio.clock.cpu_hz should be a whole number"),
        (["ternio", "arena_bytes"], 10**30, "do not fit ternio.ram.bytes"),
        (["ternio", "stack_bytes"], 1, "ternio.stack_bytes should be a whole number of at least"),
        (["ternio", "emulator", "machine"], "a b", "emulator.machine should be the name of"),
    ],
)
def test_a_wrong_field_is_named(manifest, tmp_path, keys, value, complaint):
    part = manifest
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(BoardError, match=complaint) as caught:
        load_board(path)
    assert "mine.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_no_build_takes(manifest, tmp_path):
    path = tmp_path / "my board.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(BoardError, match=r"letters, digits, _ and -: rename the file"):
        load_board(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff\xfe"])
def test_a_file_that_is_no_manifest(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BoardError, match=r"mine\.json"):
        load_board(path)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(BoardError, match="No such file"):
        load_board(tmp_path / "none.json")


def test_ram_slots_below_ram_do_not_shorten_it(tmp_path):
    manifest = json.loads((share_dir("boards") / "mps2_an500.json").read_text())
    manifest["ternio"]["ram_slots"]["model"][0]["base"] = "0x10000000"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(manifest))
    boardgen = pio._boardgen()
    regions = boardgen.memory_ld(boardgen.load_manifest(path))
    assert "RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4194304\n" in regions
    manifest["ternio"]["ram_slots"]["model"][0]["base"] = "0x20300000"
    path.write_text(json.dumps(manifest))
    assert "LENGTH = 3145728\n" in boardgen.memory_ld(boardgen.load_manifest(path))


def test_a_family_beside_a_manifest_is_among_the_sources(manifest, tmp_path, monkeypatch):
    """By whatever path the manifest is named: a changed family is to be built anew."""
    family = tmp_path / "ports" / "mine"
    family.mkdir(parents=True)
    (family / "chip.c").write_text("/* a chip */\n")
    manifest["ternio"]["family"] = "mine"
    (tmp_path / "own.json").write_text(json.dumps(manifest))
    monkeypatch.chdir(tmp_path)
    for name in ("./own.json", "own.json", str(tmp_path / "own.json")):
        folder = pio._port_folder(load_board(name))
        assert family / "chip.c" in pio._source_files(folder, "platform")
