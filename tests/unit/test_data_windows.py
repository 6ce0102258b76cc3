"""Recordings with a label on every row: windows, the split in time, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ternio import data
from ternio.cli.examples import load_examples
from ternio.errors import DataError


def write(path: Path, stretches: list[tuple[str, int]], header: str = "time,label,a,b") -> Path:
    """A recording whose first channel counts the rows and whose second is constant noise."""
    lines, row = [header], 0
    time = header.startswith("time,")
    for label, count in stretches:
        for _ in range(count):
            cells = [label, str(row), str((row * 37 % 11) / 10)]
            lines.append(",".join([str(row / 50), *cells] if time else cells))
            row += 1
    path.write_text("\n".join(lines) + "\n")
    return path


STRETCHES = [("rest", 100), ("walk", 120), ("rest", 60), ("run", 7), ("run", 90), ("walk", 40)]


def test_windows_lie_inside_one_label_and_tests_share_no_sample_with_training(tmp_path):
    sets = data.load(write(tmp_path / "r.csv", STRETCHES), window=20, stride=5)
    first = [sets.train.x[:, 0, 0], sets.test.x[:, 0, 0]]
    for part, starts in zip((sets.train, sets.test), first, strict=True):
        np.testing.assert_array_equal(part.x[:, :, 0], starts[:, None] + np.arange(20))
        edges = np.cumsum([0, 100, 120, 60, 97, 40])
        owner = np.searchsorted(edges, starts, side="right") - 1
        assert (starts + 20 <= edges[owner + 1]).all()
        names = np.array(["rest", "walk", "rest", "run", "walk"])[owner]
        assert [part.labels[y] for y in part.y] == list(names)
    for label in range(3):
        train, test = (s[p.y == label] for s, p in zip(first, (sets.train, sets.test), strict=True))
        assert len(test) and train.max() + 20 <= test.min()
    assert sets.train.channels == ("a", "b")
    assert any("windows of 20, one every 5" in note for note in sets.notes)


def test_a_separate_test_file_is_cut_without_overlap(tmp_path):
    train = write(tmp_path / "train.csv", STRETCHES)
    test = write(tmp_path / "test.csv", [("walk", 50), ("rest", 20)])
    sets = data.load(train, test, window=20)
    np.testing.assert_array_equal(sets.test.x[:, 0, 0], [0, 20, 50])
    assert len(sets.train) == 9 + 11 + 5 + 8 + 3


def test_numbered_channels_are_a_recording_where_a_window_is_asked_for(tmp_path):
    path = write(tmp_path / "r.csv", [("x", 40), ("y", 40)], "label,acc1,acc2")
    assert data.load(path, window=10).train.channels == ("acc1", "acc2")
    assert data.read(path, channels=2)[0].recording
    assert not data.read(path, channels=3)[0].recording


def test_examples_with_ids_are_cut_too(tmp_path):
    rows = [f"{e},{'ab'[e % 2]},{i}" for e in range(4) for i in range(25)]
    path = tmp_path / "r.csv"
    path.write_text("id,label,v\n" + "\n".join(rows) + "\n")
    sets = data.load(path, window=10, stride=10, test_fraction=0.5)
    assert (len(sets.train), len(sets.test)) == (4, 4)


class Facts:
    """A model of two channels and 20 samples."""

    channels, length, labels = 2, 20, ("rest", "walk", "run")
    input_scale = np.ones(2)


def test_a_board_gets_the_recording_window_by_window(tmp_path):
    examples = load_examples(str(write(tmp_path / "r.csv", STRETCHES)), Facts())
    assert examples.windows.shape == (5 + 6 + 3 + 4 + 2, 20, 2)
    np.testing.assert_array_equal(examples.windows[5, :, 0], np.arange(100, 120))
    assert examples.places[1] == "r.csv:22" and examples.labelled


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--window SAMPLES"),
        ({"window": 121}, "the longest stretch of one label has 120 samples"),
        ({"window": 0}, "--window 0: expected at least 1"),
        ({"stride": 3}, "--stride 3: only with --window"),
        ({"window": 9, "stride": -1}, "--stride -1: expected at least 1"),
        ({"window": 9, "length": 9}, "--window cuts recordings"),
        ({"window": 60, "stride": 60}, "class 'run' has too few windows of 60 samples (1)"),
        ({"window": 9, "test_fraction": 1.5}, "--test-fraction 1.5"),
    ],
    ids=str,
)
def test_refusals(tmp_path, options, words):
    path = write(tmp_path / "r.csv", STRETCHES)
    with pytest.raises(DataError) as caught:
        data.load(path, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)
