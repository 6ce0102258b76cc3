"""A board that ternio does not list: every command takes the user's own manifest. And `bench` on
each board that runs here."""

from __future__ import annotations

import json
import shutil

import pytest

from ternio.boards import load_board
from ternio.paths import share_dir

EMULATED = ["microbit", "netduinoplus2", "mps2_an500", "mps3_an547"]

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(
        shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
        reason="needs an Arm compiler and QEMU",
    ),
]


def test_a_users_own_manifest_with_every_command(user):
    """MPS2 with a Cortex-M3, as boards/README.md describes it."""
    manifest = json.loads((share_dir("boards") / "mps2_an500.json").read_text())
    manifest["name"] = "A board of one's own"
    manifest["ternio"] |= {
        "chip": "AN385",
        "core": "cortex-m3",
        "cflags": ["-mthumb", "-mcpu=cortex-m3"],
        "emulator": {"kind": "qemu", "machine": "mps2-an385"},
        "ram_slots": {
            "model": [{"base": f"0x2100{i}000", "bytes": 32768} for i in "08"],
            "adapter": [{"base": f"0x2102{i}000", "bytes": 8192} for i in "02"],
        },
    }
    (user.folder / "mine.json").write_text(json.dumps(manifest))
    board = ("--board", "./mine.json")
    packed = user.json("pack", "mine.ckpt", "-o", "own.tern", "--rank", 2, *board)
    assert packed["fits"] and packed["board"] == "mine"
    flashed = user.json("flash", "own.tern", *board)
    assert (flashed["how"], flashed["board"], flashed["storage"]) == ("built", "mine", "ram")
    whole = user.json("infer", "test.csv", "--all", "--native", *board)
    assert whole["equals_native"] == 12
    learnt = user.json("adapt", "train.csv", "--steps", 3, *board)
    assert learnt["total_steps"] == 3 and learnt["saved"]
    user.json("pack", "mine.ckpt", "-o", "next.tern", "--name", "next", *board)
    assert user.json("flash", "next.tern", *board)["how"] == "sent"
    bench = user.json("bench", "own.tern", "--runs", 2, *board)
    assert bench["board"] == "mine" and bench["instructions"] > 50_000
    assert user.run("boards", "stop", "./mine.json").stdout == "stopped mine\n"


@pytest.mark.parametrize("name", [*EMULATED, "native"])
def test_bench_on_every_board(user, name):
    facts = user.json("pack", "mine.ckpt", "-o", "it.tern", "--rank", 2, "--board", name)
    bench = user.json("bench", "it.tern", "--board", name, "--runs", 3)
    assert (bench["board"], bench["runs"]) == (name, 3)
    assert bench["arena_bytes"] == facts["infer_arena"] <= bench["arena_has"]
    if name == "native":
        assert bench["us"] > 0
        return
    board = load_board(name)
    assert 50_000 < bench["instructions"] <= bench["most"] < 10_000_000
    assert bench["stack_bytes"] + bench["stack_free"] == board.stack_bytes
    assert 300 < bench["stack_bytes"] < board.stack_bytes - 1024
