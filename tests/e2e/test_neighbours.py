"""The neighbours of federated averaging run, coincide where docs/neighbours.md says so, and print what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = ROOT / "examples" / "neighbours"
PAGE = (ROOT / "docs" / "neighbours.md").read_text(encoding="utf-8")
SAME, APART = 1e-5, 1e-2  # of a param: rounding alone, and another model
ROW = re.compile(r"(?P<name>\S.*?)  +(?P<distance>\de-\d+|\de\+00)?  +(?P<loss>\d\.\d{3})  +(?P<accuracy>\d\.\d{3})")


def run(script: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, FOLDER / script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), script
    assert not list(folder.iterdir()), "leaves nothing behind"
    return done.stdout


def rows(text: str) -> dict[str, re.Match[str]]:
    return {found["name"]: found for line in text.splitlines() if (found := ROW.match(line))}


def test_the_ways_coincide_where_the_page_says_so(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("coincide.py", tmp_path)
    found, shown = rows(printed), rows(PAGE)
    assert list(found) == list(shown) and len(found) == 12
    for name, row in found.items():
        assert float(row["accuracy"]) == pytest.approx(float(shown[name]["accuracy"]), abs=0.02), name
    distances = [float(row["distance"]) for row in list(found.values())[1:]]
    same = [distance for distance in distances if distance < SAME]
    assert len(same) == 6 and distances[:6] == same
    assert all(distance > APART for distance in distances[6:])
    assert float(printed.rpartition(" are ")[2].split()[0]) < SAME


@pytest.mark.parametrize("script", ["pooled", "map_reduce", "ring_all_reduce", "parameter_server", "gossip"])
def test_a_neighbour_learns_by_itself(script: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    assert f"python examples/neighbours/{script}.py\n" in (FOLDER / f"{script}.py").read_text(), (
        "says how it is started"
    )
    accuracies = [float(number) for number in re.findall(r"accuracy\D*([01]\.\d{3})", run(f"{script}.py", tmp_path))]
    assert max(accuracies) > 0.6


def test_the_pages_name_every_neighbour() -> None:
    named = re.findall(r"\]\(neighbours/(\w+)\.py\)", (ROOT / "examples" / "README.md").read_text())
    assert {*named, "task"} == {path.stem for path in FOLDER.glob("*.py")}
    assert all(f"({'../examples/neighbours/' + name + '.py'})" in PAGE for name in named)
