"""Readers of .csv, .npz and .ts: what newcomers' files look like, and what others have wrong."""

import random
from pathlib import Path

import numpy as np
import pytest

from ternio import data
from ternio.errors import DataError

LONG = "id,label,ax,ay\n0,walk,1,2\n0,walk,3,4\n1,run,5,6\n1,run,7,8\n"
WIDE = "label,ax_0,ax_1,ax_2,ay_0,ay_1,ay_2\nwalk,1,2,3,4,5,6\nrun,7,8,9,10,11,12\n"
TS = (
    "% a comment\n@problemName P\n@timeStamps false\n@univariate false\n@dimensions 2\n"
    "@equalLength true\n@seriesLength 3\n@classLabel true run walk\n@data\n"
    "1,2,3:4,5,6:walk\n7,8,9:10,11,12:run\n"
)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, **options) -> str:
    """The text of the refusal, which is one line."""
    with pytest.raises(DataError) as caught:
        data.read(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_long_csv(tmp_path):
    raw, test = data.read(write(tmp_path, "a.csv", LONG))
    assert test is None
    assert raw.channels == ("ax", "ay")
    assert raw.labels == ["walk", "run"]
    np.testing.assert_array_equal(raw.series[1], [[5, 6], [7, 8]])
    assert raw.place(1, 1, 0) == "a.csv:5, channel 'ax'"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + LONG,
        LONG.replace("\n", "\r\n"),
        LONG.replace(",", ";"),
        LONG.replace(",", "\t"),
        LONG.replace(",", " , "),
        LONG + "\n\n",
        LONG.replace("\n", "\n\n"),
        "time,ID,Class,ax,ay\n"
        + "".join(f"0:0{i},{line}\n" for i, line in enumerate(LONG.splitlines()[1:])),
        LONG.replace("walk", '"walk"'),
    ],
    ids=["bom", "crlf", "semicolon", "tab", "spaces", "trailing", "blank", "time-column", "quotes"],
)
def test_long_csv_variants(tmp_path, text):
    raw, _ = data.read(write(tmp_path, "a.csv", text))
    assert (raw.channels, raw.labels) == (("ax", "ay"), ["walk", "run"])
    np.testing.assert_array_equal(np.stack(raw.series), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])


def test_decimal_comma(tmp_path):
    raw, _ = data.read(write(tmp_path, "a.csv", "id;label;x\n0;a;1,5\n0;a;-0,25\n1;b;2\n"))
    np.testing.assert_array_equal(raw.series[0], [[1.5], [-0.25]])


def test_wide_csv(tmp_path):
    raw, _ = data.read(write(tmp_path, "a.csv", WIDE))
    assert raw.channels == ("ax", "ay")
    np.testing.assert_array_equal(raw.series[0], [[1, 4], [2, 5], [3, 6]])
    assert raw.place(1, 2, 1) == "a.csv:3, channel 'ay', sample 3"


@pytest.mark.parametrize("text", ["1,0.5,0.6,0.7\n2,1,2,3\n", "0.5,0.6,0.7,one\n1,2,3,two\n"])
def test_wide_csv_without_header(tmp_path, text):
    raw, _ = data.read(write(tmp_path, "a.txt", text))
    assert raw.labels in (["1", "2"], ["one", "two"])
    np.testing.assert_array_equal(raw.series[0][:, 0], [0.5, 0.6, 0.7])


def test_wide_csv_of_unequal_lengths(tmp_path):
    raw, _ = data.read(write(tmp_path, "a.csv", "label,v0,v1,v2\na,1,2,\nb,1,,3\n"))
    assert [len(s) for s in raw.series] == [2, 3]
    assert np.isnan(raw.series[1][1, 0])


