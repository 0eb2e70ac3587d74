"""The strategy's state across kill -9 of the aggregator: the momentum goes on bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from brokers import eventually
from daemons import blobs
from edgefl_broker.store import AggregatorStore

from edgefl.data import Dataset
from edgefl.history import RoundRecord
from edgefl.onnx import zoo
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet

ROUNDS = 8
SETTINGS = {
    "rounds": {"rounds": ROUNDS, "deadline_s": 60.0, "min_reports": 2, "expect": 2},
    "train": {"epochs": 2000, "lr": 0.001},
    "strategy": {"name": "fedavgm"},
    "codec": {"name": "raw32"},
    "downlink": {"name": "raw32"},  # a lossy one begins again with a keyframe after a restart
}


def run(folder: Path, url: str, kills: tuple[int, ...]) -> list[RoundRecord]:
    """Two devices for ROUNDS rounds; after each of `kills` rounds the aggregator dies and is started again."""
    x, y = blobs(80, seed=3)
    model = zoo.mlp([4, 8, 3], seed=1).SerializeToString()
    data = Dataset(x, y)
    fleet = ProcessFleet(
        folder, url, model, data, [np.arange(40), np.arange(40, 80)], settings=SETTINGS, agents_per_process=2
    )
    with fleet:
        for round in kills:
            eventually(lambda round=round: len(fleet.records()) >= round, 30.0)
            fleet.kill(AGGREGATOR)
            assert len(fleet.records()) < ROUNDS, "it died when all was done: the test shows nothing"
            fleet.start(AGGREGATOR)
        fleet.wait(lambda record: None, 60.0)
        return fleet.records()


def newest(folder: Path) -> tuple[bytes, bytes]:
    """The last model and the velocity that is kept with it, as a start would find them."""
    store = AggregatorStore(folder / "state")
    try:
        (hash_,) = store._db.execute("SELECT value FROM meta WHERE key = 'plan'").fetchone()
        state = store.resume(hash_.partition("~")[0], np.zeros(67, np.float32))
    finally:
        store.close()
    assert state.version == ROUNDS and state.strategy == "fedavgm"
    return state.params.tobytes(), state.state["server.velocity"].tobytes()


def test_i08_momentum_goes_on_bit_for_bit_after_kill_9(tmp_path: Path, embedded: object) -> None:
    url = embedded.url  # type: ignore[attr-defined]
    records = run(tmp_path / "whole", url, ()), run(tmp_path / "killed", url, (1, 3, 5))
    assert all([record.state for record in one] == ["committed"] * ROUNDS for one in records)
    whole, killed = newest(tmp_path / "whole"), newest(tmp_path / "killed")
    assert any(whole[1]) and whole == killed
