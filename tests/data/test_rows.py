"""Rows as real tables have them: blanks, text labels, broken ones, other encodings and ways to write numbers."""

from __future__ import annotations

import sqlite3
import tracemalloc

import numpy as np
import pytest

import edgefl
from edgefl.data import load
from edgefl.errors import DataError, UsageError

BLANK = "a,b,y\n1,2,ok\n,4,worn\n5,6,ok\n7,NA,worn\n9,10,\n"
LABELS = "target=y&labels=ok,worn"


@pytest.fixture
def csv(tmp_path):
    """Writes text to a.csv and gives the start of its SPEC."""

    def write(text: str | bytes) -> str:
        (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"csv:{tmp_path}/a.csv?test=0&"

    return write


@pytest.mark.parametrize(
    ("missing", "x", "blank", "filled"),
    [
        ("skip", [[1, 2], [5, 6]], 3, 0),
        ("mean", [[1, 2], [13 / 3, 4], [5, 6], [7, 4]], 1, 2),
        ("value:-1.5", [[1, 2], [-1.5, 4], [5, 6], [7, -1.5]], 1, 2),
    ],
)
def test_blanks(csv, missing, x, blank, filled):
    data = load(f"{csv(BLANK)}{LABELS}&missing={missing}")
    np.testing.assert_allclose(data.x_train, x, rtol=1e-6)
    assert (data.tally.rows, data.tally.bad, data.tally.blank, data.tally.filled) == (5, 0, blank, filled)
    assert data.labels == ("ok", "worn") and data.columns == ("a", "b") and not data.gaps


def test_a_blank_is_a_bad_row_unless_missing_says_what_to_do(csv):
    rows = "".join(f"{i},{i}\n" for i in range(8))
    data = load(f"{csv('a,y' + chr(10) + rows + ',3' + chr(10))}target=y")
    assert len(data.x_train) == 8 and data.tally.text("line") == "1 of 9 lines can't be understood and are left out"
    assert "column 'a': nothing is not a finite number" in data.tally.first


def test_means_come_from_the_training_part_or_from_the_federation(csv):
    rows = "".join(f"{i if i % 5 else ''},{i}\n" for i in range(40))
    spec = csv("a,y\n" + rows).replace("test=0", "test=0.25") + "target=y&missing=mean"
    data = load(spec, seed=3)
    known = np.setdiff1d(data.y_train, np.arange(0, 40, 5))
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        np.testing.assert_allclose(x[y % 5 == 0], known.mean(), rtol=1e-6)
    assert (data.y_test % 5 == 0).any(), "or it shows nothing"
    fixed = load(spec, seed=3, means=np.array([123.0]))
    assert set(fixed.x_train[fixed.y_train % 5 == 0].ravel()) == {123.0}
    with pytest.raises(DataError, match="1 features, and means of 2"):
        load(spec, means=np.zeros(2))


def test_a_mean_is_put_in_before_scaling(csv):
    data = load(f"{csv(BLANK)}{LABELS}&missing=mean&standardize=1")
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-6)
    assert data.x_train[1, 0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "y", "names"),
    [("worn,ok,fault", [1, 0, 1], ("worn", "ok", "fault")), ("*", [0, 1, 0], ("ok", "worn"))],
)
def test_text_labels(csv, labels, y, names):
    data = load(
        f"{csv('a,y' + chr(10) + '1,ok' + chr(10) + '2, worn ' + chr(10) + '3,ok' + chr(10))}target=y&labels={labels}"
    )
    assert (data.y_train.tolist(), data.labels, data.y_train.dtype) == (y, names, np.int64)


@pytest.mark.parametrize("kind", ["kind=classes", "labels=0,1,2", "labels=*"])
def test_labels_that_are_numbers_may_be_written_in_many_ways(csv, kind):
    data = load(
        f"{csv('a,y' + chr(10) + chr(10).join(['1, 1', '1,1.0', '1,2e0', '1,0 ', '1,+1', '1,00']))}target=y&{kind}"
    )
    assert data.y_train.tolist() == [1, 1, 2, 0, 1, 0]


