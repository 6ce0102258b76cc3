"""Data files as windows for a model that exists: every form and every mistake."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ternio import data
from ternio.cli.examples import load_examples, parse_factors
from ternio.errors import DataError
from ternio.link.teach import choose_examples, step_order

MODEL = SimpleNamespace(
    channels=2, length=4, labels=("sit", "walk"), input_scale=np.array([0.5, 0.25], np.float32)
)
ROWS = np.arange(8.0).reshape(4, 2)


def long_csv(path, examples, channels=("ax", "ay")):
    """One row per sample: id, label, channels."""
    lines = ["id,label," + ",".join(channels)]
    for i, (label, rows) in enumerate(examples):
        lines += [f"{i},{label}," + ",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_labelled_table(tmp_path):
    path = long_csv(tmp_path / "d.csv", [("walk", ROWS), ("sit", ROWS + 1)])
    examples = load_examples(path, MODEL)
    assert examples.windows.dtype == np.int16 and examples.windows.shape == (2, 4, 2)
    assert np.array_equal(examples.windows[0], ROWS / [0.5, 0.25])
    assert examples.classes.tolist() == [1, 0] and examples.labelled
    assert examples.places[1] == "d.csv:6" and not examples.notes


def test_bare_table_and_npy(tmp_path):
    table = tmp_path / "w.csv"
    table.write_text("ax,ay\n" + "\n".join(f"{a},{b}" for a, b in ROWS))
    array = tmp_path / "w.npy"
    np.save(array, ROWS)
    for path in (table, array):
        examples = load_examples(str(path), MODEL)
        assert np.array_equal(examples.windows, [ROWS / [0.5, 0.25]])
        assert not examples.labelled
    np.save(array, np.stack([ROWS, ROWS * 2]))
    assert len(load_examples(str(array), MODEL)) == 2
    table.write_text("ax,ay\n" + "1,2\n" * 12)
    assert load_examples(str(table), MODEL).windows.shape == (3, 4, 2)


def test_other_lengths_are_cut_or_held_and_said(tmp_path):
    path = long_csv(tmp_path / "d.csv", [("sit", ROWS[:3]), ("sit", np.vstack([ROWS, ROWS]))])
    examples = load_examples(path, MODEL)
    assert np.array_equal(examples.windows[0][3], ROWS[2] / [0.5, 0.25])
    assert np.array_equal(examples.windows[1], ROWS / [0.5, 0.25])
    assert "3 to 8 samples" in examples.notes[0]


def test_values_beyond_the_range_saturate(tmp_path):
    path = long_csv(tmp_path / "d.csv", [("sit", ROWS * 1e6)])
    assert load_examples(path, MODEL).windows.max() == 32767


def test_gain(tmp_path):
    path = long_csv(tmp_path / "d.csv", [("sit", ROWS)])
    flipped = load_examples(path, MODEL, gain="1,-1").windows
    assert np.array_equal(flipped, load_examples(path, MODEL).windows * [1, -1])
    for text in ("1", "1,2,3", "1,x", "1,nan", ""):
        with pytest.raises(DataError, match="--gain"):
            parse_factors("--gain", text, 2)


def test_mirror_is_about_the_means_of_the_training_set(tmp_path):
    """ax has the mean 3.5 in training, ay 4.5; the test file's own means do not matter."""
    long_csv(tmp_path / "d_train.csv", [("walk", ROWS), ("sit", ROWS + 1)])
    long_csv(tmp_path / "d_test.csv", [("walk", ROWS * 3)])
    flipped = load_examples(str(tmp_path), MODEL, mirror="1,-1").windows
    expected = ROWS * 3
    expected[:, 1] = 2 * 4.5 - expected[:, 1]
    assert np.array_equal(flipped, [expected / [0.5, 0.25]])
    np.save(tmp_path / "w.npy", ROWS)
    with pytest.raises(DataError, match=r"w\.npy has no training set"):
        load_examples(str(tmp_path / "w.npy"), MODEL, mirror="1,-1")
    with pytest.raises(DataError, match="--mirror 1: 1 factors, the model has 2 channels"):
        load_examples(str(tmp_path), MODEL, mirror="1")


def test_mirrored_motion_is_the_other_wrist():
    train, _ = data.basic_motions()
    inputs = data.InputDescription.from_training(train)
    model = SimpleNamespace(
        channels=6, length=100, labels=train.labels, input_scale=inputs.input_scale
    )
    mirrored = load_examples("motion", model, mirror="1,-1,-1,1,-1,-1").windows
    other = load_examples("motion-other-wrist", model).windows
    assert np.abs(mirrored.astype(int) - other).max() <= 1


def test_the_other_wrist_by_name():
    from ternio import data

    train, _ = data.basic_motions()
    inputs = data.InputDescription.from_training(train)
    facts = SimpleNamespace(
        channels=6, length=100, labels=train.labels, input_scale=inputs.input_scale
    )
    mine = load_examples("motion", facts, part="train")
    other = load_examples("motion-other-wrist", facts, part="train")
    assert np.array_equal(mine.classes, train.y)
    assert np.array_equal(mine.windows, inputs.quantize(train.x))
    assert np.array_equal(other.windows, inputs.quantize(data.other_wrist(train).x))
    assert not np.array_equal(mine.windows, other.windows)


