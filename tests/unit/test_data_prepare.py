"""From what files hold to windows and integers: missing values, lengths, labels, split, scale."""

import numpy as np
import pytest

from ternio import data
from ternio.data import InputDescription, RawDataset
from ternio.errors import DataError


def raw(series, labels, source="d.csv", **options) -> RawDataset:
    arrays = [np.array(s, dtype=np.float64).reshape(len(s), -1) for s in series]
    names = tuple(f"ch{c}" for c in range(arrays[0].shape[1]))
    places = [f"{source}:{i + 2}" for i in range(len(arrays))]
    return RawDataset(source, arrays, list(labels), names, places, **options)


def refusal(*args, **options) -> str:
    with pytest.raises(DataError) as caught:
        data.prepare(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FOUR = [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_split_is_stratified_and_seeded():
    many = raw([[i, i] for i in range(40)], ["a"] * 30 + ["b"] * 10)
    sets = data.prepare(many, test_fraction=0.2, seed=3)
    assert [int((sets.test.y == k).sum()) for k in (0, 1)] == [6, 2]
    values = np.concatenate([sets.train.x, sets.test.x])[:, 0, 0]
    assert sorted(values) == list(range(40))
    again = data.prepare(many, test_fraction=0.2, seed=3)
    other = data.prepare(many, test_fraction=0.2, seed=4)
    np.testing.assert_array_equal(sets.test.x, again.test.x)
    assert not np.array_equal(sets.test.x, other.test.x)
    assert sets.notes == ["8 of 40 examples set aside for the test (seed 3)"]


def test_labels_keep_the_declared_order_or_are_sorted():
    test = raw([[0, 0]], ["2"], "t.csv")
    assert data.prepare(raw(FOUR, ["10", "2", "10", "2"]), test).train.labels == ("2", "10")
    declared = raw(FOUR, ["b", "a", "b", "a"], classes=("b", "a", "c"))
    sets = data.prepare(declared, raw([[0, 0]], ["a"]))
    assert sets.train.labels == ("b", "a")
    assert "declared but without an example, left out: c" in sets.notes[0]


def test_class_missing_from_the_test_file_is_noted():
    sets = data.prepare(raw(FOUR, "abab"), raw([[0, 0]], ["a"], "t.csv"))
    assert sets.notes == ["t.csv: no test example of b"]
    assert list(sets.test.y) == [0]


def test_label_not_seen_in_training_is_refused():
    text = refusal(raw(FOUR, "abab"), raw([[0, 0], [1, 1]], ["a", "swim"], "t.csv"))
    assert text == "t.csv:3: label 'swim' does not occur in the training data (a, b)"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("aaaa", "every example has the label 'a'"),
        ("abcd", "4 examples and as many different labels"),
        ("aaab", "class 'b' has one example"),
    ],
)
def test_labels_that_cannot_be_learnt(labels, expected):
    assert expected in refusal(raw(FOUR, labels))


def test_missing_values():
    series = [[1, 2, 3], [4, np.nan, 8], [np.nan, 5, np.nan], [7, 8, 9], [0, 0, 0]]
    given, test = raw(series, "abaab"), raw([[0, 0, 0]], ["a"])
    text = refusal(given, test)
    assert text.startswith("d.csv:3, channel 'ch0', sample 2: missing value (in 2 of 5 examples)")
    assert "--nan interpolate" in text
    filled = data.prepare(given, test, nan="interpolate")
    np.testing.assert_array_equal(filled.train.x[1:3, :, 0], [[4, 6, 8], [5, 5, 5]])
    assert np.isnan(given.series[1]).any(), "the input is left as it was"
    dropped = data.prepare(given, test, nan="drop")
    assert len(dropped.train) == 3
    assert "dropped 2 of 5" in dropped.notes[0]
    assert "expected one of refuse, interpolate, drop" in refusal(given, test, nan="zero")


def test_nothing_to_interpolate_or_left_to_drop():
    empty = raw([[np.nan, np.nan], [np.nan, 1], [2, np.nan]], "aba")
    assert "the whole channel is missing" in refusal(empty, nan="interpolate")
    assert "every example has missing values" in refusal(empty, nan="drop")


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("nan", ["refuse", "interpolate", "drop"])
def test_infinite_and_huge_values_are_refused(value, nan):
    text = refusal(raw([[1, 2], [3, value], [5, 6]], "aba"), nan=nan)
    assert text.startswith("d.csv:3, channel 'ch0', sample 2:")


def test_unequal_lengths():
    given = raw([[1, 2, 3], [4], [5, 6], [7, 8]], "abab")
    test = raw([[9, 9], [9, 9]], "ab")
    assert "examples have 1 to 3 samples; choose one length with --length" in refusal(given, test)
    sets = data.prepare(given, test, length=2)
    np.testing.assert_array_equal(sets.train.x[:2, :, 0], [[1, 2], [4, 4]])
    assert sets.notes == ["windows of 2 samples: 1 examples cut, 1 filled up"]
    assert "expected at least 1" in refusal(given, test, length=0)


