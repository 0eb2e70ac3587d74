"""Every script in examples/ runs as its first lines say, and ends with a model that has learned something."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from edgefl import data

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
LEAST_ACCURACY = {
    "local_training": 0.9,
    "simulate_fleet": 0.6,
    "custom_data": 0.95,
    "compare_codecs": 0.9,
    "anomaly": 0.95,
    "activity": 0.9,
    "digits": 0.85,
    "next_character": 0.75,
    "sklearn_pipeline": 0.93,
}
NEEDS = {"sklearn_pipeline": "skl2onnx"}


def test_the_readme_names_every_script():
    named = re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text())
    assert sorted(named) == [path.name for path in SCRIPTS]
    assert set(LEAST_ACCURACY) == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_and_its_model_learns(script, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip(NEEDS.get(script.stem, "sklearn"))
    assert f"python examples/{script.name}\n" in script.read_text(), "says how it is started"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    accuracies = [float(number) for number in re.findall(r"\b[01]\.\d{3}\b", done.stdout)]
    assert accuracies[-1] >= LEAST_ACCURACY[script.stem], done.stdout
    assert not list(tmp_path.iterdir()), "leaves nothing behind"


def test_the_next_character_of_roles_in_plays(shared, tmp_path):
    """Real text, a role a device: better than always guessing the most frequent character."""
    with gzip.open(shared / "data" / "shakespeare" / "roles.jsonl.gz", "rt", encoding="utf-8") as file:
        roles = [json.loads(line) for line, _ in zip(file, range(60), strict=False)]
    roles = [role for role in roles if sum(map(len, role["speeches"])) > 4000][:8]
    for number, role in enumerate(roles):
        (tmp_path / f"{number}.txt").write_text("\n".join(role["speeches"])[:12000], encoding="utf-8")
    script = ROOT / "examples" / "next_character.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    guessed, _, last = map(float, re.findall(r"\b0\.\d{3}\b", done.stdout))
    assert last > guessed + 0.05, done.stdout


def test_an_agent_finds_the_custom_data_by_the_name_that_the_script_gives(monkeypatch):
    text = (ROOT / "examples" / "custom_data.py").read_text()
    (source,) = re.findall(r'source = "(python:\S+)"', text)
    monkeypatch.chdir(Path(ROOT / "examples"))
    dataset = data.load(source)
    assert dataset.device_train is not None and len(set(dataset.device_train)) == 8
