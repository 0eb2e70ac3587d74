"""Hostile tables: whatever stands in a file, reading it ends in a sound Dataset or in one typed error without a value.

What a correct reader gives is computed here by a slow one, cell by cell.
"""

from __future__ import annotations

import io
import math
import re
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefl.data import Dataset, load, parse
from edgefl.data.survey import survey
from edgefl.errors import DataError, EdgeFLError, UsageError
from edgefl.protocol.trouble import Trouble

SECRET = "Canary"  # in every cell that is text; may be in no text that leaves the device
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(-1e6, 1e6, width=32).map(repr),
    st.sampled_from([" 7", "7.0", "1e3", "-0", "007"]),
)
ODD = st.sampled_from(
    ["", " ", "NA", "nan", "-nan", "inf", "1e39", "-1e400", "1_0", "0x10", "1,5", "true", "٣", "½", "1e", "--1", "+",
     f"{SECRET}", f"{SECRET} \U0001f511", "\u202e" + SECRET, "\ufeff", "=1+1", "'" + SECRET, "9" * 400]
)  # fmt: skip
CELLS = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD)
OPTIONS = st.fixed_dictionaries(
    {"test": st.sampled_from(["0", "0.3"])},
    optional={
        "missing": st.sampled_from(["skip", "mean", "value:2"]),
        "bad": st.sampled_from(["0", "0.5", "0.99"]),
        "labels": st.sampled_from(["*", f"{SECRET},7", "7,1000"]),
        "standardize": st.just("1"),
        "window": st.sampled_from(["1", "3"]),
        "channels": st.just("first"),
        "device": st.just("d"),
        "time": st.just("t"),
        "decimal": st.just(","),
        "thousands": st.sampled_from(["space", "'"]),
        "encoding": st.sampled_from(["latin-1", "utf-16", "utf-16-le", "cp1252", "ascii", "shift_jis"]),
        "delimiter": st.sampled_from([";", "tab"]),
    },
)


def sound(data: Dataset) -> None:
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        assert array is None or (np.isfinite(array).all() and len(array))
    assert not data.gaps and data.series is None
    if data.labels:
        assert data.y_train.min() >= 0 and data.y_train.max() < len(data.labels)
    tally = data.tally
    assert tally.rows >= tally.bad + tally.blank and SECRET not in tally.text()


def outcome(spec: str) -> Dataset | None:
    """The Dataset, which is sound; None if the SPEC or the data are refused, without a word of the data."""
    try:
        data = load(spec)
    except UsageError:
        return None
    except EdgeFLError as error:
        assert isinstance(error, DataError)
        assert SECRET not in Trouble.of(error).text and len(str(error)) < 2000
        return None
    sound(data)
    return data


@MANY
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=30), options=OPTIONS, data=st.data())
def test_any_cells_under_any_options(tmp_path: Path, rows: list, options: dict[str, str], data: st.DataObject) -> None:
    mark = {"tab": "\t"}.get(options.get("delimiter", ","), options.get("delimiter", ","))
    lines = [mark.join(["d", "t", "a", "y"])]
    lines += [mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(lines).encode(options.get("encoding", "utf-8"), "replace"))
    target = data.draw(st.sampled_from(["y", "*", "a"]))
    outcome(f"csv:{path}?target={target}&" + "&".join(f"{k}={v}" for k, v in options.items()))


@MANY
@given(st.binary(max_size=2000), OPTIONS)
def test_any_bytes_are_a_csv_file_or_none(tmp_path: Path, content: bytes, options: dict[str, str]) -> None:
    (tmp_path / "a.csv").write_bytes(b"d,t,a,y\n1,2,3,4\n" + content)
    outcome(f"csv:{tmp_path}/a.csv?target=y&" + "&".join(f"{k}={v}" for k, v in options.items()))
    (tmp_path / "a.csv").write_bytes(content)
    outcome(f"csv:{tmp_path}/a.csv?target=y")
    try:
        survey("csv", f"{tmp_path}/a.csv", {})
    except DataError:
        return


