"""`ternio pack`, `ternio inspect` and the account of a board's memory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ternio._engine")

from typer.testing import CliRunner

from ternio.blob import Blob, read_blob
from ternio.blob.c_array import identifier
from ternio.boards import load_board
from ternio.checkpoint import save_checkpoint
from ternio.cli import app
from ternio.compile import Options, account, pack_checkpoint, require_fit
from ternio.compile.fit import blob_parts
from ternio.errors import FitError
from ternio.paths import share_dir
from test_compile_trace import CONFIGS, checkpoint_of


@pytest.fixture(scope="module")
def motion() -> Blob:
    return pack_checkpoint(checkpoint_of(CONFIGS["motion"]))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "traced.ckpt"
    save_checkpoint(path, checkpoint_of(CONFIGS["motion"]))
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_pack_writes_a_blob_and_says_so(checkpoint: Path) -> None:
    result = run("pack", checkpoint)
    assert result.exit_code == 0, result.output
    blob = read_blob(checkpoint.with_suffix(".tern"))
    assert blob.name == "traced"
    assert f"{blob.infer_arena} bytes to infer" in result.output
    assert f"wrote {checkpoint.with_suffix('.tern')}" in result.output.replace("\n", "")


def test_options_reach_the_blob(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.tern"
    options = ("--rank", 2, "--scale", 0.5, "--targets", "head, *.o", "--float", "i8")
    result = run("pack", checkpoint, "-o", out, *options, "--json")
    facts = json.loads(result.output)
    blob = read_blob(out)
    names = ["blocks.0.attention.o", "blocks.1.attention.o", "head"]
    assert facts["adapters"] == [x.name for x in blob.adapters] == names
    assert {(x.rank, x.scale) for x in blob.adapters} == {(2, 0.5)}
    assert next(t for t in blob.tensors if t.name == "head").dtype == "I8"
    assert facts["bytes"] == out.stat().st_size == sum(facts["parts"].values())
    bare = run("pack", checkpoint, "-o", out, "--no-adapt", "--json")
    assert json.loads(bare.output)["adapt_arena"] == 0
    assert read_blob(out).adapters == ()


def test_a_model_too_large_for_a_board_ends_with_2_and_the_bytes(checkpoint: Path) -> None:
    result = run("pack", checkpoint, "--board", "microbit", "--kv", "float")
    assert result.exit_code == 2
    board = load_board("microbit")
    options = Options(adapt=False, kv="float", arena_limit=board.arena_bytes)
    size = pack_checkpoint(checkpoint_of(CONFIGS["motion"]), options).infer_arena
    over = size - board.arena_bytes
    text = f"infer arena needs {size} of {board.arena_bytes}, {over} too many"
    assert text in " ".join(result.output.split())
    assert not checkpoint.with_suffix(".tern").exists()


def test_motion_fits_the_smallest_board(checkpoint: Path) -> None:
    result = run("pack", checkpoint, "--board", "microbit", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["fits"]
    assert facts["adapt_arena"] == 0
    assert facts["key_bytes"] == 8000
    assert facts["agreement"] is None  # made without data


def test_pack_writes_over_no_file_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "own.json"
    manifest.write_bytes((share_dir("boards") / "microbit.json").read_bytes())
    for options, expected in (
        (["-o", manifest], "own.json: is the manifest itself"),
        (["--c-array", manifest], "own.json: is the manifest itself"),
        (["-o", tmp_path / "x.h", "--c-array", tmp_path / "x.h"], "x.h: is the blob itself"),
    ):
        result = run("pack", checkpoint, "--board", manifest, *options)
        assert result.exit_code == 1 and expected in result.output


def test_the_c_array_is_the_blob(checkpoint: Path, tmp_path: Path) -> None:
    header = tmp_path / "model.h"
    assert run("pack", checkpoint, "--c-array", header).exit_code == 0
    text = header.read_text()
    body = text[text.index("= {\n") + 4 : text.rindex("\n};")]
    assert bytes(int(n) for n in body.replace(",", " ").split()) == (
        checkpoint.with_suffix(".tern").read_bytes()
    )
    blob = read_blob(checkpoint.with_suffix(".tern"))
    assert f"TRACED_INFER_ARENA = {blob.infer_arena}," in text
    assert f"TRACED_LENGTH = {blob.io.length}," in text
    assert f"TRACED_CHANNELS = {blob.io.channels}," in text
    compiler = shutil.which("cc")
    if compiler:
        source = tmp_path / "use.c"
        source.write_text('#include "model.h"\nint main(void) { return traced_blob[0] != 84; }\n')
        flags = ["-std=c99", "-Werror", "-o", tmp_path / "use"]
        subprocess.run([compiler, *flags, source], check=True)
        subprocess.run([tmp_path / "use"], check=True)


def test_names_in_c_are_distinct_and_identifiers() -> None:
    assert [identifier(n) for n in ("a-b 1", "1st")] == ["a_b_1", "model_1st"]
    names = [
        "手势",
        "走路",
        "жест",
        "ü",
        "é",
        "ü1",
        "é1",
        "größe",
        "groß",
        "--",
        "!!",
        "_",
        "__",
        "🙂",
    ]
    words = [identifier(name) for name in names]
    assert len(set(words)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z]\w*", word, re.ASCII) for word in words)
    assert words[:1] + words[7:8] == ["model_u624bu52bf", "gru00f6u00dfe"]


def test_a_model_that_fits_shows_the_account(checkpoint: Path) -> None:
    result = run("pack", checkpoint, "--board", "netduinoplus2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["fits"]
    needs = {p["name"]: p["needs"] for p in facts["account"]}
    assert needs["ternary weights"] == 2 * (4 * 64 * 64 + 3 * 64 * 128) // 4
    assert needs["model slot"] == facts["bytes"]
    assert needs["adapt arena"] == facts["adapt_arena"]


def test_the_account_adds_up(motion: Blob) -> None:
    board = load_board("netduinoplus2")
    parts = {p.name: p for p in account(motion, board)}
    assert sum(blob_parts(motion).values()) == len(motion.encode())
    reserved = ("arena, reserved", "input", "link buffers", "stack", "firmware's variables")
    assert parts["reserved together"].needs == sum(parts[name].needs for name in reserved)
    assert parts["link buffers"].needs == board.rx_ring_bytes + 2 * board.frame_bytes
    assert not any(p.missing for p in parts.values())
    assert require_fit(motion, board)


def test_what_is_too_large_is_named_alone(motion: Blob) -> None:
    board = load_board("netduinoplus2")
    tight = replace(board, arena_bytes=motion.adapt_arena - 16)
    with pytest.raises(FitError, match=r"adapt arena needs .*, 16 too many .*--no-adapt") as info:
        require_fit(motion, tight)
    assert info.value.exit_code == 2
    assert "infer arena" not in str(info.value)
    slot = replace(board.model_slots[0], bytes=64 + len(motion.encode()) - 1)
    with pytest.raises(FitError, match=r"model slot needs \d+ of \d+, 1 too many \(bytes\)$"):
        require_fit(motion, replace(board, model_slots=(slot,)))


def test_inspect_shows_sections_tensors_programs_and_boards(motion: Blob, tmp_path: Path) -> None:
    path = tmp_path / "motion.tern"
    path.write_bytes(motion.encode())
    shown = run("inspect", path, "--programs")
    assert shown.exit_code == 0, shown.output
    for part in ("IODS", "blocks.0.attention.q", "T2", "LOOP down", "OPTIMIZE", "microbit"):
        assert part in shown.output
    assert motion.digest.hex() in shown.output
    facts = json.loads(run("inspect", path, "--json", "--programs").output)
    assert facts["digest"] == motion.digest.hex()
    assert len(facts["programs"]["adapt"]) == len(motion.adapt.code)
    assert facts["boards"]["netduinoplus2"]["fits"]
    assert not facts["boards"]["microbit"]["fits"]
    microbit = {p["name"] for p in facts["boards"]["microbit"]["account"]}
    assert "adapt arena" not in microbit  # it does not adapt


@pytest.mark.parametrize(
    ("command", "content", "text"),
    [
        ("inspect", None, "No such file"),
        ("inspect", b"", "does not begin with TERN"),
        ("inspect", b"TERN", "truncated"),
        ("pack", b"PK", "not a ternio checkpoint"),
    ],
)
def test_bad_files_are_one_line(command: str, content: bytes | None, text: str, tmp_path: Path):
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    result = run(command, path)
    assert result.exit_code == 1
    assert text in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_a_name_too_long_for_a_blob_can_be_given_anew(tmp_path: Path) -> None:
    made = checkpoint_of(CONFIGS["odd"])
    made.name = "a name that no header of a blob can hold"
    save_checkpoint(tmp_path / "long.ckpt", made)
    refused = run("pack", tmp_path / "long.ckpt")
    assert refused.exit_code == 1
    assert "1 to 31 bytes expected; see --name" in " ".join(refused.output.split())
    assert run("pack", tmp_path / "long.ckpt", "--name", "short").exit_code == 0
    assert read_blob(tmp_path / "long.tern").name == "short"


def test_a_board_that_is_not_known_is_refused(checkpoint: Path) -> None:
    result = run("pack", checkpoint, "--board", "toaster")
    assert result.exit_code == 1
    assert "toaster" in result.output
