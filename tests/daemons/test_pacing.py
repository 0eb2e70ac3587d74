"""When a deployment's rounds happen, as its configuration says."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually
from daemons import Federation, blobs
from edgefl_agent import data_watch
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent

from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files


@pytest.mark.parametrize("interval_s, expected", [(None, 60.0), (0.0, 0.0), (5.0, 5.0)])
def test_rounds_open_a_minute_apart_unless_the_configuration_says_otherwise(
    tmp_path: Path, interval_s: float | None, expected: float
) -> None:
    path = Federation(tmp_path, "mqtt://127.0.0.1:1", "fleet").write_aggregator(rounds={"interval_s": interval_s})
    assert ("interval_s" in path.read_text()) is (interval_s is not None)
    aggregator = Aggregator(files.load(path, AggregatorConfig), Silent())
    aggregator._store.close()
    assert aggregator.machine.config.interval_s == expected
    assert aggregator._run.settings.rounds.interval_s == expected, "run.json says what was run"


def test_only_new_data_trains_once_and_again_when_the_file_changes(
    embedded: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_watch, "LOOK_S", 0.2)
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    aggregator = fleet.aggregator(rounds={"deadline_s": 10.0, "min_reports": 2, "only_new_data": True})
    first = fleet.agent("dev-a")
    fleet.agent("dev-b")

    def rounds() -> list[list[str]]:
        return [record.devices for record in aggregator.host.history.rounds]

    eventually(lambda: rounds() == [["dev-a", "dev-b"]], 20.0)
    time.sleep(1.0)
    first.stop()
    statuses = aggregator.host.machine.presence.statuses
    eventually(lambda: statuses["dev-a"].state == "disconnected", 20.0)
    fleet.agent("dev-a", f"npz:{fleet.folder / 'dev-a' / 'data.npz'}")  # without writing the file again
    eventually(lambda: statuses["dev-a"].state == "ready" and not statuses["dev-a"].fresh, 20.0)
    time.sleep(1.0)
    assert len(rounds()) == 1, "nothing has changed, also for a device that was started again"
    for device in ("dev-a", "dev-b"):
        x, y = blobs(70, seed=1)
        np.savez(fleet.folder / device / "data.npz", x=x, y=y)
    eventually(lambda: rounds() == [["dev-a", "dev-b"]] * 2, 20.0)
    time.sleep(1.0)
    assert len(rounds()) == 2


def test_data_that_only_the_owners_code_knows_are_read_now_and_then(
    embedded: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_watch, "LOOK_S", 0.1)
    monkeypatch.setattr(data_watch, "READ_S", 0.1)
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    (fleet.folder / "changing_data_for_test.py").write_text(
        "from daemons import blobs\nseed = 1\ndef read():\n    return blobs(30, seed)\n"
    )
    monkeypatch.syspath_prepend(str(fleet.folder))
    aggregator = fleet.aggregator(rounds={"deadline_s": 10.0, "min_reports": 1, "only_new_data": True})
    fleet.agent("dev-a", "python:changing_data_for_test:read")
    eventually(lambda: len(aggregator.host.history.rounds) == 1, 20.0)
    time.sleep(1.0)
    assert len(aggregator.host.history.rounds) == 1
    importlib.import_module("changing_data_for_test").seed = 2
    eventually(lambda: len(aggregator.host.history.rounds) == 2, 20.0)
