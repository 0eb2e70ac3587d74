"""I22: the part of a DataError that may leave the device says where and what, and quotes no value from the data."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from edgefl import Trainer, data
from edgefl.core.plan import Plan
from edgefl.errors import CodecError, DataError, EdgeFLError, ModelError, StoreError, UsageError
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.protocol.trouble import CODES, Trouble

CANARY = "0.7236381"
NAME = "Ann Canary"


def csv(text: str, options: str = "target=y") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "a.csv").write_bytes(text.encode("latin-1"))
        return f"csv:{folder}/a.csv?{options}"

    return write


def sqlite(query: str, value: object) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        with sqlite3.connect(folder / "a.db") as database:
            database.execute("CREATE TABLE t (a, y)")
            database.execute("INSERT INTO t VALUES (?, 1)", (value,))
        database.close()
        return f"sqlite:{folder}/a.db?query={query}&target=y"

    return write


def npz(**arrays: np.ndarray) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        np.savez(folder / "a.npz", **arrays)
        return f"npz:{folder}/a.npz"

    return write


def code(body: str, module: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / f"{module}.py").write_text(f"from edgefl.errors import DataError\ndef read():\n    {body}\n")
        return f"python:{module}:read"

    return write


SOURCES = [
    (csv(f"a,y\n1,2\n{NAME},2\n"), "a.csv, line 3, column number 1: not a finite number"),
    (csv(f"a,y\n1,{NAME}\n"),
     "a.csv, line 2, column 'y': not a finite number; for classes that are text, add labels=A,B"),
    (csv(f"a,y\n1,{CANARY}\n", "target=y&kind=classes"), "a.csv, line 2, column 'y': not a class label (0, 1, 2, ...)"),
    (csv(f"{CANARY},y\n{NAME},1\n"), "a.csv, line 2, column number 1: not a finite number"),  # no header: it is data
    (csv(f"{CANARY},{NAME}\n1,2\n"), "a.csv has no column 'y'"),
    (csv(f"{CANARY},{CANARY},y\n"), "a.csv has two columns of one name"),
    (csv(f"a,y\n1,2,{CANARY}\n"), "a.csv, line 2: 3 cells under a header of 2"),
    (csv(f'a,y\n"{NAME}"x,1\n'), "a.csv, line 2: not a line of a CSV file"),
    (csv(f"a,y\n{NAME}\xff,1\n"), "a.csv is not UTF-8 text: add encoding=latin-1, utf-16 or what it is"),
    (csv(f"a,y\n1,{NAME}\n", "target=y&labels=ok,worn"), "a.csv, line 2, column 'y': not one of the 2 labels"),
    (csv(f"a,y\n1,{NAME}\n2,{NAME}x\n", "target=y&labels=ok,worn"),
     "a.csv, line 2, column 'y': not one of the 2 labels; 2 of 2 lines can't be used"),
    (csv(f"a,t,y\n1,{NAME},1\n", "target=y&time=t"),
     "a.csv, line 2, column 't': not a time: seconds, or a date as in 2026-01-31 12:00:00"),
    (csv(f"a,y\n'{CANARY}',1\n"), "a.csv, line 2, column number 1: not a finite number"),
    (csv("a,y\n\"7,25\",1\n"),
     "a.csv, line 2, column number 1: not a finite number; for decimal commas, add decimal=,"),
    (csv("a,y\n,1\n"),
     "a.csv, line 2, column number 1: not a finite number; for blanks, add missing=mean or missing=skip"),
    (csv("a,y\n,1\n", "target=y&missing=skip"), "all 1 lines of a.csv have blanks"),
    (csv("a,b,y\n,2,1\n", "target=y&missing=mean"), "feature number 1 has no value at all"),
    (csv(f"{CANARY};{NAME};y\n1;2;3\n"),
     "a.csv has no column 'y'; its first line has 2 times ';' and no ',': add delimiter=;"),
    (csv(f"a,y\n1,{NAME}\n2,3\n", "target=y&window=2&bad=0.5"), "no 2 rows follow each other without a break"),
    (npz(x=np.zeros((2, 1)), y=np.array([NAME, "ok"])), "y_train: not numbers"),
    (csv("a,y\n"), "a.csv has a header and no lines of data"),
    (sqlite("SELECT a, y FROM t", NAME), "a.db, row 1, column number 1: not a finite number"),
    (sqlite("SELECT CAST(a AS TEXT) AS a, y FROM t", NAME.encode() + b"\xff"),
     "a.db, row 1, column number 1: not a finite number"),
    (sqlite("SELECT json_extract(a, '$.x') AS a, y FROM t", NAME), "a.db: the query failed (OperationalError)"),
    (npz(x=np.array([[float(CANARY)], [np.nan]]), y=np.zeros(2)),
     "x_train: example 1 holds NaN or infinity, or exceeds float32"),
    (npz(x=np.array([[NAME]]), y=np.zeros(1)), "x_train: not numbers"),
    (npz(**{NAME: np.zeros(1)}), "there is no 'x'"),
    (npz(x=np.zeros((2, 1)), y=np.zeros(3)), "x_train has 2 examples and y_train 3"),
    (npz(x=np.array([{NAME: 1}], object), y=np.zeros(1)), "can't read {folder}/a.npz: not an .npz file of numbers"),
    (code(f"raise ValueError('{NAME} {CANARY}')", "own_1"), "python:own_1:read failed: ValueError"),
    (code(f"raise DataError('{NAME} {CANARY}')", "own_2"), ""),
    (code(f"return [['{NAME}', 1], [2]], [1, {CANARY}]", "own_3"), "x_train: not every example has the same shape"),
    (code(f"return {{'{NAME}': {CANARY}}}", "own_4"), "there is no 'x'"),
    (code("return 5", "own_5"), "python:own_5:read returned int"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "safe"), SOURCES)
def test_i22_every_reader_tells_the_place_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], str], safe: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError) as raised:
        data.load(write(tmp_path), test_fraction=0)
    told = Trouble.of(raised.value).text
    assert raised.value.safe == safe.format(folder=tmp_path)
    assert told == f"its data can't be used: {raised.value.safe or 'the log on the device says why'}"
    assert CANARY not in told and NAME not in told


@pytest.mark.parametrize(
    ("x", "y", "safe"),
    [
        ([[1.0, 2.0]], [7.0], "y is float64, loss 'cross_entropy' takes integer labels"),
        ([[1.0, 2.0]], [7236381], "a label or a token is out of the model's range"),
        ([[1.0, np.inf]], [1], "x[0, 1] is NaN, infinite or beyond float32"),
        ([[1.0]], [1], "x has shape (1, 1), the model takes (n, 2)"),
    ],
)
def test_i22_the_core_tells_what_does_not_fit_and_no_value(x: list, y: list, safe: str) -> None:
    model = load(zoo.mlp([2, 3], seed=1))
    plan: Plan = model.plan
    with pytest.raises(DataError) as raised:
        Trainer(plan).fit(model.params, np.array(x, np.float32), np.array(y), lr=0.1)
    assert raised.value.safe == safe and "7236381" not in safe


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), "memory", "not enough memory"),
        (ModelError("needs 9 bytes"), "model", "needs 9 bytes"),
        (StoreError("disk full"), "disk", "disk full"),
        (CodecError("no finite value"), "codec", "no finite value"),
        (UsageError("use x"), "error", "use x"),
        (ValueError(NAME), "error", "ValueError: the log on the device says why"),
        (EdgeFLError("text"), "error", "text"),
    ],
)
def test_every_error_has_a_code(error: Exception, code: str, text: str) -> None:
    trouble = Trouble.of(error)
    assert trouble.code == code and code in CODES
    assert trouble.text.startswith(text)


def test_the_page_about_messages_lists_all_codes() -> None:
    page = (ROOT / "docs" / "wire.md").read_text()
    section = page.partition("\n## A device's status\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == [
        f"| `{code}` | {means} |" for code, means in CODES.items()
    ]
