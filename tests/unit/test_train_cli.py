"""`ternio train` on files as a newcomer has them: one line for each refusal, few for success."""

import json
import os
import re
import signal
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from ternio.checkpoint import load_checkpoint, save_checkpoint
from ternio.cli import app
from ternio.data import load_corpus
from ternio.runtime import Model
from ternio.tensor import current_context
from ternio.train import progress

QUICK = ["--steps", "40", "--width", "16", "--heads", "2", "--layers", "1", "--ffn", "16"]


def long_csv(path, lengths, labels, channels=2, seed=0):
    """Noisy sines, of a frequency per label, one row per sample."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    lines = ["id,label," + ",".join(f"ch{c}" for c in range(channels))]
    for i, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        phase = rng.uniform(0, 6, channels)
        for t in range(length):
            values = 5 * np.sin(t * (0.3 + 0.8 * names.index(label)) + phase)
            cells = values + 0.1 * rng.standard_normal(channels)
            lines.append(f"{i},{label}," + ",".join(f"{v:.4f}" for v in cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*args: object):
    return CliRunner().invoke(app, ["train", *map(str, args)])


def refused(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_csv_of_its_own_shape(tmp_path):
    """Three channels, 13 samples (not a multiple of the patch), three classes, a test file."""
    labels = ["sit", "stand", "run"] * 8
    train = long_csv(tmp_path / "train.csv", [13] * 24, labels, channels=3)
    test = long_csv(tmp_path / "other.csv", [13] * 6, ["sit", "run"] * 3, channels=3, seed=1)
    out = tmp_path / "m.ckpt"
    result = run(train, "--task", "classify", "--test", test, "-o", out, "--rate", 50, *QUICK)
    assert result.exit_code == 0, result.output
    assert "24 + 6 examples, 3 channels x 13 samples, 3 classes (run, sit, stand)" in result.output
    assert "no test example of stand" in result.stderr
    assert re.search(r"test    \d of 6 right", result.output)
    found = load_checkpoint(out)
    assert (found.labels, found.inputs.rate_hz) == (("run", "sit", "stand"), 50.0)
    assert (found.config.positions, found.config.ternary) == (4, True)


def test_json_and_a_split_of_its_own(tmp_path):
    path = long_csv(tmp_path / "data.csv", [8] * 20, ["a", "b"] * 10)
    out = tmp_path / "m.ckpt"
    result = run(path, "-o", out, "--json", "--float", "--seed", 2, *QUICK)
    facts = json.loads(result.stdout)
    assert (facts["train_examples"], facts["test_examples"]) == (16, 4)
    assert facts["checkpoint"] == str(out)
    assert facts["ternary_weights"] == 0
    assert facts["notes"] == ["4 of 20 examples set aside for the test (seed 2)"]
    assert np.sum(facts["confusion"]) == 4


def test_threads_change_nothing_but_the_time(tmp_path):
    path = long_csv(tmp_path / "data.csv", [8] * 20, ["a", "b"] * 10)
    found = []
    for threads in (1, 2):
        run(path, "-o", tmp_path / "m.ckpt", "--threads", threads, *QUICK)
        assert current_context().threads == threads
        found.append(load_checkpoint(tmp_path / "m.ckpt").model.state_dict())
    current_context().threads = 1
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value)
    assert run(path, "--threads", 0).exit_code == 2


def test_short_windows_need_no_options(tmp_path):
    path = long_csv(tmp_path / "data.csv", [2] * 20, ["a", "b"] * 10)
    result = run(path, "-o", tmp_path / "m.ckpt", *QUICK)
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "m.ckpt").config.patch == 2


def test_refusals_are_one_line(tmp_path):
    good = long_csv(tmp_path / "good.csv", [8] * 8, ["a", "b"] * 4)
    swim = long_csv(tmp_path / "swim.csv", [8] * 2, ["a", "swim"])
    uneven = long_csv(tmp_path / "uneven.csv", [8, 9] * 4, ["a", "b"] * 4)
    lone = long_csv(tmp_path / "lone.csv", [8] * 4, ["a"] * 4)
    holes = tmp_path / "holes.csv"
    holes.write_text(re.sub(r"(?m)^3,b,[^,]*", "3,b,", good.read_text()))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert "swim.csv:10: label 'swim' does not occur" in refused(good, "--test", swim)
    assert "8 to 9 samples; choose one length with --length" in refused(uneven)
    assert "every example has the label 'a'" in refused(lone)
    assert "holes.csv:26, channel 'ch0': missing value (in 1 of 8 examples)" in refused(holes)
    assert "empty.csv: the file is empty" in refused(empty)
    assert "no such file" in refused(tmp_path / "none.csv")
    assert "width 15 with 4 heads" in refused(good, "--width", 15)
    assert "--task segment: expected classify or lm" in refused(good, "--task", "segment")
    assert "--context is for --task lm; the task is classify" in refused(good, "--context", 8)
    assert "DATA is missing" in refused()
    assert "ends in .png, .svg, .pdf" in refused(good, "--plot", tmp_path / "curve.xls")
    assert "there is no folder" in refused(good, "-o", tmp_path / "none" / "m.ckpt")
    assert "try a lower --lr" in refused(good, "--lr", 1e30, "-o", tmp_path / "m.ckpt")
    assert not (tmp_path / "m.ckpt").exists()


@pytest.mark.parametrize("policy", ["interpolate", "drop"])
def test_holes_and_uneven_lengths_by_option(tmp_path, policy):
    path = long_csv(tmp_path / "data.csv", [8, 9] * 6, ["a", "a", "b", "b"] * 3)
    lines = path.read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ",NaN"
    path.write_text("\n".join(lines))
    result = run(path, "-o", tmp_path / "m.ckpt", "--nan", policy, "--length", 8, *QUICK)
    assert result.exit_code == 0, result.output
    said = (
        "interpolated missing values in 1 of 12" if policy == "interpolate" else "dropped 1 of 12"
    )
    assert said in result.stderr


def interrupt_at(call: int, monkeypatch) -> None:
    """Ctrl-C amid the step that draws the batch of this number."""
    from ternio.train import classify

    augment, calls = classify.augment, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return augment(*args)

    monkeypatch.setattr(classify, "augment", interrupted)


def test_ctrl_c_writes_a_checkpoint_that_goes_on_to_the_bit(tmp_path, monkeypatch):
    path = long_csv(tmp_path / "data.csv", [8] * 20, ["a", "b"] * 10)
    options = ["--batch", 6, "--warmup", 5, "--patience", 9, "--evaluate-every", 3, *QUICK]
    straight, broken = tmp_path / "straight.ckpt", tmp_path / "broken.ckpt"
    assert run(path, "-o", straight, *options).exit_code == 0
    interrupt_at(11, monkeypatch)
    result = run(path, "-o", broken, *options)
    assert result.exit_code == 130
    assert "11 steps" in result.output and "(interrupted)" in result.output
    assert f"next    ternio train {path} --resume {broken}" in result.output
    half = load_checkpoint(broken)
    assert len(half.loss) == 11
    result = run(path, "--resume", broken)
    assert result.exit_code == 0, result.output
    a, b = load_checkpoint(straight), load_checkpoint(broken)
    np.testing.assert_array_equal(b.loss, a.loss)
    assert b.state.validation == a.state.validation
    for name, value in a.model.state_dict().items():
        np.testing.assert_array_equal(b.model.state_dict()[name], value)
    for name, value in a.state.optimizer.items():
        np.testing.assert_array_equal(b.state.optimizer[name], value)


def test_what_cannot_go_on(tmp_path):
    path = long_csv(tmp_path / "data.csv", [8] * 12, ["a", "b"] * 6)
    other = long_csv(tmp_path / "other.csv", [8] * 12, ["a", "b"] * 6, seed=1)
    done = tmp_path / "m.ckpt"
    assert run(path, "-o", done, *QUICK).exit_code == 0
    assert "40 of 40 steps are done; a higher --steps" in refused(path, "--resume", done)
    assert "--width cannot change with --resume" in refused(path, "--resume", done, "--width", 8)
    assert "--float cannot change with --resume" in refused(path, "--resume", done, "--float")
    assert "not the examples that this training began with" in refused(
        other, "--resume", done, "--steps", 50
    )
    assert "trained with --task classify" in refused("text", "--resume", done)
    bare = load_checkpoint(done)
    bare.state = None
    save_checkpoint(done, bare)
    assert "holds no training state" in refused(path, "--resume", done)


def test_a_plot_of_the_loss(tmp_path):
    path = long_csv(tmp_path / "data.csv", [8] * 12, ["a", "b"] * 6)
    for name, start in (("c.png", b"\x89PNG"), ("c.svg", b"<?xml")):
        plot = tmp_path / name
        result = run(path, "-o", tmp_path / "m.ckpt", "--plot", plot, *QUICK)
        assert f"plot    {plot}" in result.output
        assert plot.read_bytes().startswith(start)


def test_no_file_is_written_over_another(tmp_path):
    path = long_csv(tmp_path / "data.csv", [8] * 12, ["a", "b"] * 6)
    test = long_csv(tmp_path / "test.csv", [8] * 4, ["a", "b"] * 2)
    shown = test.rename(tmp_path / "test.svg").read_bytes()
    both, plot = tmp_path / "a.png", tmp_path / "b.png"
    assert "a.png: is the checkpoint itself" in refused(path, "-o", both, "--plot", both)
    assert not both.exists()
    test = tmp_path / "test.svg"
    for options in (["-o", test], ["-o", both, "--plot", test]):
        assert "test.svg: is the test itself" in refused(path, "--test", test, *options)
    data = path.rename(tmp_path / "data.svg")
    assert "data.svg: is the data itself" in refused(data, "-o", both, "--plot", data)
    assert test.read_bytes() == shown
    plot.write_bytes(b"a checkpoint")
    result = refused(data, "--resume", plot, "-o", both, "--plot", plot)
    assert "b.png: is the checkpoint itself" in result


TEXT = ["--width", "16", "--heads", "2", "--layers", "1", "--ffn", "16", "--context", "16"]
TEXT += ["--steps", "60", "--batch", "8", "--lr", "0.02", "--warmup", "5"]


def test_a_text_file(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text("the cat sat on the mat.\n" * 60)
    out = tmp_path / "m.ckpt"
    options = ["--prompt", "the cat", "--sample", "40", "--temperature", "0"]
    result = run("--text", path, "--task", "lm", "-o", out, *TEXT, *options)
    assert result.exit_code == 0, result.output
    assert "data    rhyme.txt: 1368 + 72 characters, vocabulary of 13" in result.output
    assert "float" not in result.output
    loss = float(re.search(r"valid   loss (\d\.\d+) nats per character", result.output)[1])
    assert loss < 1.0
    sample = result.output.split("sample\n")[1].rstrip("\n")
    assert len(sample) in (39, 40) and "at" in sample
    found = load_checkpoint(out)
    assert (found.kind, found.vocabulary.alphabet) == ("lm", "\n .acehmnost")
    again = run(path, "--task", "lm", "-o", out, *TEXT, *options)
    assert again.output.split("sample\n")[1] == result.output.split("sample\n")[1]
    as_json = json.loads(run("--text", path, "-o", out, *TEXT, *options, "--json").stdout)
    assert as_json["sample"].rstrip("\n") == sample
    assert as_json["validation_loss"] == pytest.approx(loss, abs=6e-4)


def test_bytes_and_float(tmp_path):
    path = tmp_path / "umlauts.txt"
    path.write_text("über öde Äcker " * 40, encoding="utf-8")
    out = tmp_path / "m.ckpt"
    result = run("--text", path, "-o", out, "--vocabulary", "bytes", "--float", *TEXT)
    assert "684 + 36 bytes, vocabulary of 256" in result.output
    assert load_checkpoint(out).model.count()[1] == 0


def test_any_file_trains_with_a_vocabulary_of_bytes(tmp_path):
    """UTF-16, NUL and escapes are tokens like others; what a terminal would obey is shown."""
    path, out = tmp_path / "any.bin", tmp_path / "m.ckpt"
    content = b"\xff\xfe" + "\x1b[2J\x00".encode("utf-16-le") * 100 + b"\r\n" * 50
    path.write_bytes(content)
    named = ("--text", path, "-o", out, "--vocabulary", "bytes")
    result = run(*named, *TEXT, "--sample", 40, "--temperature", 0)
    assert result.exit_code == 0, result.output
    assert f"data    any.bin: {len(content) - 55} + 55 bytes, vocabulary of 256" in result.output
    assert "\\x0d" in result.output and "\r" not in result.output
    corpus = load_corpus(path, 16, "bytes")
    assert np.concatenate([corpus.train, corpus.validation]).astype(np.uint8).tobytes() == content
    resumed = run("--text", path, "--resume", out, "--steps", 70, "--sample", 0)
    assert resumed.exit_code == 0, resumed.output
    blob = tmp_path / "m.tern"
    assert CliRunner().invoke(app, ["pack", str(out), "-o", str(blob)]).exit_code == 0
    model = Model.open(blob.read_bytes())
    assert model.tokens("\0") == [0] and model.text([0, 27]) == "\0\x1b"


def test_what_is_there_is_not_overwritten(tmp_path, monkeypatch):
    """Neither the data, nor by default a file of another task or no checkpoint at all."""
    monkeypatch.chdir(tmp_path)
    long_csv(tmp_path / "it.csv", [13] * 8, ["a", "b"] * 4)
    (tmp_path / "it.txt").write_text("to be or not to be " * 60)
    quick = ["--steps", 1, "--width", 16, "--heads", 2, "--layers", 1, "--ffn", 16]
    assert run("it.csv", *quick).exit_code == 0
    kept = (tmp_path / "it.ckpt").read_bytes()
    text = ["--task", "lm", "--context", 16, "--kv-heads", 1, "--sample", 0, *quick]
    assert "it.ckpt is a checkpoint of --task classify" in refused("it.txt", *text)
    assert (tmp_path / "it.ckpt").read_bytes() == kept
    assert run("it.csv", *quick).exit_code == 0
    assert "it.csv: is the data itself" in refused("it.csv", "-o", "it.csv", *quick)
    (tmp_path / "it.txt").rename("it2.ckpt")
    assert "it2.ckpt: is the data itself" in refused("it2.ckpt", *text)
    assert (tmp_path / "it2.ckpt").read_text().startswith("to be")


def test_texts_that_cannot_be_used(tmp_path):
    def written(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        return "--text", tmp_path / name

    assert "e.txt: the file is empty" in refused(*written("e.txt", b" \n"))
    assert "l.txt:2: not UTF-8 text" in refused(*written("l.txt", b"ok\ncaf\xe9 au lait" * 300))
    binary = refused(*written("b.bin", bytes(range(256))))
    assert "b.bin: contains NUL bytes: not a text" in binary
    assert binary.endswith("or train on its bytes: --vocabulary bytes")
    short = refused(*written("s.txt", b"too short"), "--context", 16)
    assert "s.txt: 9 characters; at least 340 are needed for a context of 16" in short
    assert "cannot be read" in refused("--text", tmp_path / "none.txt")
    assert "give one of them" in refused("a.csv", "--text", "b.txt")
    good = written("good.txt", b"abc " * 300)
    assert "--vocabulary words: expected" in refused(*good, "--vocabulary", "words")
    assert "--patch is for --task classify" in refused(*good, "--patch", 4)
    assert "--label is for --task classify; the task is lm" in refused(*good, "--label", "x")
    assert "--prompt is not to be empty" in refused(*good, "--prompt", "")
    assert "--temperature" in refused(*good, "--temperature", "nan")


def test_a_diverged_training_leaves_the_earlier_checkpoint(tmp_path):
    path, out = tmp_path / "rhyme.txt", tmp_path / "m.ckpt"
    path.write_text("the cat sat on the mat.\n" * 60)
    assert run("--text", path, "--task", "lm", "-o", out, *TEXT, "--sample", 0).exit_code == 0
    kept = out.read_bytes()
    wild = [*TEXT[:10], "--batch", 4, "--steps", 8, "--lr", 1e18]
    for more in ([], ["--sample", 0], ["--float"], ["--json"]):
        error = refused("--text", path, "--task", "lm", "-o", out, *wild, *more)
        assert re.search(r"diverged: .* at step 8; try a lower --lr", error)
        assert out.read_bytes() == kept
    windows = long_csv(tmp_path / "data.csv", [8] * 12, ["a", "b"] * 6)
    other = tmp_path / "other.ckpt"
    assert "diverged: " in refused(windows, "-o", other, *QUICK, "--steps", 5, "--lr", 1e18)
    assert not other.exists()


def test_ctrl_c_in_the_sample_keeps_the_report(tmp_path, monkeypatch):
    path, out = tmp_path / "rhyme.txt", tmp_path / "m.ckpt"
    path.write_text("the cat sat on the mat.\n" * 60)

    def generate(*args, **settings):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("ternio.train.generate", generate)
    result = run("--text", path, "--task", "lm", "-o", out, *TEXT)
    assert result.exit_code == 130
    assert f"wrote   {out}" in result.stdout and f"next    ternio pack {out}" in result.stdout
    assert result.stderr == "error: interrupted\n"
    result = run("--text", path, "--task", "lm", "-o", out, *TEXT, "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["checkpoint"], facts["steps"]) == (130, str(out), 60)
    assert "sample" not in facts and not facts["interrupted"]


def test_names_that_look_like_something_else(tmp_path, monkeypatch):
    """Two dollars are no formula, and a dash begins no option."""
    monkeypatch.chdir(tmp_path)
    text = "the cat sat on the mat.\n" * 60
    for name in ("a$x^$", "\u65e5\u672c", "-dash"):
        (tmp_path / f"{name}.txt").write_text(text)
        options = ["--task", "lm", *TEXT, "--steps", 2, "--sample", 0, "--plot", "z.svg"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = run(f"./{name}.txt", *options)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
    assert "next    ternio pack ./-dash.ckpt" in result.stdout
    progress.plot_trace(tmp_path / "z.svg", [{"lambda": 1.0}], "a$x^$")


def test_patience_of_a_classifier_can_end_but_not_begin_with_a_resumption(tmp_path):
    path = long_csv(tmp_path / "data.csv", [8] * 20, ["a", "b"] * 10)
    plain, patient, out = tmp_path / "p.ckpt", tmp_path / "q.ckpt", tmp_path / "r.ckpt"
    often = ["--evaluate-every", 5]
    assert run(path, "-o", plain, *QUICK, *often).exit_code == 0
    error = refused(path, "--resume", plain, "--steps", 60, "--patience", 3)
    assert "set no examples aside to validate on: --patience cannot begin" in error
    assert run(path, "-o", patient, *QUICK, *often, "--patience", 50).exit_code == 0
    for source, steps in ((patient, 60), (out, 70)):
        more = ["--steps", steps, "--patience", 0, "-o", out, "--json"]
        result = run(path, "--resume", source, *more)
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        assert (facts["steps"], facts["best_step"]) == (steps, 0)
        assert len(load_checkpoint(out).state.validation) == steps // 5
