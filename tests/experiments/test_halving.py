"""`[tune] halving`: all trials for a third of the rounds, the best third for all of them."""

from __future__ import annotations

import json

import pytest
from run_files import results

from edgefl.cli.main import main

EXPERIMENT = """
model = "mlp:64-10"
data = "digits"
fleet = { devices = 6 }
rounds = { rounds = 7 }
[compare]
strategies = ["fedavg", "fedavgm"]
seeds = 1
last = 1
[tune.grid]
lr = [0.0001, 0.001, 0.01, 0.1, 0.3]
"""


def tuned(folder, capsys, *sets: str) -> dict[str, dict]:
    """By strategy, what the command prints."""
    (folder / "few.toml").write_text(EXPERIMENT)
    capsys.readouterr()
    words = [word for text in sets for word in ("--set", text)]
    assert main(["tune", str(folder / "few.toml"), "--out", str(folder), "--jobs", "2", "--json", *words]) == 0
    return {row["strategy"]: row for row in json.loads(capsys.readouterr().out)}


def test_losers_are_left_out_after_a_third_of_the_rounds(tmp_path, capsys):
    pytest.importorskip("sklearn")
    found = tuned(tmp_path, capsys, "tune.halving=true")
    assert list(found) == ["fedavg", "fedavgm"]
    for row in found.values():
        rounds = [trial["rounds"] for trial in row["trials"]]
        assert rounds == [7, 7, 3, 3, 3]  # of five, the best third is two
        assert len({trial["point"]["lr"] for trial in row["trials"]}) == 5
        held = [trial["held_out"] for trial in row["trials"]]
        assert held[0] >= held[1] and held[2] >= held[3] >= held[4]
        assert row["best"] == row["trials"][0]["point"]
    lengths = sorted(len(result.curve.rounds) for result in results(tmp_path).values())
    assert lengths == [3] * 10 + [7] * 4
    text = (tmp_path / "tuning.md").read_text()
    assert text.count("left out after 3 rounds") == 6
    # The best of the whole search is among those that went on, and they are the runs of that search
    whole = tuned(tmp_path, capsys)
    assert len(results(tmp_path)) == 10 + 10
    for name, row in whole.items():
        assert [trial["rounds"] for trial in row["trials"]] == [7] * 5
        scores = {trial["point"]["lr"]: trial["held_out"] for trial in row["trials"]}
        assert all(scores[trial["point"]["lr"]] == trial["held_out"] for trial in found[name]["trials"][:2])


def test_a_single_trial_goes_on(tmp_path, capsys):
    found = tuned(tmp_path, capsys, "tune.halving=true", 'tune.grid={"lr": [0.1]}', "rounds.rounds=1")
    assert [trial["rounds"] for trial in found["fedavg"]["trials"]] == [1]