def test_all_labels_that_occur_are_sorted_as_numbers_and_then_as_texts(csv):
    data = load(
        f"{csv('a,y' + chr(10) + chr(10).join(f'1,{name}' for name in ['b', '10', '9', 'a', '10.0']))}target=y&labels=*"
    )
    assert data.labels == ("9", "10", "a", "b") and data.y_train.tolist() == [3, 1, 0, 2, 1]


def test_a_label_of_a_row_that_is_left_out_does_not_count_as_one_that_occurs(csv):
    good = "".join(f"1,{name},d\n" for name in "abab")
    assert load(f"{csv('x,y,d' + chr(10) + good + '2,ghost,' + chr(10))}target=y&device=d&labels=*").labels == (
        "a",
        "b",
    )


def test_labels_that_are_not_as_many_as_the_models_classes_are_refused(csv):
    spec = f"{csv('a,y' + chr(10) + ('1,ok' + chr(10) + '2,worn' + chr(10)) * 20)}target=y&labels=*"
    with pytest.raises(UsageError, match="its labels are 2, and the model has 3 classes: write the same list"):
        edgefl.simulate("mlp:1-3", spec, devices=2, rounds=1)
    assert edgefl.simulate("mlp:1-2", spec, devices=2, rounds=1).rounds


def test_a_class_may_be_called_none(csv):
    data = load(
        f"{csv('a,y' + chr(10) + '1,none' + chr(10) + '2,some' + chr(10))}target=y&labels=none,some&missing=skip"
    )
    assert data.y_train.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("labels=a", "two different names"),
        ("labels=1,1.0", "two different names"),
        ("labels=a,", "two different names"),
        ("labels=a,b&kind=values", "leave out kind=values"),
        ("missing=median", "use skip, mean or value:NUMBER"),
        ("missing=value:x", "use skip, mean or value:NUMBER"),
        ("missing=", "use skip, mean or value:NUMBER"),
        ("bad=1", "0 to below 1"),
        ("bad=x", "finite numbers"),
        ("decimal=;", "decimal="),
        ("decimal=,&thousands=,", "not the sign of decimal"),
        ("encoding=klingon", "encoding=klingon: use utf-8"),
        ("encoding=rot13", "encoding=rot13: use utf-8"),
        ("gap=3", "window=ROWS"),
        ("window=0", "at least 1"),
        ("window=2.5", "at least 1"),
        ("window=1000&step=1", "at most 100"),
        ("window=2&gap=3", "needs time=COL"),
    ],
)
def test_wrong_options_say_what_is_right(csv, options, hint):
    with pytest.raises(UsageError, match=hint):
        load(f"{csv('a,y' + chr(10) + '1,2' + chr(10))}target=y&{options}")
    with pytest.raises(UsageError, match="leave out kind=classes"):
        load(f"{csv('a,y' + chr(10) + '1,2' + chr(10))}target=*&kind=classes")


def test_more_than_a_thousand_labels_are_another_column(csv):
    text = "a,y\n" + "".join(f"1,name{i}\n" for i in range(1001))
    with pytest.raises(DataError, match="more than 1000 different labels"):
        load(f"{csv(text)}target=y&labels=*")


@pytest.mark.parametrize(
    "broken", ["x,2", "1,2,3", "1", '"a"b,2', "inf,2", "1e99,2", "1,", b"\xff\xfe,2", "1_0,2", "\ufffd,1"]
)
def test_a_row_that_is_broken_is_left_out_and_counted(csv, broken):
    good = b"".join(b"%d,%d\n" % (i, i) for i in range(10))
    broken = broken if isinstance(broken, bytes) else broken.encode()
    data = load(f"{csv(b'a,y' + bytes([10]) + good + broken + bytes([10]) + good)}target=y")
    assert data.x_train.ravel().tolist() == [*range(10), *range(10)]
    assert (data.tally.rows, data.tally.bad) == (21, 1)


def test_too_many_broken_rows_are_an_error_that_counts_them(csv):
    text = "a,y\n" + "1,2\n" * 6 + "x,2\n" * 3
    with pytest.raises(DataError, match=r"line 8, column 'a': 'x' is not .*; 3 of 9 lines can't be used$"):
        load(f"{csv(text)}target=y")
    assert load(f"{csv(text)}target=y&bad=0.5").tally.bad == 3
    with pytest.raises(DataError, match="column 'a'"):
        load(f"{csv('a,y' + chr(10) + '1,2' + chr(10) * 9 + '1,2' + chr(10) + 'x,3')}target=y&bad=0")


