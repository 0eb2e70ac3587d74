"""Schedules of the deterministic simulation (dst/): safety after every step, liveness once the faults have stopped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from dst.__main__ import failures
from dst.rivals import Rivals
from dst.schedule import Schedule

SCHEDULES, CHUNK = 500, 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_i01_to_i13_and_i19_hold_in_every_schedule(first):
    assert failures(range(first, first + CHUNK)) == []


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_i05_of_two_aggregators_one_goes_on(first):
    for seed in range(first, first + 20):
        Rivals(Schedule.draw(seed)).run()


def test_a_seed_gives_the_same_run_in_every_process():
    def trace(hash_seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "dst", "--seed", "1", "--trace"]
        return subprocess.run(command, env=env, cwd=ROOT / "tests", capture_output=True, text=True, timeout=60).stdout

    first = trace("1")
    assert "healed" in first
    assert trace("2") == first