def test_named_columns(tmp_path):
    path = write(tmp_path, "a.csv", "who,what,x\n0,a,1\n1,b,2\n")
    raw, _ = data.read(path, label="what", example_id="who")
    assert raw.labels == ["a", "b"]
    numbered, _ = data.read(write(tmp_path, "b.csv", "what,0,1\na,5,6\nb,7,8\n"), label="what")
    assert numbered.labels == ["a", "b"]
    assert "no column 'why'; found who, what, x" in refusal(path, label="why")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.csv: the file is empty"),
        ("  \n\n", "a.csv: the file is empty"),
        ("id,label,ax\n", "a.csv: a header and no rows"),
        ("label\nwalk\n", "a.csv:1: one column only"),
        (LONG.replace("7,8", "7"), "a.csv:5: 3 cells, expected 4"),
        (LONG.replace("7,8", "7,8,9"), "a.csv:5: 5 cells, expected 4"),
        (LONG.replace("7,8", "7,left"), "a.csv:5, column 'ay': expected a number, got 'left'"),
        (LONG + "0,walk,1,2\n", "a.csv:6: id '0' began in line 2 and comes back"),
        (LONG.replace("1,run,7", "1,walk,7"), "a.csv:5: label 'walk', but id '1' began as 'run'"),
        (LONG.replace("1,run,7", "1,,7"), "a.csv:5: the label is empty"),
        ("id,label\n0,walk\n", "a.csv: no channel columns"),
        ("id,ax,ay\n0,1,2\n", "a.csv: no label column"),
        ("label,ax_0,ay\nwalk,1,2\n", "column 'ay' is not numbered and there is no id column"),
        (WIDE.replace("ax_1", "ax_5"), "'ax' are not numbered in one ascending run"),
        ("label,a_0,a_1,b_0\nw,1,2,3\n", "unequal numbers of columns: 'a' 2, 'b' 1"),
        (b"\xff\xfei\0d\0", "UTF-16"),
        (b"id,label,ax\n0,caf\xe9,1\n", "a.csv:2: not UTF-8"),
        (b"id,label\0,ax\n", "NUL bytes"),
    ],
)
def test_csv_refusals(tmp_path, text, expected):
    assert expected in refusal(write(tmp_path, "a.csv", text))


def test_ts(tmp_path):
    raw, _ = data.read(write(tmp_path, "a.ts", TS))
    assert raw.classes == ("run", "walk")
    assert raw.labels == ["walk", "run"]
    np.testing.assert_array_equal(raw.series[0], [[1, 4], [2, 5], [3, 6]])


def test_ts_missing_values_and_unequal_lengths(tmp_path):
    text = TS.replace("@seriesLength 3\n", "").replace("1,2,3:4,5,6", "1,?:NaN,5")
    raw, _ = data.read(write(tmp_path, "a.ts", text))
    np.testing.assert_array_equal(raw.series[0], [[1, np.nan], [np.nan, 5]])
    assert len(raw.series[1]) == 3


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("@classLabel true run walk", "@classLabel false", "not a labelled problem"),
        ("@timeStamps false", "@timeStamps true", "a.ts:3: series with time stamps"),
        ("@classLabel true run walk", "@targetLabel true", "a regression target"),
        ("@data\n", "", "expected a line starting with @"),
        ("1,2,3:4,5,6:walk\n7,8,9:10,11,12:run\n", "", "no examples after @data"),
        ("4,5,6", "4,5", "a.ts:10: channel 2 has 2 samples, channel 1 has 3"),
        ("1,2,3:4,5,6", "1,2:4,5", "a.ts:10: 2 samples, @seriesLength says 3"),
        ("7,8,9:10,11,12:run", "7,8,9:run", "a.ts:11: 1 channels, expected 2"),
        (":run", ":swim", "a.ts:11: label 'swim' is not among @classLabel run walk"),
        (":run", ":", "a.ts:11: the label after the last colon is empty"),
        ("7,8,9", "7,x,9", "a.ts:11, channel 1, sample 2: expected a number, got 'x'"),
        ("@dimensions 2", "@dimensions two", "a.ts:5: @dimensions needs a positive number"),
        ("1,2,3:4", "(0,1),(1,2):4", "a.ts:10: series with time stamps"),
    ],
)
def test_ts_refusals(tmp_path, old, new, expected):
    assert old in TS
    assert expected in refusal(write(tmp_path, "a.ts", TS.replace(old, new)))


def test_npz_layouts(tmp_path):
    x = np.arange(24.0).reshape(2, 4, 3)
    np.savez(tmp_path / "a.npz", X=x, y=["a", "b"], channels=["p", "q", "r"], rate_hz=50)
    raw, _ = data.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.stack(raw.series), x)
    assert (raw.channels, raw.labels, raw.rate_hz) == (("p", "q", "r"), ["a", "b"], 50)
    np.savez(tmp_path / "b.npz", x=x.transpose(0, 2, 1), y=[1, 0])
    turned, _ = data.read(tmp_path / "b.npz", layout="ncl")
    np.testing.assert_array_equal(np.stack(turned.series), x)
    np.savez(tmp_path / "c.npz", x_train=x[..., 0], y_train=[0, 1], x_test=x[:1, :, 0], y_test=[1])
    train, test = data.read(tmp_path / "c.npz")
    assert train.series[0].shape == (4, 1)
    assert test.labels == ["1"]


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"y": [0, 1]}, "no array 'x'; found y"),
        ({"x": np.zeros((2, 3, 1))}, "no array 'y'; found x"),
        ({"x": np.zeros((2, 3, 1)), "y": [0]}, "2 examples in x and 1 labels in y"),
        ({"x": np.zeros(3), "y": [0, 1, 1]}, "x has shape [3]"),
        ({"x": np.zeros((2, 0, 1)), "y": [0, 1]}, "x has shape [2, 0, 1]"),
        ({"x": np.array(["a", "b"]), "y": [0, 1]}, "expected numbers"),
        ({"x": np.zeros((2, 3, 1)), "y": [0.5, 1]}, "y holds fractions"),
        ({"x": np.zeros((2, 3, 1)), "y": [0, 1], "channels": ["a", "b"]}, "2 channel names for 1"),
        (
            {"x": np.zeros((2, 3, 1)), "y": [0, 2], "labels": ["a", "b"]},
            "y reaches 2, labels has 2",
        ),
        ({"x": np.zeros((2, 3, 1)), "y": [0, 1], "layout": "cln"}, "layout 'cln'"),
        ({"x": np.array([None, 1]), "y": [0, 1]}, "holds Python objects"),
    ],
)
def test_npz_refusals(tmp_path, arrays, expected):
    np.savez(tmp_path / "a.npz", **arrays)
    assert expected in refusal(tmp_path / "a.npz")


