"""csv: and sqlite:, the two readers of tables; every bad cell is named by its place."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from edgefl.data import load
from edgefl.errors import DataError, UsageError


@pytest.fixture
def csv(tmp_path):
    """Writes text to a.csv and gives the start of its SPEC."""

    def write(text: str | bytes) -> str:
        (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"csv:{tmp_path}/a.csv?test=0"

    return write


@pytest.fixture
def sqlite(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE readings (hour REAL, watts REAL, house TEXT, note TEXT)")
        rows = [(0.5, 10, "b", "x"), (1.5, 20, "a", "y&z"), (2.5, 30, "b", None)]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)
    database.close()
    return f"sqlite:{tmp_path}/a.db?test=0"


def test_csv_takes_every_other_column_as_a_feature(csv):
    data = load(csv("a, y ,b\n1,10,2\n3,20,4\n") + "&target=y")
    assert (data.x_train.dtype, data.y_train.dtype, data.name) == (np.float32, np.float32, "a.csv")
    assert data.x_train.tolist() == [[1, 2], [3, 4]] and data.y_train.tolist() == [10, 20]
    assert data.device_train is None


def test_csv_features_in_the_order_given_and_labels(csv):
    data = load(csv("a,y,b,c\n1,0,2,text\n3,2.0,4,text\n") + "&target=y&features=b, a&kind=classes")
    assert data.x_train.tolist() == [[2, 1], [4, 3]]
    assert data.y_train.tolist() == [0, 2] and data.y_train.dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "devices"),
    [(("10", "9", "10"), [1, 0, 1]), (("pi-b", "pi-a", "10"), [2, 1, 0]), (("7", "07", "x"), [1, 0, 2])],
)
def test_csv_devices_are_ranked_by_number_or_text(csv, ids, devices):
    text = "a,y,d\n" + "".join(f"1,2,{name}\n" for name in ids)
    data = load(csv(text) + "&target=y&device=d")
    assert data.device_train.tolist() == devices and data.x_train.shape == (3, 1)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a;y\n1;2\n", "delimiter=;"),
        ("a\ty\n1\t2\n", "delimiter=tab"),
        ("a&y\n1&2\n", "delimiter=%26"),
        ('"a","y"\r\n\r\n"1","2"\r\n\r\n', "delimiter=,"),
        ("\ufeffy,a\n 2 ,1e0\n", "kind=values"),
    ],
)
def test_csv_dialects(csv, text, options):
    data = load(f"{csv(text)}&target=y&{options}")
    assert (data.x_train.tolist(), data.y_train.tolist()) == ([[1]], [2])


@pytest.mark.parametrize("cell", ["", "NA", "nan", "inf", "-inf", "1e39", "1_0", "1,5"])
def test_csv_names_the_place_of_a_bad_number(csv, cell):
    spec = csv(f'a,b,y\n1,2,3\n\n4,"{cell}",6\n') + "&target=y"
    shown = repr(cell) if cell else "nothing"
    with pytest.raises(DataError, match=rf"^a\.csv, line 4, column 'b': {shown} is not a finite number: .*features="):
        load(spec)
    assert load(spec + "&features=a").x_train.tolist() == [[1], [4]]


@pytest.mark.parametrize("cell", ["-1", "1.5", "cat", "1e30", ""])
def test_csv_names_the_place_of_a_bad_label(csv, cell):
    hint = "; for classes that are text, add labels=A,B" if cell == "cat" else ""
    with pytest.raises(DataError, match=rf"line 3, column 'y': .* is not a .*: repair or delete the line{hint}$"):
        load(csv(f"a,y\n1,0\n2,{cell}\n") + "&target=y&kind=classes")


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("", "target=y", "is empty"),
        ("\na,y\n", "target=y", "begins with an empty line"),
        ("a,y\n", "target=y", "no lines of data"),
        ("a,y\n1,2\n1,2,3\n", "target=y", "line 3: 3 cells under a header of 2"),
        ("a,y\n1\n", "target=y", "line 2: 1 cells under a header of 2"),
        ("a,a,y\n1,2,3\n", "target=y", "two columns named 'a'"),
        ("height,weight\n1,2\n", "target=wieght", "no column 'wieght': did you mean 'weight'"),
        ("height,weight\n1,2\n", "target=weight&features=hieght", "did you mean 'height'"),
        ("height,weight\n1,2\n", "target=weight&device=house", "no column 'house'"),
        ("y\n1\n", "target=y", "no column left"),
        ("a,y,d\n1,2,\n", "target=y&device=d", "column 'd': nothing is not a device id"),
        ('a,y\n1,"2\n', "target=y", "line 2: unexpected end of data"),
        ('a,"y\n1,2\n', "target=y", "line 2: unexpected end of data"),
        (b"a,y\n\xff,2\n", "target=y", "not UTF-8"),
    ],
)
def test_unusable_csv(csv, text, options, problem):
    with pytest.raises(DataError, match=problem):
        load(f"{csv(text)}&{options}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("features=a", "add target=COL"),
        ("target=y&features=a,a", "twice"),
        ("target=y&features=a,y", "or the target"),
        ("target=y&kind=labels", "one of values, classes"),
        ("target=y&delimiter=", "one character"),
        ("target=y&delimiter=;;", "one character"),
        ("target=y&feature=a", "did you mean 'features'"),
    ],
)
def test_wrong_csv_options(csv, options, problem):
    with pytest.raises(UsageError, match=problem):
        load(csv("a,y\n1,2\n") + "&" + options)


def test_csv_folder_is_not_a_file(tmp_path):
    with pytest.raises(DataError, match="can't read"):
        load(f"csv:{tmp_path}?target=y")


def test_sqlite_reads_a_query_with_devices(sqlite):
    query = "SELECT hour, watts, house FROM readings WHERE hour>=0 ORDER BY hour"
    data = load(f"{sqlite}&query={query}&target=watts&device=house")
    assert data.x_train.tolist() == [[0.5], [1.5], [2.5]] and data.y_train.tolist() == [10, 20, 30]
    assert data.device_train.tolist() == [1, 0, 1]


def test_sqlite_query_may_hold_an_escaped_ampersand_and_a_question_mark(sqlite):
    query = "SELECT hour, watts FROM readings WHERE note='y%26z' AND note<>'?'"
    assert load(f"{sqlite}&query={query}&target=watts").y_train.tolist() == [20]


@pytest.mark.parametrize(
    ("query", "error", "problem"),
    [
        ("SELECT hour, watts, note FROM readings", DataError, "row 1, column 'note': 'x' is not a finite"),
        ("SELECT watts, note FROM readings WHERE note IS NULL", DataError, "row 1, column 'note': nothing is"),
        ("SELECT hour, watts FROM readings WHERE 0", DataError, "no rows of data"),
        ("SELECT hour, hour, watts FROM readings", DataError, "two columns named 'hour'"),
        ("SELECT hour FROM readings", DataError, "no column 'watts'"),
        ("SELECT hour FROM reading", DataError, "no such table"),
        ("DELETE FROM readings", DataError, "readonly"),
        ("SELECT 1; SELECT 2", DataError, "one statement"),
        ("PRAGMA user_version=1", DataError, "readonly"),
        ("BEGIN", UsageError, "give a SELECT"),
    ],
)
def test_unusable_query(sqlite, query, error, problem):
    with pytest.raises(error, match=problem):
        load(f"{sqlite}&query={query}&target=watts")


def test_sqlite_wants_a_database(tmp_path):
    (tmp_path / "a.db").write_text("a,y\n1,2\n" * 100)
    with pytest.raises(DataError, match="not a database"):
        load(f"sqlite:{tmp_path}/a.db?query=SELECT a, y FROM t&target=y")


def test_davis_weight_from_height(shared):
    spec = f"csv:{shared}/data/height_weight/davis_200.csv?target=weight"
    with pytest.raises(DataError, match="line 2, column 'sex': 'M' is not a finite number"):
        load(spec)
    data = load(spec + "&features=height&test=0.1")
    assert data.x_train.shape == (180, 1) and data.x_test.shape == (20, 1)
    everything = load(spec + "&features=height&test=0")
    assert everything.x_train[11].tolist() == [57] and everything.y_train[11] == 166
    by_sex = load(spec + "&features=height&device=sex&test=0")
    assert np.bincount(by_sex.device_train).tolist() == [112, 88]


def test_bdims_all_columns(shared):
    spec = f"csv:{shared}/data/height_weight/bdims_507.csv?target=wgt&test=0"
    data = load(spec)
    assert data.x_train.shape == (507, 25) and data.y_train[0] == np.float32(65.6)
    scaled = load(spec + "&features=hgt&standardize=1")
    slope = float(scaled.x_train[:, 0] @ scaled.y_train) / 507  # the correlation of height and weight
    assert slope == pytest.approx(0.717, abs=5e-4)