def test_test_file_must_fit():
    train = raw(FOUR, "abab")
    assert "2 channels, the training data has 1" in refusal(train, raw([[[1, 2]]], ["a"]))
    swapped = raw([[[1, 2]], [[3, 4]], [[5, 6]]], "aba")
    other = raw([[[1, 2]]], ["a"])
    other.channels = ("ch1", "ch0")
    sets = data.prepare(swapped, other)
    np.testing.assert_array_equal(sets.test.x[0], [[2, 1]])
    assert "d.csv: channels ch1, ch0 put in the order of d.csv: ch0, ch1" in sets.notes
    hollow = raw([[1], [2]], "ab")
    hollow.series[1] = hollow.series[1][:0]
    assert "d.csv:3: an example without a single value" in refusal(train, hollow)
    assert "no examples" in refusal(train.select([]))


def windows(*channels) -> data.Dataset:
    x = np.stack([np.asarray(c, dtype=np.float32) for c in channels], axis=-1)
    y = np.zeros(len(x), dtype=np.int32)
    return data.Dataset(x, y, ("a", "b"), tuple(f"c{i}" for i in range(len(channels))))


def test_statistics_and_scale():
    inputs = InputDescription.from_training(windows([[1, 3], [5, 7]], [[2, 2], [2, 2]]))
    np.testing.assert_allclose(inputs.mean, [4, 2])
    np.testing.assert_allclose(inputs.std, [np.sqrt(5), 1], rtol=1e-6)
    np.testing.assert_allclose(inputs.input_scale, [7 * 1.5 / 32767, 2 * 1.5 / 32767], rtol=1e-6)
    assert inputs.remarks(windows([[1, 3]], [[2, 2]])) == ["constant in the training data: c1"]


def test_a_small_signal_on_a_large_constant_is_remarked():
    given = windows([[100000, 100001], [100002, 100001]])
    assert "subtract a constant" in InputDescription.from_training(given).remarks(given)[0]


def test_quantised_windows():
    scale = np.array([0.5], np.float32)
    x = np.array([[0.25], [0.75], [-0.76], [1e9], [-1e9]])
    q = data.quantize_window(x, scale)
    assert q.dtype == np.int16
    assert q.ravel().tolist() == [0, 2, -2, 32767, -32767]
    wide = np.array([0, 127, 129, 384, -32767, 32767], np.int16)
    assert data.to_int8(wide).tolist() == [0, 0, 1, 2, -127, 127]
    assert data.from_int8(data.to_int8(wide)).tolist() == [0, 0, 256, 512, -32512, 32512]


def test_normalised_integers_have_mean_0_and_deviation_1():
    train, _ = data.basic_motions()
    inputs = InputDescription.from_training(train)
    x = inputs.normalize(inputs.quantize(train.x))
    assert x.dtype == np.float32
    flat = x.reshape(-1, 6).astype(np.float64)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(flat.std(axis=0), 1, atol=1e-3)
    assert np.abs(inputs.quantize(train.x)).max() <= 32767 / 1.49


def test_input_description_refuses_what_does_not_fit():
    inputs = InputDescription.from_training(windows([[1, 3], [5, 7]]))
    again = InputDescription.from_dict(inputs.to_dict())
    np.testing.assert_array_equal(again.input_scale, inputs.input_scale)
    with pytest.raises(DataError, match=r"expected \[..., 2, 1\]"):
        inputs.quantize(np.zeros((3, 1)))
    with pytest.raises(DataError, match="NaN"):
        inputs.quantize(np.full((2, 1), np.nan))
    for key, bad in (("std", [0.0]), ("mean", [1, 2]), ("length", 0), ("input_scale", ["x"])):
        with pytest.raises(DataError):
            InputDescription.from_dict({**inputs.to_dict(), key: bad})


def test_reference_data():
    train, test = data.basic_motions()
    assert train.x.shape == test.x.shape == (40, 100, 6)
    assert train.labels == ("Standing", "Running", "Walking", "Badminton")
    assert np.bincount(train.y).tolist() == np.bincount(test.y).tolist() == [10, 10, 10, 10]
    np.testing.assert_array_equal(train.x[0, :3, 0], np.float32([0.079106, 0.079106, -0.903497]))
    inputs = InputDescription.from_training(train)
    flipped = inputs.normalize(data.other_wrist(train).x / inputs.input_scale)
    plain = inputs.normalize(train.x / inputs.input_scale)
    np.testing.assert_allclose(flipped, plain * [1, -1, -1, 1, -1, -1], atol=1e-4)
