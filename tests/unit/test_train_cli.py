"""`ternio train` on files as a newcomer has them: one line for each refusal, few for success."""

import json
import re

import numpy as np
import pytest
from ternio.checkpoint import load_checkpoint
from ternio.cli import app
from typer.testing import CliRunner

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
    assert "this version trains 'classify'" in refused(good, "--task", "lm")
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


def test_ctrl_c_writes_a_checkpoint(tmp_path, monkeypatch):
    path = long_csv(tmp_path / "data.csv", [8] * 8, ["a", "b"] * 4)
    from ternio import train

    step, calls = train._step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(train, "_step", interrupted)
    result = run(path, "-o", tmp_path / "m.ckpt", *QUICK)
    assert result.exit_code == 130
    assert "4 steps" in result.output
    assert "(interrupted)" in result.output
    assert len(load_checkpoint(tmp_path / "m.ckpt").loss) == 4
