"""The whole road with a user's own table: train, pack, flash, infer, monitor, adapt, adapter. No
code written.
"""

from __future__ import annotations

import json
import os
import signal
import time

from road_user import CLASSES, write_examples

from ternio.blob import Blob


def test_the_road(user, board):
    flashed = user.json("flash", "mine.tern", "--board", board)
    assert flashed["how"] == ("sent" if board == "native" else "built")
    assert flashed["model"] == "train" and flashed["board"] == board
    assert user.json("flash", "mine.tern", "--board", board)["how"] == "kept"
    (running,) = user.json("boards")["running"]
    assert (running["board"], running["port"]) == (board, flashed["port"])

    whole = user.json("infer", "test.csv", "--all", "--native")
    assert whole["accuracy"] >= 0.9 and whole["equals_native"] == 12
    one = user.json("infer", "test.csv", "--index", 5, "--native")
    here = user.json("infer", "test.csv", "--index", 5, "--model", "mine.tern")
    assert one["logits"] == here["logits"] and one["class"] == here["class"]
    assert one["label"] == "shake" and one["equals_native"]

    # Another mounting: two channels change sign, the model fails, the board learns.
    turned = ("--gain", "-1,-1,1")
    before = user.json("infer", "test.csv", "--all", *turned)
    learnt = user.json("adapt", "train.csv", *turned, "--steps", 60, "--lr", 0.01, "--seed", 2)
    assert learnt["total_steps"] == 60 and learnt["saved"] and len(learnt["loss"]) == 60
    after = user.json("infer", "test.csv", "--all", "--native", *turned)
    assert after["accuracy"] >= max(0.75, before["accuracy"])
    adapted = user.json("infer", "test.csv", "--index", 5)

    pulled = user.json("adapter", "pull", "-o", "mine.tadp")
    assert pulled["bytes"] == (user.folder / "mine.tadp").stat().st_size > 64
    assert user.json("adapter", "reset")["adapter"] == "none"
    assert user.json("infer", "test.csv", "--index", 5)["logits"] == one["logits"]
    pushed = user.json("adapter", "push", "mine.tadp")
    assert (pushed["adapter"], pushed["steps"]) == ("attached", 60)
    assert user.json("infer", "test.csv", "--index", 5)["logits"] == adapted["logits"]

    user.run("adapter", "merge", "mine.tern", "mine.tadp", "-o", "merged.tern")
    merged = user.json("infer", "test.csv", "--index", 5, "--model", "merged.tern")
    assert merged["logits"] == adapted["logits"] != one["logits"]

    sent = user.json("flash", "merged.tern", "--board", board)
    assert sent["how"] == "sent" and sent["digest"] != flashed["digest"]
    assert user.json("infer", "test.csv", "--index", 5)["logits"] == adapted["logits"]
    assert user.json("boards", "stop", board) == {"stopped": [board]}
    assert user.json("boards")["running"] == []
    assert user.json("boards", "stop") == {"stopped": []}


def test_the_installed_command(user):
    """Boards outlive the commands that start and use them."""
    user.real = True
    flashed = user.json("flash", "mine.tern", "--board", "native")
    assert user.json("infer", "test.csv", "--native", "--port", flashed["port"])["equals_native"]
    assert user.run("boards", "stop").stdout == "stopped native\n"
    assert "no port" in user.refused("infer", "test.csv", "--port", flashed["port"])


def test_what_people_read(user):
    """The same commands without --json say what they did in a few lines."""
    flashed = user.run("flash", "mine.tern", "--board", "native").stdout
    assert "sent mine.tern" in flashed and "next: ternio infer" in flashed
    one = user.run("infer", "test.csv", "--native").stdout.splitlines()
    assert one[0].startswith("test.csv:2 (labelled idle): ") and " us" in one[0]
    assert one[1].startswith("logits: idle ") and "bit for bit" in one[2]
    table = user.run("infer", "test.csv", "--all").stdout
    assert "accuracy " in table and all(label in table for label in CLASSES)
    assert "adapter stored" in user.run("adapt", "train.csv", "--steps", 5).stdout
    boards = user.run("boards").stdout
    assert "running: virtual board native on /dev/" in boards and "model train" in boards


def test_a_board_without_an_adapter_says_so(user):
    user.run("flash", "mine.tern", "--board", "native")
    for what in ("pull", "save"):
        assert "has no adapter, train answers as it was packed" in user.refused("adapter", what)