def test_an_open_quote_costs_the_lines_behind_it_and_not_the_memory(csv):
    text = "a,y\n" + "1,2\n" * 3 + '"1,2\n' + "1,2\n" * 60_000
    with pytest.raises(DataError, match="line"):
        load(f"{csv(text[: 4 + 12 + 5])}target=y&bad=0")
    data = load(f"{csv(text)}target=y")
    assert data.tally.bad == 1 and 20_000 < len(data.x_train) < 60_003


def test_a_line_without_end_is_refused(csv):
    with pytest.raises(DataError, match="line of more than 1048576 characters"):
        load(f"{csv('a,y' + chr(10) + '1' * (2**20 + 5))}target=y")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8", "utf-8-sig"])
def test_encodings(csv, encoding):
    text = "größe,zustand\n1,schön\n2,müde\n3,schön\n"
    spec = f"{csv(text.encode(encoding))}target=zustand&labels=schön,müde&encoding={encoding}"
    data = load(spec)
    assert data.y_train.tolist() == [0, 1, 0] and data.columns == ("größe",)


@pytest.mark.parametrize(
    ("encoding", "hint"), [("utf-16", "utf-16"), ("utf-16-le", "encoding=utf-16"), ("latin-1", "encoding=latin-1")]
)
def test_a_wrong_encoding_says_what_to_write(csv, encoding, hint):
    with pytest.raises(DataError, match=hint):
        load(f"{csv('groß,zustand{0}1,müde{0}'.format(chr(10)).encode(encoding))}target=zustand&labels=schön,müde")
    with pytest.raises(DataError, match=r"BOM|utf-16"):
        load(f"{csv(b'a,y' + bytes([10]) + b'1,2')}target=y&encoding=utf-16")


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        ("decimal=,", ["1234,5", " 1234,5 ", "1234,50", "12345e-1"]),
        ("decimal=,&thousands=.", ["1.234,5", "1234,5", "+1.234,5"]),
        ("thousands=,", ["1,234.5", "1234.5"]),
        ("thousands=space", ["1 234.5", "1\u202f234.5", "1\u00a0234.5"]),
        ("thousands='", ["1'234.5", "1\u2019234.5"]),
    ],
)
def test_other_ways_to_write_numbers(csv, options, cells):
    data = load(
        f"{csv('a;y' + chr(10) + ''.join(f'{cell};1{chr(10)}' for cell in cells))}delimiter=;&target=y&{options}"
    )
    assert data.x_train.ravel().tolist() == [1234.5] * len(cells)


@pytest.mark.parametrize(
    "cell", ["1,23", "1,2345", ",123", "1,234,5", "12 34", "1,234.5.6", "", ".", "-", "1,234e", "٣"]
)
def test_groups_that_are_none_are_no_number(csv, cell):
    with pytest.raises(DataError, match="not a finite number"):
        load(f"{csv(f'a;y{chr(10)}{cell};1{chr(10)}')}delimiter=;&target=y&thousands=,")


def test_the_delimiter_is_hinted_at_and_never_guessed(csv):
    with pytest.raises(DataError, match=r"no column 'y'; its first line has 2 times ';' and no ',': add delimiter=;"):
        load(f"{csv('a;b;y' + chr(10) + '1;2;3' + chr(10))}target=y")
    with pytest.raises(UsageError, match="add delimiter=tab"):
        load(csv("a\tb\n1\t2\n") + "kind=values")


def test_a_name_may_hold_a_comma(csv):
    text = '"temp, in",y\n1,"a,b"\n2,c\n'
    data = load(f"{csv(text)}target=y&features=temp%2C in&labels=c,a%2Cb")
    assert data.columns == ("temp, in",) and data.y_train.tolist() == [1, 0]


