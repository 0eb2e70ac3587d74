"""Windows over time: which rows go into one, and where none is cut."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.data import fit_shape, load
from edgefl.errors import DataError, UsageError


@pytest.fixture
def rows(tmp_path):
    """Writes rows, lists of cells, below a header; gives the start of the SPEC."""

    def write(header: str, cells: list[list[object]]) -> str:
        text = "\n".join([header, *(",".join(map(str, row)) for row in cells)])
        (tmp_path / "a.csv").write_text(text + "\n")
        return f"csv:{tmp_path}/a.csv?test=0&"

    return write


def firsts(data) -> list[float]:
    return data.x_train[:, 0, 0].tolist()


def test_windows_follow_each_other_with_the_target_of_their_last_row(rows):
    spec = rows("a,b,y", [[i, -i, i % 3] for i in range(10)])
    data = load(f"{spec}target=y&kind=classes&window=4&step=2")
    assert data.x_train.shape == (4, 4, 2) and firsts(data) == [0, 2, 4, 6]
    assert data.x_train[1].tolist() == [[2, -2], [3, -3], [4, -4], [5, -5]]
    assert data.y_train.tolist() == [0, 2, 1, 0]
    assert firsts(load(f"{spec}target=y&window=4")) == [0, 4]


def test_channels_first_are_as_a_conv1d_wants_them(rows):
    spec = rows("a,b,y", [[i, -i, 0] for i in range(8)])
    data = load(f"{spec}target=y&window=4&channels=first")
    assert data.x_train.shape == (2, 2, 4) and data.x_train[0].tolist() == [[0, 1, 2, 3], [0, -1, -2, -3]]
    last = load(f"{spec}target=y&window=4")
    with pytest.raises(DataError, match="the other way round: add channels=first"):
        fit_shape(last, (2, 4))
    assert fit_shape(data, (2, 1, 4)).x_train.shape == (2, 2, 1, 4)


def test_no_window_spans_two_devices_that_take_turns(rows):
    cells = [[i, 0, "ab"[i % 2]] for i in range(10)]
    data = load(f"{rows('a,y,d', cells)}target=y&device=d&window=2")
    assert data.x_train[..., 0].tolist() == [[0, 2], [4, 6], [1, 3], [5, 7]]
    assert data.device_train.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("unit", ["number", "date"])
def test_no_window_spans_a_gap_or_a_clock_that_was_put_back(rows, unit):
    times = [0, 10, 20, 30, 100, 110, 120, 60, 70, 81, 90]

    def cell(time: int) -> str:
        return str(time) if unit == "number" else f"2026-01-31T12:{time // 60:02}:{time % 60:02}Z"

    spec = rows("t,a,y", [[cell(time), i, 0] for i, time in enumerate(times)])
    data = load(f"{spec}target=y&time=t&window=2&step=1")
    assert data.columns == ("a",) and firsts(data) == [0, 1, 2, 4, 5, 7, 8, 9]
    assert firsts(load(f"{spec}target=y&time=t&window=2&step=1&gap=10")) == [0, 1, 2, 4, 5, 7, 9]
    assert firsts(load(f"{spec}target=y&time=t&window=2&step=1&gap=1000")) == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_no_window_spans_a_row_that_was_left_out(rows):
    cells: list[list[object]] = [[i, 0] for i in range(12)]
    cells[5] = ["x", 0]
    spec = rows("a,y", cells)
    assert firsts(load(f"{spec}target=y&window=3")) == [0, 6, 9]
    cells[5] = ["", 0]
    spec = rows("a,y", cells)
    assert firsts(load(f"{spec}target=y&window=3&missing=skip")) == [0, 6, 9]
    assert firsts(load(f"{spec}target=y&window=3&missing=value:0")) == [0, 3, 6, 9]


def test_the_held_out_windows_share_no_row_with_the_others(rows):
    cells = [[i, 0, d] for d in "ab" for i in range(100)]
    spec = rows("a,y,d", cells).replace("test=0", "test=0.2") + "target=y&device=d&window=8&step=2"
    data = load(spec)
    assert len(data.x_test) == 18 and len(data.x_train) == 2 * (47 - 9 - 3)
    assert data.x_train.max() < data.x_test.min(), "the end of each device's series is held out"


def test_windows_are_filled_and_scaled_by_feature(rows):
    cells = [["" if i % 7 == 3 else i, 1000 + i, 0] for i in range(32)]
    data = load(f"{rows('a,b,y', cells)}target=y&window=4&missing=mean&standardize=1&channels=first")
    assert data.x_train.shape == (8, 2, 4)
    np.testing.assert_allclose(data.x_train.mean(axis=(0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(data.x_train.std(axis=(0, 2)), 1, rtol=1e-4)


def test_windows_of_an_autoencoder(rows):
    data = load(f"{rows('a,b', [[i, -i] for i in range(8)])}target=*&window=4&channels=first")
    assert data.y_train.shape == (2, 2, 4) and (data.y_train == data.x_train).all()


def test_too_short_series_say_so(rows):
    with pytest.raises(DataError, match="no 9 rows follow each other"):
        load(f"{rows('a,y', [[i, 0] for i in range(8)])}target=y&window=9")
    with pytest.raises(DataError, match="too few windows"):
        load(f"{rows('a,y', [[i, 0] for i in range(8)])}target=y&window=8".replace("test=0", "test=0.5"))


def test_windows_of_arrays(tmp_path):
    x = np.arange(20.0).reshape(10, 2)
    x[4, 0] = np.inf
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(10))
    data = load(f"npz:{tmp_path}/a.npz?test=0&window=2")
    assert firsts(data) == [0, 4, 10, 14] and data.y_train.tolist() == [1, 3, 6, 8]
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2, 2)), y=np.arange(4))
    with pytest.raises(UsageError, match="shape"):
        load(f"npz:{tmp_path}/a.npz?test=0&window=2")
