"""`--engine ray`: the bits of a run do not depend on what computes its tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from fake_ray import FakeRay

import edgefl
from edgefl import _core
from edgefl.cli.main import main
from edgefl.core.arrays import Arrays
from edgefl.errors import UsageError
from edgefl.simulation.tasks import ray_pool, ray_worker

RAY = "EDGEFL_RAY_PYTHON"  # a Python that has Ray beside what EdgeFL needs: make test-ray
BUSY = {
    "model": "mlp:64-16-10", "data": "digits", "devices": 12, "rounds": 5, "seed": 5, "min_reports": 2, "codec": "ecq",
    "holdout": 0.2, "partition": "dirichlet:0.3", "faults": "dropout:0.1:2,straggler:0.3:4", "goal": 6,
}  # fmt: skip
CASES = {
    "residuals": {},
    "asynchronous": {"mode": "async", "goal": 3, "faults": "slow:0.3:5"},
    "flipped labels": {"faults": "attack:label-flip:0.3"},
    "what diverges": {"lr": 1e5, "min_reports": 1, "deadline_s": 5.0},
}


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(ray_pool, "_ray", lambda: fake)
    return fake


@pytest.mark.parametrize("case", CASES)
def test_i33_a_run_on_ray_has_the_bits_of_a_local_one(case, ray):
    options = BUSY | CASES[case]
    local, there = edgefl.simulate(**options), edgefl.simulate(**options, engine="ray", workers=3)
    assert there.final == local.final
    assert there.rounds == local.rounds
    assert not ray.is_up and ray.killed == 3


def test_what_tasks_share_is_sent_once(ray):
    history = edgefl.simulate(**BUSY | {"faults": "", "goal": None}, engine="ray")
    assert sum(record.reported for record in history.rounds) > 40
    assert ray.puts <= 3 + len(history.rounds)  # examples, manifest, and a model a round


def test_a_worker_checks_the_examples_of_all_devices_once(ray, monkeypatch):
    checked, read = [], Arrays._read_whole
    monkeypatch.setattr(Arrays, "_read_whole", lambda self, x, y: checked.append(len(x)) or read(self, x, y))
    history = edgefl.simulate("mlp:64-10", "digits", devices=8, rounds=3, engine="ray", workers=2)
    assert sum(len(record.devices) for record in history.rounds) > 10
    assert 1 <= len(checked) <= 2


def test_tasks_that_are_not_wanted_any_more_are_cancelled(ray):
    edgefl.simulate(**BUSY, engine="ray")
    assert ray.cancelled


def test_a_worker_with_another_instruction_set_is_refused(ray, monkeypatch):
    other = "avx2" if _core.isa() != "avx2" else "baseline"
    monkeypatch.setattr(ray_worker, "isa", lambda: other)
    with pytest.raises(UsageError, match=f"computes with {other}, this machine with {_core.isa()}"):
        edgefl.simulate(**BUSY, engine="ray")
    assert not ray.is_up


def test_a_worker_with_another_version_is_refused(ray, monkeypatch):
    monkeypatch.setattr(ray_worker, "__version__", "0.0.1")
    with pytest.raises(UsageError, match=r"has EdgeFL 0\.0\.1"):
        edgefl.simulate(**BUSY, engine="ray")


def test_more_workers_than_the_cluster_has_room_for_are_refused(ray):
    ray.late = 1
    with pytest.raises(UsageError, match="room for 4 of 5 workers"):
        edgefl.simulate(**BUSY, engine="ray", workers=5)


def test_a_cluster_that_runs_already_goes_on_running(ray):
    ray.is_up = True
    edgefl.simulate(**BUSY, engine="ray")
    assert ray.is_up


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"edgefl-toolkit\[ray\]"):
        edgefl.simulate(**BUSY, engine="ray")


@pytest.mark.parametrize("engine", ["rey", "ray:", "", "spark"])
def test_an_unknown_engine_is_refused(engine):
    with pytest.raises(UsageError, match="engine"):
        edgefl.simulate(**BUSY, engine=engine)


def test_processes_over_mqtt_are_not_for_ray(capsys):
    words = ["simulate", "--model", "mlp:64-10", "--data", "digits", "--transport", "mqtt", "--engine", "ray"]
    assert main(words) == 2
    assert "--engine" in capsys.readouterr().err


REAL = '''
import json, os, pathlib, signal, sys, edgefl, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
         runtime_env={"env_vars": {"EDGEFL_ISA": sys.argv[1]}} if sys.argv[1] else None)
options = json.loads(sys.argv[2])
local = edgefl.simulate(**options, workers=1)


def kill(record):
    """One of our workers dies while round 3 is open."""
    for process in pathlib.Path("/proc").glob("[0-9]*") if record.round == 2 else ():
        try:
            ours = os.environ["EDGEFL_RAY_TEST"].encode() in (process / "environ").read_bytes()
            if ours and (process / "cmdline").read_bytes().startswith(b"ray::RayWorker"):
                os.kill(int(process.name), signal.SIGKILL)
                return print("killed")
        except OSError:
            pass


there = edgefl.simulate(**options, workers=2, engine="ray", on_round=kill)
print("result:", local.final.model_sha256, there.final.model_sha256, local.rounds == there.rounds)
'''


def real(isa: str) -> subprocess.CompletedProcess[str]:
    python = os.environ.get(RAY)
    if not python:
        pytest.skip(f"Ray takes 0.3 GB and a minute to start: make test-ray, which sets {RAY}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEFL_RAY_TEST": f"test-{os.getpid()}"}
    return subprocess.run(
        [python, "-c", REAL, isa, json.dumps(BUSY)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path("/"),
    )


def test_i33_two_real_workers_have_the_bits_of_one_thread():
    done = real("")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "killed" in done.stdout
    here, there, same = done.stdout.partition("result: ")[2].split()[:3]  # Ray tells of the death after it
    assert (here, same) == (there, "True")


def test_a_real_worker_with_another_instruction_set_is_refused():
    if _core.isa() == "baseline":
        pytest.skip("this processor has no other instruction set")
    done = real("baseline")
    assert "computes with baseline, this machine with" in done.stderr