def test_columns_in_another_order_are_found_by_their_names(user):
    user.run("flash", "mine.tern", "--board", "native")
    rows = [line.split(",") for line in (user.folder / "test.csv").read_text().splitlines()]
    turned = "\n".join(",".join([*row[:2], *row[:1:-1]]) for row in rows)
    (user.folder / "turned.csv").write_text(turned)
    done = user.run("infer", "turned.csv", "--all", "--json")
    assert "channels gz, ay, ax put in the order of the model: ax, ay, gz" in done.stderr
    straight = user.json("infer", "test.csv", "--all")
    assert json.loads(done.stdout)["confusion"] == straight["confusion"]


def test_an_adaptation_that_does_harm_is_undone(user):
    user.run("flash", "mine.tern", "--board", "native")
    user.run("adapt", "train.csv", "--steps", 5)
    user.run("adapter", "pull", "-o", "good.tadp")
    refused = user.refused("adapt", "train.csv", "--steps", 40, "--lr", 1)
    assert "adapting did harm: " in refused and "has its earlier adapter again" in refused
    user.run("adapter", "pull", "-o", "still.tadp")
    assert (user.folder / "still.tadp").read_bytes() == (user.folder / "good.tadp").read_bytes()
    forced = user.json("adapt", "train.csv", "--steps", 40, "--lr", 1, "--force")
    assert forced["kept"] and forced["saved"] and forced["after"]["loss"] > forced["before"]["loss"]


def test_monitor(user):
    user.run("flash", "mine.tern", "--board", "native")
    feed = ("monitor", "--feed", "test.csv", "--interval", 0)
    lines = user.run(*feed, "--json", "--count", 5).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["infer"] * 5
    assert events[0]["class"] == user.json("infer", "test.csv")["class"]
    assert user.run(*feed, "--count", 2).stdout.count("infer  ") == 2
    assert user.run("monitor", "--seconds", 0.3).stdout == ""
    watching = user.start(*feed, "--json")
    assert json.loads(watching.stdout.readline())["event"] == "infer"
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=20)
    assert (watching.returncode, err) == (0, "")
    time.sleep(0.1)
    assert user.json("infer", "test.csv")["p"] > 0


def test_a_busy_port_is_said(user):
    user.run("flash", "mine.tern", "--board", "native")
    watching = user.start("monitor", "--feed", "test.csv", "--json")
    watching.stdout.readline()
    assert "in use by another program" in user.refused("infer", "test.csv")
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=20)


def test_a_board_that_dies_is_one_line(user):
    user.run("flash", "mine.tern", "--board", "native")
    watching = user.start("monitor", "--feed", "test.csv", "--interval", 0, "--json")
    watching.stdout.readline()
    os.kill(user.json("boards")["running"][0]["pid"], signal.SIGKILL)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 1
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert "no board answers" in user.refused("infer", "test.csv")


def test_a_board_that_hangs_is_replaced(user):
    user.run("flash", "mine.tern", "--board", "native")
    (stuck,) = user.json("boards")["running"]
    os.kill(stuck["pid"], signal.SIGSTOP)
    assert "no answer from" in user.refused("infer", "test.csv")
    assert user.json("flash", "mine.tern", "--board", "native")["model"] == "train"
    (running,) = user.json("boards")["running"]
    assert running["pid"] != stuck["pid"]
    assert user.json("infer", "test.csv", "--native")["equals_native"]


def test_bad_models_never_reach_a_board(user):
    user.run("flash", "mine.tern", "--board", "native")
    good = user.json("infer", "test.csv")["logits"]
    whole = (user.folder / "mine.tern").read_bytes()
    for name, data in {
        "cut.tern": whole[:-16],
        "flipped.tern": whole[:400] + bytes([whole[400] ^ 1]) + whole[401:],
        "empty.tern": b"",
        "text.tern": b"not a model",
    }.items():
        (user.folder / name).write_bytes(data)
        user.refused("flash", name, "--board", "native")
        user.refused("infer", "test.csv", "--model", name)
        user.refused("adapter", "merge", name, name, "-o", "out.tern")
    (user.folder / "wrong.tadp").write_bytes(b"TADP" + bytes(200))
    user.refused("adapter", "push", "wrong.tadp")
    assert not (user.folder / "out.tern").exists()
    assert user.json("infer", "test.csv")["logits"] == good


def test_a_merge_never_overwrites_what_it_reads(user):
    user.run("flash", "mine.tern", "--board", "native")
    user.run("adapt", "train.csv", "--steps", 2)
    user.run("adapter", "pull", "-o", "some.tadp")
    before = (user.folder / "mine.tern").read_bytes()
    for output in ("mine.tern", "./some.tadp"):
        said = user.refused("adapter", "merge", "mine.tern", "some.tadp", "-o", output)
        assert "name another file" in said
    assert (user.folder / "mine.tern").read_bytes() == before