@pytest.mark.parametrize(
    ("examples", "channels", "words"),
    [
        ([("fly", ROWS)], ("ax", "ay"), "no class 'fly'; its classes are sit, walk"),
        ([("sit", ROWS[:, :1])], ("ax",), "1 channels, the model has 2"),
        ([("sit", [[1, "x"]])], ("ax", "ay"), "d.csv:2"),
        ([("sit", [[1, ""]])], ("ax", "ay"), "d.csv:2.*missing value"),
        ([("sit", [[1, "inf"]])], ("ax", "ay"), "d.csv:2"),
    ],
)
def test_mistakes_in_a_table(tmp_path, examples, channels, words):
    path = long_csv(tmp_path / "d.csv", examples, channels)
    with pytest.raises(DataError, match=words) as caught:
        load_examples(path, MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 3)), r"shape \[4, 3\]"),
        (np.zeros(8), r"shape \[8\]"),
        (np.zeros((0, 4, 2)), "shape"),
        (np.full((4, 2), np.nan), "missing or infinite"),
        (np.array([["a", "b"]]), "expected"),
        (np.array([[None, None]]), "not a .npy file of numbers"),
    ],
)
def test_mistakes_in_an_array(tmp_path, array, words):
    np.save(tmp_path / "w.npy", array)
    with pytest.raises(DataError, match=words):
        load_examples(str(tmp_path / "w.npy"), MODEL)


def test_missing_files_and_parts(tmp_path):
    for name in ("none.csv", "none.npy", "none"):
        with pytest.raises(DataError, match="none"):
            load_examples(str(tmp_path / name), MODEL)
    with pytest.raises(DataError, match="--part"):
        load_examples("motion", MODEL, part="valid")


def test_examples_are_chosen_per_class_by_seed():
    classes = np.array([0] * 30 + [1] * 5 + [2] * 30)
    chosen = choose_examples(classes, 10, seed=3)
    assert np.bincount(classes[chosen]).tolist() == [10, 5, 10]
    assert len(set(chosen.tolist())) == 25
    assert np.array_equal(chosen, choose_examples(classes, 10, seed=3))
    assert not np.array_equal(chosen, choose_examples(classes, 10, seed=4))


def test_every_example_is_taken_once_a_round():
    order = step_order(7, 24, seed=0)
    assert len(order) == 24
    for i in range(3):
        assert sorted(order[7 * i : 7 * i + 7]) == list(range(7))


def named(*names):
    """What asks a model for its channels' names."""
    return lambda: names


def test_columns_go_by_the_names_that_the_model_has(tmp_path):
    straight = load_examples(long_csv(tmp_path / "a.csv", [("sit", ROWS)]), MODEL)
    asked = long_csv(tmp_path / "b.csv", [("sit", ROWS[:, ::-1])], ("AY", "ax"))
    turned = load_examples(asked, MODEL, named("ax", "ay"))
    assert np.array_equal(turned.windows, straight.windows)
    assert turned.notes == ["b.csv: channels AY, ax put in the order of the model: ax, ay"]
    wide = np.column_stack([ROWS[:, 0], 7 * ROWS[:, 0], ROWS[:, 1]])
    more = long_csv(tmp_path / "c.csv", [("sit", wide)], ("ax", "heat", "ay"))
    picked = load_examples(more, MODEL, named("ax", "ay"))
    assert np.array_equal(picked.windows, straight.windows)
    assert picked.notes == ["c.csv: heat left out, no channel of the model"]
    bare = tmp_path / "d.csv"
    bare.write_text("ay,ax\n" + "\n".join(f"{b},{a}" for a, b in ROWS))
    turned = load_examples(str(bare), MODEL, named("ax", "ay"))
    assert np.array_equal(turned.windows, straight.windows)


def test_columns_without_known_names_go_by_position(tmp_path):
    path = long_csv(tmp_path / "a.csv", [("sit", ROWS)], ("p", "q"))
    straight = load_examples(path, MODEL)
    assert not straight.notes
    for names in ((), ("ch0", "ch1"), ("x", "x")):
        assert not load_examples(path, MODEL, named(*names)).notes
    said = load_examples(path, MODEL, named("ax", "ay"))
    assert said.notes == ["a.csv: channels p, q taken by position for ax, ay of the model"]
    assert np.array_equal(said.windows, straight.windows)
    with pytest.raises(
        DataError, match=r"a.csv: no channel 'r': the model has q, r, the file p, q"
    ):
        load_examples(path, MODEL, named("q", "r"))


def test_mirror_with_channels_in_another_order(tmp_path):
    """The means are those of the channel, wherever its column is."""
    long_csv(tmp_path / "d_train.csv", [("walk", ROWS), ("sit", ROWS + 1)], ("ay", "ax"))
    long_csv(tmp_path / "d_test.csv", [("walk", ROWS * 3)], ("ay", "ax"))
    flipped = load_examples(str(tmp_path), MODEL, named("ax", "ay"), mirror="1,-1").windows
    expected = np.stack([ROWS[:, 1] * 3, 2 * 3.5 - 3 * ROWS[:, 0]], axis=-1)
    assert np.array_equal(flipped[0], expected / [0.5, 0.25])


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_of_data_without_parts_is_refused(tmp_path, part):
    """Else all would be taken for it; without the option all it is, whatever the usual part."""
    array, table = tmp_path / "w.npy", long_csv(tmp_path / "d.csv", [("sit", ROWS), ("walk", ROWS)])
    np.save(array, ROWS)
    for source, count in ((str(array), 1), (table, 2)):
        with pytest.raises(DataError, match=f"--part {part}: .* has no parts train and test"):
            load_examples(source, MODEL, part=part)
        assert len(load_examples(source, MODEL, usual_part=part)) == count


def test_parts_of_a_folder(tmp_path):
    long_csv(tmp_path / "my_train.csv", [("sit", ROWS)] * 3)
    long_csv(tmp_path / "my_test.csv", [("walk", ROWS)] * 2)
    for options, count in (({}, 2), ({"part": "test"}, 2), ({"part": "train"}, 3),
                           ({"usual_part": "train"}, 3)):  # fmt: skip
        assert len(load_examples(str(tmp_path), MODEL, **options)) == count
