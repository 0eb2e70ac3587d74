"""A simulation that was stopped goes on, and comes to the bits that it would have come to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_ray import FakeRay

import edgefl
from edgefl.cli.main import main
from edgefl.errors import StoreError, UsageError
from edgefl.simulation.devices.world import Kind, World
from edgefl.simulation.resume import journal as journals
from edgefl.simulation.resume.journal import Journal
from edgefl.simulation.tasks import ray_pool

BUSY = {
    "model": "mlp:64-16-10", "data": "digits", "devices": 12, "rounds": 8, "seed": 5, "min_reports": 2, "fraction": 0.6,
    "codec": "ecq", "partition": "dirichlet:0.3",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "residuals and stragglers": {"faults": "dropout:0.1:2,straggler:0.3:4", "late": "fold", "goal": 4},
    "asynchronous": {"mode": "async", "goal": 3, "faults": "slow:0.3:5"},
    "a strategy with state": {"strategy": "fedavgm", "holdout": 0.2, "evaluate_every": 3},
    "what diverges": {"lr": 1e5, "min_reports": 1, "deadline_s": 5.0},
    "a world": {
        "world": World([Kind(spread=0.5, dropout=0.2, up_kbit_s=200.0), Kind(battery_wh=0.01, active_watts=2.0)])
    },
    "models of devices' own": {"strategy": "ditto", "holdout": 0.2},
    "control variates": {"strategy": "scaffold", "codec": "raw32", "faults": "dropout:0.1:2", "late": "drop"},
    "memory on devices": {"strategy": "mifa"},
    "a rule over all updates": {"strategy": "trimmed-mean:f=0.2"},
    "an adversary": {"faults": "attack:alie:0.3"},
}


class Killed(BaseException):
    """The power is cut: nothing below catches it."""


@dataclass
class Kill:
    """Stops a run at its `round`, counted from the start of this process."""

    round: int

    def __call__(self, record) -> None:
        self.round -= 1
        if not self.round:
            raise Killed


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(journals, "LEAST_S", 0.0)
    monkeypatch.setattr(journals, "SHARE", 1e9)


def run(**options):
    return edgefl.simulate(**(BUSY | options))


def of(history) -> tuple:
    return history.final, [record for record in history.rounds]


@pytest.mark.parametrize("case", CASES)
def test_i33_a_run_that_is_killed_and_resumed_ends_as_if_it_had_not_been(case, tmp_path):
    options, file = CASES[case], tmp_path / "resume.db"
    whole = run(**options)
    with pytest.raises(Killed):
        run(**options, resume=file, on_round=Kill(3))
    with pytest.raises(Killed):
        run(**options, resume=file, on_round=Kill(6), workers=1)
    journal = Journal(file)
    assert journal._file.meta("rounds") == "6"
    journal.close()
    assert of(run(**options, resume=file)) == of(whole)
    assert not file.exists()


def test_a_replay_computes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "resume.db"
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(7))
    trained = []
    monkeypatch.setattr(
        "edgefl.simulation.tasks.task.train_update",
        lambda trainer, job, *rest, **more: trained.append(job.round.round) or train(trainer, job, *rest, **more),
    )
    train = edgefl.device.training.train_update
    run(resume=file)
    assert trained and min(trained) >= 7


def test_i33_a_run_may_go_on_elsewhere(tmp_path, monkeypatch):
    """Stopped here, resumed on Ray, stopped there, resumed here."""
    monkeypatch.setattr(ray_pool, "_ray", lambda: FakeRay())
    file, whole = tmp_path / "resume.db", run()
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(2))
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(5), engine="ray")
    assert of(run(resume=file)) == of(whole)


def test_a_journal_at_its_limit_resumes_from_where_it_was_full(tmp_path):
    file, whole = tmp_path / "resume.db", run()
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(7), resume_mb=0.12)
    assert file.stat().st_size < 200_000
    assert of(run(resume=file)) == of(whole)


def test_the_callbacks_are_told_all_rounds_and_which_are_new(tmp_path):
    file, seen = tmp_path / "resume.db", []
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(3))
    journal = Journal(file)
    run(resume=journal, on_round=lambda record: seen.append((record.round, journal.is_replaying)))
    assert seen == [(number, number <= 3) for number in range(1, 9)]


def test_a_journal_of_another_run_is_refused(tmp_path):
    file = tmp_path / "resume.db"
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(3))
    with pytest.raises(UsageError, match="another settings"):
        run(resume=file, lr=0.2)
    with pytest.raises(UsageError, match="another data, model, settings"):
        run(resume=file, data="digits", seed=6)


def test_a_replay_that_comes_to_other_bits_is_refused(tmp_path):
    file = tmp_path / "resume.db"
    with pytest.raises(Killed):
        run(resume=file, on_round=Kill(4))
    journal = Journal(file)
    row = journal._file.one("SELECT device, nth, blob FROM results ORDER BY device LIMIT 1")
    spoilt = bytes([row[2][0] ^ 1]) + row[2][1:]
    journal._file.database.execute("UPDATE results SET blob = ? WHERE device = ? AND nth = ?", (spoilt, *row[:2]))
    journal.close()
    with pytest.raises(StoreError, match="other records"):
        run(resume=file)


def test_a_damaged_journal_is_named(tmp_path):
    file = tmp_path / "resume.db"
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"resume\.db"):
        run(resume=file)


def test_i33_the_command_goes_on_after_kill_9(tmp_path):
    words = [
        "simulate", "--model", "mlp:64-64-10", "--data", "digits", "--devices", "10", "--rounds", "40", "--epochs", "4",
        "--seed", "3",
    ]  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    assert main([*words, "--out", str(there)]) == 0
    eager = (
        "import edgefl.simulation.resume.journal as j; j.LEAST_S = 0.0; j.SHARE = 1e9\n"
        "import edgefl.cli.main as m; m.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", eager, *words, "--out", str(here)], stdout=subprocess.DEVNULL, env=os.environ
    )
    while not (here / "history.jsonl").exists() or (here / "history.jsonl").read_text().count("\n") < 8:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main([*words, "--out", str(here)]) == 2  # neither --resume nor --force
    assert main([*words, "--out", str(here), "--resume"]) == 0
    for name in ("model.onnx", "history.jsonl"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert not list(here.glob("resume.db*"))
    assert main([*words, "--out", str(here), "--resume"]) == 2  # it is at its end


def test_a_kill_while_rounds_are_played_again_loses_none_of_their_records(tmp_path, monkeypatch):
    words = ["simulate", "--model", "mlp:64-10", "--data", "digits", "--devices", "9", "--rounds", "6"]
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert main([*words, "--out", str(whole)]) == 0
    original = journals.Journal.round_over
    for stop, rounds in ((4, 3), (2, 3), (6, 5)):  # the second time while rounds are played again

        def power_cut(self, record, params, disks, stop=stop):
            if record.round == stop:
                raise Killed
            original(self, record, params, disks)

        monkeypatch.setattr(journals.Journal, "round_over", power_cut)
        if stop == 2:
            (folder / "history.jsonl").write_bytes((folder / "history.jsonl").read_bytes() + b'{"round":4')  # torn
        with pytest.raises(Killed):
            main([*words, "--out", str(folder), *(["--resume"] if folder.exists() else [])])
        assert (folder / "history.jsonl").read_bytes().count(b"\n") == rounds
    monkeypatch.undo()
    assert main([*words, "--out", str(folder), "--resume"]) == 0
    assert (folder / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    assert (folder / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()


def test_resume_wants_a_run_that_can_go_on(tmp_path, capsys):
    words = ["simulate", "--model", "mlp:64-10", "--data", "digits"]
    assert main([*words, "--resume"]) == 2
    assert "no --out folder" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "new"), "--resume"]) == 2
    assert "resume.db" in capsys.readouterr().err


def test_without_room_there_is_no_journal(tmp_path):
    words = ["simulate", "--model", "mlp:64-10", "--data", "digits", "--rounds", "2", "--resume-mb", "0"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert {path.name for path in Path(tmp_path / "run").iterdir()} == {"run.json", "history.jsonl", "model.onnx"}
