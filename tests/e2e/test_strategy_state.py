"""What strategies keep, on the aggregator and on devices, across kill -9 of both: the run goes on bit for bit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually
from daemons import blobs
from edgefl_broker.store import AggregatorStore

from edgefl.data import Dataset
from edgefl.history_record import RoundRecord
from edgefl.onnx import zoo
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet

ROUNDS = 7
DEVICES = ("dev-1", "dev-2")
SETTINGS = {
    "rounds": {"rounds": ROUNDS, "deadline_s": 120.0, "min_reports": 2, "expect": 2},  # the goal is the whole cohort
    "train": {"epochs": 2000, "lr": 0.001},
    "codec": {"name": "raw32"},
    "downlink": {"name": "raw32"},  # a lossy one begins again with a keyframe after a restart
}
KILLS = ((1, AGGREGATOR), (2, "dev-1"), (3, AGGREGATOR), (4, "dev-2"), (4, AGGREGATOR), (5, "dev-1"))
# What the aggregator keeps of each, and what devices keep
KEPT = {
    "fedadam": ({"server.first", "server.second"}, set()),
    "scaffold": ({"control"}, {"control"}),
    "mime-lite": ({"momentum"}, set()),
    "mifa": ({"sum"}, {"memory"}),
}


def slots(folder: Path, device: str) -> dict[str, tuple[int, bytes]]:
    """The current slots of a device, whether or not its agent runs; none while an update is saved."""
    with closing(sqlite3.connect(f"file:{folder / device / 'agent.db'}?mode=ro", uri=True)) as database:
        if database.execute("SELECT count(*) FROM outbox").fetchone()[0]:
            return {}
        rows = database.execute("SELECT name, round, blob FROM slot WHERE new = 0").fetchall()
    return {name: (round, blob) for name, round, blob in rows}


def trains(folder: Path, device: str) -> bool:
    """Whether the device knows that its update of the round before is in the model: it is at work for the next one."""
    try:
        with closing(sqlite3.connect(f"file:{folder / device / 'agent.db'}?mode=ro", uri=True)) as database:
            return not database.execute("SELECT count(*) FROM outbox").fetchone()[0]
    except sqlite3.Error:
        return False


def run(folder: Path, url: str, strategy: str, kills: tuple[tuple[int, str], ...]) -> list[RoundRecord]:
    """Two devices for ROUNDS rounds; after each round of `kills` that daemon dies, and is started again."""
    x, y = blobs(80, seed=3)
    order = np.argsort(y, kind="stable")  # so that the devices' data differ
    model = zoo.mlp([4, 8, 3], seed=1).SerializeToString()
    settings = {**SETTINGS, "strategy": {"name": strategy}}
    fleet = ProcessFleet(
        folder, url, model, Dataset(x, y), [order[:40], order[40:]], settings=settings, agents_per_process=1
    )
    with fleet:
        for round, name in kills:
            eventually(lambda round=round: len(fleet.records()) >= round, 60.0)
            if name != AGGREGATOR:
                eventually(lambda name=name: trains(folder, name), 30.0)
            fleet.kill(name)
            assert len(fleet.records()) < ROUNDS, "it died when all was done: the test shows nothing"
            fleet.start(name)
        fleet.wait(lambda record: None, 120.0)
        eventually(lambda: all(trains(folder, device) for device in DEVICES), 30.0)
        return fleet.records()


def newest(folder: Path, strategy: str) -> tuple[bytes, dict[str, bytes]]:
    """The last model and the state that is kept with it, as a start would find them."""
    store = AggregatorStore(folder / "state")
    try:
        (hash_,) = store._db.execute("SELECT value FROM meta WHERE key = 'plan'").fetchone()
        state = store.resume(hash_.partition("~")[0], np.zeros(67, np.float32))
    finally:
        store.close()
    assert state.version == ROUNDS and state.strategy == strategy
    return state.params.tobytes(), {name: array.tobytes() for name, array in state.state.items()}


@pytest.mark.parametrize("strategy", KEPT)
def test_i08_i11_what_a_strategy_keeps_goes_on_bit_for_bit_after_kill_9(
    tmp_path: Path, embedded: object, strategy: str
) -> None:
    url = embedded.url  # type: ignore[attr-defined]
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder, kills in zip(folders, ((), KILLS), strict=True):
        assert [record.state for record in run(folder, url, strategy, kills)] == ["committed"] * ROUNDS
    (whole, kept), (killed, kept_too) = (newest(folder, strategy) for folder in folders)
    here, there = KEPT[strategy]
    assert kept.keys() == here and all(any(blob) for blob in kept.values())
    assert (whole, kept) == (killed, kept_too)
    for device in DEVICES:
        ours = slots(folders[0], device)
        assert ours.keys() == there and ours == slots(folders[1], device)
