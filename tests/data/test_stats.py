"""`edgefl data stats`: what it says of a table, and a SPEC that can be used as it is printed."""

from __future__ import annotations

import json
import shlex
import sqlite3

import numpy as np
import pytest

from edgefl.cli.main import main
from edgefl.data import load


@pytest.fixture
def stats(capsys):
    """Runs the command; returns the JSON report."""

    def run(spec: str, code: int = 0) -> dict:
        assert main(["data", "stats", spec, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return run


def foreign(encoding: str) -> bytes:
    """A table as a German spreadsheet writes it: dates, decimal commas, blanks, text, and one broken line."""
    rng = np.random.default_rng(0)
    lines = ["Nr;Zeit;Wärme;Zustand;Notiz"]
    for i in range(200):
        heat = "" if i % 19 == 0 else f"{rng.normal(40, 5):.2f}".replace(".", ",")
        lines.append(f"{i + 1};2026-01-31 12:{i // 60:02}:{i % 60:02};{heat};{['müde', 'ok'][i % 2]};Text {i}")
    return "\n".join([*lines[:50], "broken", *lines[50:], ""]).encode(encoding)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_foreign_table_gets_a_spec_that_works(tmp_path, stats, encoding):
    (tmp_path / "a.csv").write_bytes(foreign(encoding))
    report = stats(f"csv:{tmp_path}/a.csv")
    kinds = {column["name"]: column["kind"] for column in report["columns"]}
    assert list(kinds.values()) == ["whole numbers", "dates", "numbers", "text", "text"]
    assert (report["rows"], report["malformed"], report["examples"], report["filled"]) == (201, 1, 200, 11)
    assert report["labels"] == {"müde": 100, "ok": 100} and report["features"] == ["Wärme"]
    heat = report["columns"][2]
    data = load(report["spec"], test_fraction=0)
    assert data.x_train.shape == (200, 1) and data.labels == ("müde", "ok")
    assert heat["mean"] == pytest.approx(float(data.x_train.mean()), rel=1e-5) and heat["blanks"] == 11
    assert 3 < heat["std"] < 7 and heat["least"] == pytest.approx(data.x_train.min(), rel=1e-6)
    scaled = load(f"{report['spec']}&{report['scale']}", test_fraction=0)
    assert abs(float(scaled.x_train.mean())) < 1e-3


def test_the_text_has_a_line_for_each_column_and_a_spec_for_a_shell(tmp_path, capsys):
    (tmp_path / "a.csv").write_bytes(foreign("latin-1"))
    assert main(["data", "stats", f"csv:{tmp_path}/a.csv?target=Zustand"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:8]] == ["Nr", "Zeit", "Wärme", "Zustand", "Notiz"]
    assert "müde 100, ok 100" in lines[6] and "many different texts" in lines[7]
    (spec,) = shlex.split(lines[-1])
    assert len(load(spec, test_fraction=0).x_train) == 200
    assert not any("is a guess" in line for line in lines) and any("Nr (counts the rows)" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b,y\n" + "".join(f"{i % 7}.5,2,{i % 3}\n" for i in range(40)), "target=y&kind=classes"),
        ("a,quality\n" + "".join(f"{i % 7}.5,{5 + i % 3}\n" for i in range(40)), "target=quality&labels=5,6,7"),
        ("a,weight\n" + "".join(f"{i % 7}.5,{i}.25\n" for i in range(40)), "target=weight"),
        ("a,y\n" + "".join(f"{i % 7}.5,{i % 30 or ''}.5\n" for i in range(40)), "target=y"),
        ('a,"x, y"\n' + "".join(f"{i % 7}.5,{'u&v' if i % 2 else 'w'}\n" for i in range(40)),
         "target=x%2C y&labels=u%26v,w"),
        ("a,b,how,note\n" + "".join(f"{i % 7}.5,{i % 7}.5,{'uv'[i % 2]},same\n" for i in range(40)),
         "target=how&features=a,b&labels=u,v"),
        ("a;b;how\n" + "".join(f"{i % 7},5;0.{i % 7}25;{'uv'[i % 2]}\n" for i in range(40)),
         "target=how&features=a&labels=u,v&delimiter=;&decimal=,"),
    ],
)  # fmt: skip
def test_what_is_suggested_for_a_target(tmp_path, stats, text, expected):
    (tmp_path / "a.csv").write_text(text)
    report = stats(f"csv:{tmp_path}/a.csv")
    assert report["spec"].partition("?")[2] == expected
    assert load(report["spec"]).x_train.shape[1] == len(report["features"])


def test_options_that_are_given_stay(tmp_path, stats):
    (tmp_path / "a.csv").write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    report = stats(f"csv:{tmp_path}/a.csv?target=y&labels=1,0&missing=skip&window=4&test=0.5&mean=1&std=2")
    assert report["labels"] == {"1": 5, "0": 0} and report["shape"] == [4, 1]
    assert report["spec"].endswith("target=y&labels=1,0&missing=skip&window=4&test=0.5&mean=1&std=2")


def test_other_tables(tmp_path, stats):
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE ring (id INTEGER PRIMARY KEY, time REAL, hot REAL, state TEXT)")
        rows = [(i, 1e9 + i, None if i == 3 else i / 7, "ok" if i % 2 else "bad") for i in range(30)]
        database.executemany("INSERT INTO ring VALUES (?, ?, ?, ?)", rows)
    database.close()
    report = stats(f"ring:{tmp_path}/a.db")
    assert report["features"] == ["hot"] and report["labels"] == {"bad": 15, "ok": 15} and report["filled"] == 1
    report = stats(f"sqlite:{tmp_path}/a.db?query=SELECT hot, state FROM ring")
    assert report["examples"] == 30 and "missing=mean" in report["spec"]
    np.savez(tmp_path / "a.npz", x=np.array([[1.0, np.nan]] * 9), y=["a", "b", "a"] * 3)
    report = stats(f"npz:{tmp_path}/a.npz?missing=value:0")
    assert report["labels"] == {"a": 6, "b": 3} and report["spec"].endswith("?missing=value:0&labels=*")
    (tmp_path / "f").mkdir()
    for day in range(3):
        (tmp_path / "f" / f"{day}.csv").write_text("a,y\n1,2.5\n2,3.5\n")
    assert stats(f"folder:{tmp_path}/f")["examples"] == 6


def test_a_table_that_cant_be_used_says_why_and_still_shows_its_columns(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("a,b\nx,y\nz,w\n")
    assert main(["data", "stats", f"csv:{tmp_path}/a.csv?target=a"]) == 1
    out = capsys.readouterr().out
    assert "can't be used yet" in out and "a  " in out
    assert main(["data", "stats", f"csv:{tmp_path}/none.csv"]) == 1
    assert main(["data", "stats", "csw:a.csv"]) == 2
