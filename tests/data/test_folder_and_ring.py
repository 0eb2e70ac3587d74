"""folder: and ring:, the sources that grow while they are read."""

from __future__ import annotations

import os
import sqlite3
import time

import numpy as np
import pytest

from edgefl.data import load, parse
from edgefl.data.watch import look
from edgefl.errors import DataError, UsageError


def put(folder, name: str, text: str, age_s: float = 60.0) -> None:
    (folder / name).write_text(text)
    os.utime(folder / name, (time.time() - age_s,) * 2)


def test_the_files_of_a_folder_are_one_table_in_the_order_of_their_names(tmp_path):
    put(tmp_path, "2026-02.csv", "b,a,y\n5,4,ok\n")
    put(tmp_path, "2026-01.csv", "a,b,y\n1,2,ok\n2,3,worn\n")
    put(tmp_path, ".2026-03.csv", "broken")
    put(tmp_path, "2026-03.csv.part", "broken")
    (tmp_path / "more.csv").mkdir()
    data = load(f"folder:{tmp_path}?test=0&target=y&labels=ok,worn")
    assert data.x_train.tolist() == [[1, 2], [2, 3], [4, 5]] and data.y_train.tolist() == [0, 1, 0]
    assert data.tally.rows == 3


def test_a_file_that_is_being_written_is_left_for_later(tmp_path):
    put(tmp_path, "a.csv", "a,y\n1,2\n3,4")  # its writer never ends a file with a line end
    put(tmp_path, "b.csv", "a,y\n5,6\n7", age_s=0)
    put(tmp_path, "c.csv", "")
    data = load(f"folder:{tmp_path}?test=0&target=y")
    assert data.y_train.tolist() == [2, 4]
    assert data.tally.text() == "2 files are not whole yet and are left for later"
    put(tmp_path, "b.csv", "a,y\n5,6\n7,8\n", age_s=0)
    assert load(f"folder:{tmp_path}?test=0&target=y").y_train.tolist() == [2, 4, 6, 8]


def test_one_odd_file_does_not_stop_the_others(tmp_path):
    for day in range(8):
        put(tmp_path, f"{day}.csv", f"a,y\n{day},1\n")
    put(tmp_path, "8.csv", "c,y\n8,1\n")
    data = load(f"folder:{tmp_path}?test=0&target=y")
    assert data.x_train.ravel().tolist() == [*range(8)] and data.tally.bad == 1
    assert "no column 'a'" in data.tally.first


def test_no_window_spans_two_files(tmp_path):
    put(tmp_path, "1.csv", "a,y\n" + "1,0\n" * 5)
    put(tmp_path, "2.csv", "a,y\n" + "2,0\n" * 5)
    data = load(f"folder:{tmp_path}?test=0&target=y&window=2")
    assert data.x_train.reshape(4, 2).tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]]


def test_only_the_newest_megabytes_are_read(tmp_path):
    for day in range(4):
        put(tmp_path, f"{day}.csv", "a,y\n" + f"{day},1\n" * 1000)
    spec = f"folder:{tmp_path}?test=0&target=y"
    assert sorted(set(load(f"{spec}&mb=0.009").x_train.ravel())) == [2, 3]
    assert sorted(set(load(f"{spec}&mb=0.000001").x_train.ravel())) == [3], "the newest one, however large"
    with pytest.raises(UsageError, match="more than 0"):
        load(f"{spec}&mb=0")


def test_arrays_of_a_folder(tmp_path):
    for part in range(3):
        np.savez(tmp_path / f"{part}.npz", x=np.full((3, 2), part), y=["ok", "worn", "ok"])
    (tmp_path / "3.npz").write_bytes((tmp_path / "2.npz").read_bytes()[:-30])  # torn
    spec = f"folder:{tmp_path}?test=0&labels=*"
    data = load(spec)
    assert data.x_train[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and data.labels == ("ok", "worn")
    assert (data.tally.rows, data.tally.late) == (9, 1)
    assert load(f"{spec}&window=2").x_train[:, :, 0].tolist() == [[0, 0], [1, 1], [2, 2]]
    np.savez(tmp_path / "4.npz", x=np.zeros((3, 5)), y=["ok"] * 3)
    assert load(spec).tally.bad == 1
    put(tmp_path, "a.csv", "a,y\n1,2\n")
    with pytest.raises(DataError, match=r"has \.csv and \.npz files"):
        load(spec)


def test_an_empty_folder_waits(tmp_path):
    with pytest.raises(DataError, match=r"no \.csv or \.npz file yet"):
        load(f"folder:{tmp_path}?target=y")
    put(tmp_path, "a.csv", "a,y\n1,2\n")
    with pytest.raises(DataError, match="give a folder"):
        load(f"folder:{tmp_path}/a.csv?target=y")
    with pytest.raises(UsageError, match="did you mean 'target'"):
        load(f"folder:{tmp_path}?tarket=y")


def test_a_new_file_is_seen_without_reading(tmp_path):
    kind, rest, options = parse(f"folder:{tmp_path}?target=y")
    assert look(kind, rest, options) == []
    put(tmp_path, "a.csv", "a,y\n1,2\n")
    one = look(kind, rest, options)
    put(tmp_path, "b.csv", "a,y\n1,2\n")
    two = look(kind, rest, options)
    put(tmp_path, "b.csv", "a,y\n1,2\n3,4\n")
    assert len(one) == 1 and two != one and look(kind, rest, options) != two


def test_a_file_that_was_left_for_later_is_seen_when_it_is_whole(tmp_path):
    kind, rest, options = parse(f"folder:{tmp_path}?target=y")
    put(tmp_path, "a.csv", "a,y\n1,2", age_s=0)
    torn = look(kind, rest, options)
    put(tmp_path, "a.csv", "a,y\n1,2", age_s=6)
    stamp = (tmp_path / "a.csv").stat().st_mtime_ns
    os.utime(tmp_path / "a.csv", ns=(stamp, torn[0][1]))
    assert look(kind, rest, options) == torn
    monday = time.time() + 6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgefl.data.folder.time.time", lambda: monday)
        assert look(kind, rest, options) != torn


def test_a_ring_is_read_while_it_is_written(tmp_path):
    writer = sqlite3.connect(tmp_path / "ring.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE ring (id INTEGER PRIMARY KEY, time REAL, hot REAL, state TEXT)")
    spec = f"ring:{tmp_path}/ring.db?test=0&target=state&labels=ok,worn"
    with pytest.raises(DataError, match="no rows of data"):
        load(spec)
    writer.executemany("INSERT INTO ring VALUES (?, ?, ?, ?)", [(i, 10.0 * i, i, "ok") for i in range(20)])
    writer.execute("BEGIN")
    writer.execute("INSERT INTO ring VALUES (99, 0, 0, 'worn')")
    data = load(spec)
    assert data.columns == ("hot",) and data.x_train.ravel().tolist() == [*range(20)]
    writer.execute("COMMIT")
    assert load(f"{spec}&rows=3").x_train.ravel().tolist() == [18, 19, 0]
    assert load(f"{spec}&window=10").x_train.shape == (2, 10, 1), "the clock of the last row was put back"
    writer.close()
