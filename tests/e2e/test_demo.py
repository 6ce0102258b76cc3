"""`ternio demo motion` keeps its promises, says so, and fails where one is broken."""

from __future__ import annotations

import json
import struct

import pytest


def size_of_png(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def check(user, board: str) -> None:
    said = user.run("demo", "motion", "--board", board, "-o", "out").stdout
    out = user.folder / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] and report["board"] == board
    assert all(promise["kept"] for promise in report["promises"]) and "BROKEN" not in said
    assert len(report["loss"]) == 200
    accuracy = [bar["value"] for bar in report["accuracy"]]
    assert min(accuracy[0], accuracy[1], accuracy[4]) >= 0.975
    assert accuracy[2] <= 0.5 and accuracy[3] >= 0.9
    assert size_of_png((out / "report.png").read_bytes())[0] > 1000
    for name in ("report.png", "report.json", "motion.tern", "wrist.tadp"):
        assert str((out / name).relative_to(user.folder)) in said
    assert not user.json("boards")["running"]
    merged = ("adapter", "merge", "out/motion.tern", "out/wrist.tadp", "-o", "wrist.tern")
    user.run(*merged)
    assert user.json("infer", "motion-other-wrist", "--all", "--model", "wrist.tern")[
        "accuracy"
    ] == pytest.approx(accuracy[3])


def test_on_the_native_board(user):
    check(user, "native")


@pytest.mark.slow
@pytest.mark.emulator
def test_on_the_emulated_board(user):
    check(user, "netduinoplus2")


def test_a_broken_promise_fails(tmp_path, monkeypatch, capsys):
    from ternio import demo, report
    from ternio.report import Account, Promise

    kept = Account("", [], [], {}, [Promise("a", "1", "1", True)])
    broken = Account("", [], [], {}, [*kept.promises, Promise("b", "1", "2", False)])
    assert kept.kept and not broken.kept
    report.print_promises(broken.promises)
    assert "BROKEN" in capsys.readouterr().out
    monkeypatch.setattr(demo, "run_motion", lambda *_, **__: {"kept": False})
    from typer.testing import CliRunner

    from ternio.cli import app

    result = CliRunner().invoke(app, ["demo", "motion", "-o", str(tmp_path)])
    assert result.exit_code == 1 and "every promise" in result.output


def test_a_folder_that_cannot_be_made(user):
    (user.folder / "file").write_text("")
    assert "cannot make the folder" in user.refused("demo", "-o", "file/out")