def test_a_label_column_of_any_name(user):
    table = (user.folder / "test.csv").read_text().replace("label", "T\u00e4tigkeit", 1)
    (user.folder / "other.csv").write_text(table, encoding="utf-8")
    user.run("flash", "mine.tern", "--board", "native")
    assert "--label" in user.refused("infer", "other.csv")
    named = ("--label", "T\u00e4tigkeit")
    same = user.json("infer", "test.csv", "--all")
    assert user.json("infer", "other.csv", "--all", *named)["confusion"] == same["confusion"]
    assert user.json("adapt", "other.csv", "--steps", 1, *named)["steps"] == 1


def test_adapting_far_too_fast_is_refused(user):
    user.run("flash", "mine.tern", "--board", "native")
    for rate in ("1e30", "1e39", "0", "nan"):
        assert "--lr" in user.refused("adapt", "train.csv", "--lr", rate)
    assert user.json("infer", "test.csv", "--native")["equals_native"]


def test_a_wrong_file_is_named(user):
    (user.folder / "junk.tern").write_bytes(b"junk")
    for words in (
        ("flash", "junk.tern", "--board", "native"),
        ("bench", "junk.tern", "--board", "native"),
        ("infer", "test.csv", "--model", "junk.tern"),
        ("generate", "--model", "junk.tern"),
        ("inspect", "junk.tern"),
        ("adapter", "merge", "junk.tern", "junk.tern", "-o", "out.tern"),
        ("adapter", "merge", "mine.tern", "junk.tern", "-o", "out.tern"),
        ("pack", "junk.tern"),
    ):
        assert "junk.tern" in user.refused(*words), words
    assert not (user.folder / "out.tern").exists()


def test_a_model_too_large_for_a_board_says_by_how_much(user):
    large = ("--width", 128, "--layers", 3, "--heads", 4, "--ffn", 256, "--steps", 1)
    user.run("train", "train.csv", "-o", "large.ckpt", *large)
    user.run("pack", "large.ckpt", "-o", "large.tern")
    done = user.run("pack", "large.ckpt", "-o", "small.tern", "--board", "microbit", status=2)
    assert done.stderr.startswith("error: ") and "bytes" in done.stderr
    assert not (user.folder / "small.tern").exists()
    assert "bytes" in user.refused("flash", "large.tern", "--board", "microbit", status=2)


def test_data_that_does_not_fit_the_model(user):
    user.run("flash", "mine.tern", "--board", "native")
    write_examples(user.folder / "two.csv", 2, 0, channels=("a", "b"))
    assert "2 channels, the model has 3" in user.refused("infer", "two.csv")
    text = (user.folder / "test.csv").read_text()
    (user.folder / "unknown.csv").write_text(text.replace(",turn,", ",spin,"))
    assert "no class 'spin'" in user.refused("infer", "unknown.csv")
    (user.folder / "gap.csv").write_text(text.replace("\n0,idle,", "\n0,idle,NaN,", 1)[:-1] + "\n")
    assert "gap.csv" in user.refused("infer", "gap.csv")
    (user.folder / "empty.csv").write_text("")
    assert "empty" in user.refused("adapt", "empty.csv")
    assert "--index 99" in user.refused("infer", "test.csv", "--index", 99)
    write_examples(user.folder / "part.csv", 4, 1, classes=CLASSES[:2])
    assert user.json("infer", "part.csv", "--all")["examples"] == 8


def test_a_model_without_adaptation(user):
    user.run("pack", "mine.ckpt", "-o", "fixed.tern", "--no-adapt")
    assert Blob.decode((user.folder / "fixed.tern").read_bytes()).adapt is None
    user.run("flash", "fixed.tern", "--board", "native")
    assert user.json("infer", "test.csv", "--all", "--native")["equals_native"] == 12
    assert "without adaptation" in user.refused("adapt", "train.csv")
    user.refused("adapter", "pull")


def test_a_board_without_a_model_says_so(user):
    from ternio.boards import load_board
    from ternio.firmware import pio
    from ternio.link.virtual import VirtualBoards

    virtual = VirtualBoards(user.folder.parent / "state" / "boards")
    virtual.start(load_board("native"), pio.build_native())
    for words in (["infer", "test.csv"], ["adapt", "train.csv"], ["adapter", "pull"]):
        assert user.refused(*words)
    assert "no model" in user.refused("infer", "test.csv")
    assert "no model" in user.run("boards").stdout