@MANY
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=40), how=st.sampled_from(["skip", "mean", "value:2"])
)
def test_what_is_kept_is_what_a_slow_reader_keeps(tmp_path: Path, rows: list[tuple[str, str]], how: str) -> None:
    number = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE)
    blanks = {"", "na", "nan"}

    def read(cell: str) -> float | str:
        if cell.strip().lower() in blanks:
            return "blank"
        value = float(cell) if number.fullmatch(cell) else math.inf  # \d and float both know other scripts' digits
        return value if abs(value) <= float(np.finfo(np.float32).max) else "bad"

    wanted, bad, blank = [], 0, 0
    for a, y in rows:
        if read(a) == "bad" or (read(y) == "bad" and not (how == "skip" and read(a) == "blank")):
            bad += 1
        elif read(y) == "blank" or (how == "skip" and read(a) == "blank"):
            blank += 1
        else:
            wanted.append((math.nan if read(a) == "blank" else read(a), read(y)))
    text = "\n".join(["a,y", *(f'"{a}","{y}"' for a, y in rows)])
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    data = outcome(f"csv:{tmp_path}/a.csv?target=y&test=0&bad=0.99&missing={how}")
    if data is None:
        means = [a for a, _ in wanted if not math.isnan(a)]
        assert not wanted or bad > 0.99 * len(rows) or (how == "mean" and not means)
        return
    assert (data.tally.rows, data.tally.bad, data.tally.blank) == (len(rows), bad, blank)
    x = np.array([a for a, _ in wanted], np.float32)
    fill = np.float32(x[~np.isnan(x)].mean(dtype=np.float64)) if how == "mean" else 2.0
    np.testing.assert_allclose(data.x_train.ravel(), np.where(np.isnan(x), fill, x), rtol=1e-6)
    np.testing.assert_array_equal(data.y_train, np.array([y for _, y in wanted], np.float32))


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)


@MANY
@given(st.lists(st.tuples(VALUES, st.sampled_from([0, 1, "1", None, SECRET])), max_size=12), OPTIONS)
def test_any_value_of_a_database(tmp_path: Path, rows: list, options: dict[str, str]) -> None:
    path = tmp_path / "a.db"
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (a, y, d, t)")
    try:
        database.executemany("INSERT INTO t (a, y) VALUES (?, ?)", rows)
        database.execute("UPDATE t SET d = rowid % 2, t = rowid")
        database.commit()
    except UnicodeEncodeError:
        return
    finally:
        database.close()
    taken = {k: v for k, v in options.items() if k not in ("encoding", "delimiter")}
    outcome(f"sqlite:{path}?query=SELECT * FROM t&target=y&" + "&".join(f"{k}={v}" for k, v in taken.items()))


@MANY
@given(
    x=st.lists(st.floats(width=64) | st.just(1.5), min_size=1, max_size=24),
    y=st.lists(st.sampled_from(["7", "1000", SECRET, "", "nan"]), min_size=24, max_size=24),
    options=OPTIONS,
)
def test_any_numbers_of_arrays(tmp_path: Path, x: list[float], y: list[str], options: dict[str, str]) -> None:
    keep = {k: v for k, v in options.items() if k in ("test", "missing", "bad", "labels", "standardize", "window")}
    arrays = {"x": np.array(x).reshape(-1, 1), "y": np.array(y[: len(x)] if "labels" in keep else x)}
    np.savez(tmp_path / "a.npz", **arrays)
    outcome(f"npz:{tmp_path}/a.npz?" + "&".join(f"{k}={v}" for k, v in keep.items()))


@MANY
@given(st.data())
def test_a_damaged_npz_in_a_folder_is_left_for_later(tmp_path: Path, data: st.DataObject) -> None:
    np.savez(tmp_path / "1.npz", x=np.ones((4, 2)), y=np.arange(4))
    whole = bytearray((tmp_path / "1.npz").read_bytes())
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(0, 255))
    (tmp_path / "2.npz").write_bytes(whole[:cut])
    found = outcome(f"folder:{tmp_path}?test=0&bad=0.9")
    assert found is not None and len(found.x_train) >= 4


@MANY
@given(st.text(max_size=40))
def test_any_text_is_a_spec_or_a_usage_error(text: str) -> None:
    try:
        parse(text)
        outcome(f"csv:/nowhere?{text}")
    except UsageError:
        return


def test_an_array_that_claims_to_be_huge_is_not_made(tmp_path: Path) -> None:
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 1000)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", raw.getvalue())
        file.writestr("y.npy", raw.getvalue())
    with pytest.raises(DataError):
        load(f"npz:{tmp_path}/a.npz")


def test_a_csv_of_one_endless_quote_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,y\n1,2\n"' + "x,\n" * 200_000)
    with pytest.raises(DataError):
        load(f"csv:{tmp_path}/a.csv?target=y")
