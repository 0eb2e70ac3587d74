"""Two aggregators on one federation over real brokers, and what an operator sees of it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import eventually
from daemons import Federation, Running
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent

from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files

NUMBERS = itertools.count(1)
ENDLESS = {"deadline_s": 10.0, "min_reports": 1}


@pytest.fixture
def fleet(broker_url: str, tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, broker_url, f"fence-{os.getpid()}-{next(NUMBERS)}")
    yield made
    made.close()


def held(aggregator: Running) -> bool:
    return aggregator.host.machine.snapshot().held


def test_i05_a_copy_of_a_state_that_is_on_the_air_stops(fleet: Federation, tmp_path: Path) -> None:
    first = fleet.aggregator(rounds=ENDLESS)
    fleet.agent("dev-a")
    eventually(lambda: first.host.machine.version >= 2)
    first.die()  # as a power cut: its claim stays on the broker
    copy = str(shutil.copytree(tmp_path / "aggregator", tmp_path / "copy"))
    first = fleet.aggregator(rounds=ENDLESS)
    version = first.host.machine.version
    eventually(lambda: first.host.machine.version > version)  # by then the broker has its claim
    second = fleet.aggregator(rounds=ENDLESS, state_dir=copy)
    assert second.join()
    assert "another aggregator" in str(second.error)
    version = first.host.machine.version
    eventually(lambda: first.host.machine.version > version + 1)  # the first goes on, and nothing came in between
    records = first.host.history.rounds
    assert [r.round for r in records] == list(range(1, len(records) + 1))


def test_i05_an_older_aggregator_ends_with_exit_code_1_whenever_it_is_started(
    fleet: Federation, tmp_path: Path
) -> None:
    newer = fleet.aggregator(rounds=ENDLESS)
    fleet.agent("dev-a")
    eventually(lambda: newer.host.machine.version)  # by then the broker has its claim
    older = fleet.write_aggregator(rounds=ENDLESS, state_dir=str(tmp_path / "older"))
    command = [sys.executable, "-m", "edgefl_broker", "--config", str(older)]
    for _ in range(3):  # systemd would start it again and again
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert "error: this federation has another aggregator" in ended.stderr and "Traceback" not in ended.stderr
    eventually(lambda: held(newer))  # the others had its client id, and threw it out
    assert newer.error is None


def test_taking_over_ends_the_one_that_is_there(fleet: Federation, tmp_path: Path) -> None:
    first = fleet.aggregator(rounds=ENDLESS)
    eventually(lambda: held(first))
    path = fleet.write_aggregator(rounds=ENDLESS, state_dir=str(tmp_path / "new"))
    second = fleet._keep(Running(Aggregator(files.load(path, AggregatorConfig), Silent(), take_over=True)))
    eventually(lambda: held(second))
    assert first.join()
    assert "another aggregator" in str(first.error)


def test_after_a_clean_stop_another_run_may_follow(fleet: Federation, tmp_path: Path) -> None:
    first = fleet.aggregator(rounds=ENDLESS)
    eventually(lambda: held(first))
    first.stop()
    second = fleet.aggregator(rounds=ENDLESS, state_dir=str(tmp_path / "new"))
    eventually(lambda: held(second))
    assert second.error is None