def test_an_autoencoder_learns_its_features(csv):
    text = "a,b\n" + "".join(f"{i},{i * i}\n" for i in range(10))
    data = load(f"{csv(text).replace('test=0', 'test=0.2')}target=*&standardize=1")
    assert data.y_train is data.x_train and data.y_test is data.x_test
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-6)
    fixed = load(f"{csv(text)}target=*&mean=1,2&std=2,2")
    assert fixed.x_train[0].tolist() == [-0.5, -1.0] and fixed.y_train is fixed.x_train


def test_sqlite_takes_the_same_options(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (a, y)")
        rows = [(1, "ok"), (None, "worn"), (3.5, "ok"), ("x", "ok"), (5, "worn"), (2, None), (b"\xff", "ok"), (4, "ok")]
        database.executemany("INSERT INTO t VALUES (?, ?)", rows)
    database.close()
    spec = f"sqlite:{tmp_path}/a.db?query=SELECT a, y FROM t&test=0&{LABELS}&missing=mean"
    data = load(spec)
    assert data.y_train.tolist() == [0, 1, 0, 1, 0] and (data.tally.bad, data.tally.blank) == (2, 1)
    np.testing.assert_allclose(data.x_train.ravel(), [1, 13.5 / 4, 3.5, 5, 4])


def test_npz_takes_the_same_options(tmp_path):
    x = np.arange(24.0).reshape(12, 2)
    x[1, 0], x[2, 1], x[3, 0] = np.nan, np.inf, np.nan
    y = np.array(["ok", "worn", "ok", "worn", "?", "ghost", *["ok"] * 6])
    np.savez(tmp_path / "a.npz", x=x, y=y, device_train=np.arange(12))
    spec = f"npz:{tmp_path}/a.npz?test=0&labels=worn,ok"
    data = load(f"{spec}&missing=mean")
    assert data.device_train.tolist() == [0, 1, 3, *range(6, 12)] and data.y_train.tolist() == [1, 0, 0, *[1] * 6]
    assert data.x_train[1, 0] == pytest.approx(np.mean([0, 12, 14, 16, 18, 20, 22]))
    assert (data.tally.rows, data.tally.bad, data.tally.blank) == (12, 2, 1)
    assert load(f"{spec}&missing=value:-3").x_train[1, 0] == -3
    assert load(f"{spec}&missing=skip").device_train.tolist() == [0, *range(6, 12)]
    with pytest.raises(DataError, match=r"y_train: example 1|x_train: example 1 .*5 of 12 examples"):
        load(spec)


def test_npz_labels_that_occur_are_those_of_both_parts(tmp_path):
    x = np.zeros((3, 2))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=["b", "c", "b"], x_test=x, y_test=["a", "c", "b"])
    data = load(f"npz:{tmp_path}/a.npz?labels=*")
    assert (data.labels, data.y_train.tolist(), data.y_test.tolist()) == (("a", "b", "c"), [1, 2, 1], [0, 2, 1])


def test_npz_class_numbers_may_be_floats(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.array([0.0, 2.0, 1.0]))
    assert load(f"npz:{tmp_path}/a.npz?test=0&kind=classes").y_train.dtype == np.int64
    assert load(f"npz:{tmp_path}/a.npz?test=0").y_train.dtype == np.float32


@pytest.mark.parametrize("options", ["", "&missing=mean", "&labels=0,1"])
def test_a_table_takes_four_bytes_a_number(tmp_path, options):
    """Beside them 8 bytes a class, and what an array keeps in reserve while it grows."""
    n, columns = 60_000, 8
    rows = "".join(
        "1.5," * (columns - 1) + ("" if options == "&missing=mean" and i % 9 else "2") + f",{i % 2}\n" for i in range(n)
    )
    (tmp_path / "a.csv").write_text(",".join("abcdefgh") + ",y\n" + rows)
    tracemalloc.start()
    data = load(f"csv:{tmp_path}/a.csv?target=y&test=0{options}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.x_train.shape == (n, columns)
    assert peak < 1.35 * (4 * columns + 8) * n + 200_000


def test_looking_for_flaws_in_wide_arrays_takes_no_memory(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2000, 1000), np.float32), y=np.arange(2000) % 2)
    tracemalloc.start()
    data = load(f"npz:{tmp_path}/a.npz?test=0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * data.x_train.nbytes