def test_damaged_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 300, 1)), y=[0, 1])
    content = (tmp_path / "a.npz").read_bytes()
    assert "is damaged" in refusal(write(tmp_path, "cut.npz", content[: len(content) // 2]))
    assert "not an .npz file" in refusal(write(tmp_path, "text.npz", "id,label\n"))
    assert "the file is empty" in refusal(write(tmp_path, "none.npz", ""))


def test_folders(tmp_path):
    named = tmp_path / "named"
    named.mkdir()
    write(named, "P_TRAIN.ts", TS)
    write(named, "P_TEST.ts", TS.replace("7,8,9", "7,7,7"))
    train, test = data.read(named)
    assert (train.series[1][1, 0], test.series[1][1, 0]) == (8, 7)

    per_class = tmp_path / "classes"
    for label, rows in (("run", "ax,ay\n1,2\n3,4\n"), ("walk", "ax,ay\n5,6\n7,8\n")):
        (per_class / label).mkdir(parents=True)
        write(per_class / label, "1.csv", rows)
    raw, _ = data.read(per_class)
    assert raw.labels == ["run", "walk"]
    assert raw.place(1, 1, 1) == "walk/1.csv:3, channel 'ay'"

    (tmp_path / "empty").mkdir()
    assert "expected one data file" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("kind", ["long", "wide", "ts", "npz"])
def test_mutations_are_read_or_refused_in_one_line(tmp_path, kind):
    """Whatever a byte becomes, a reader gives data or a DataError, never another exception."""
    np.savez(tmp_path / "seed.npz", x=np.arange(12.0).reshape(2, 3, 2), y=["walk", "run"])
    seeds = {"long": LONG.encode(), "wide": WIDE.encode(), "ts": TS.encode()}
    content = seeds.get(kind) or (tmp_path / "seed.npz").read_bytes()
    path = tmp_path / {"ts": "a.ts", "npz": "a.npz"}.get(kind, "a.csv")
    rng = random.Random(kind)
    pieces = [
        b"",
        b",",
        b"\n",
        b":",
        b'"',
        b"NaN",
        b"-",
        b"1e999",
        b"\0",
        b"\xff",
        b";",
        b"@",
        b"id",
    ]
    done = 0
    for _ in range(250):
        mutant = content
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutant) + 1)
            mutant = mutant[:at] + rng.choice(pieces) + mutant[at + rng.randint(0, 2) :]
        path.write_bytes(mutant)
        try:
            train, test = data.read(path)
            done += 1
            data.prepare(train, test, length=3, nan="interpolate")
        except DataError as error:
            assert "\n" not in str(error)
    assert done < 240
    assert done > 0 or kind == "npz"


def test_unknown_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.csv")
    assert "unknown kind of file" in refusal(write(tmp_path, "a.xlsx", "x"))


def test_a_time_column_is_no_channel_and_that_is_said(tmp_path):
    table = tmp_path / "d.csv"
    table.write_text("id,label,t,ax\n" + "".join(f"{i},{'ab'[i % 2]},0.1,{i}\n" for i in range(8)))
    for k, name in enumerate("ab"):
        folder = tmp_path / "folders" / name
        folder.mkdir(parents=True)
        for i in range(4):
            (folder / f"{i}.csv").write_text(f"Sample,ax\n0,{k}\n1,{i}\n")
    for path, said in ((table, "d.csv: 't'"), (tmp_path / "folders", "0.csv: 'Sample'")):
        sets = data.load(path)
        assert sets.train.channels == ("ax",)
        assert sets.notes[0] == f"{said} is taken for the time, not for a channel"
    table.write_text("id,label,time\n0,a,1\n")
    with pytest.raises(DataError, match="no channel columns"):
        data.read(table)
