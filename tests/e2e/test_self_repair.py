"""State that goes wrong under a running federation: the aggregator notices, and goes on where that is safe."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from brokers import Mosquitto, eventually
from daemons import Federation

from edgefl.errors import StoreError

ROUNDS = {"deadline_s": 10.0, "min_reports": 2, "expect": 2}


def test_an_aggregator_whose_log_is_damaged_is_not_locked_out_by_its_own_claim(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation]
) -> None:
    """The second start's number, and its rounds, lie in SQLite's log only; the broker keeps its claim."""
    fleet = federation(shared_mosquitto.url)
    state, killed = fleet.folder / "aggregator", fleet.folder / "killed"
    first = fleet.aggregator(rounds=ROUNDS)
    fleet.agent("dev-a")
    fleet.agent("dev-b")
    eventually(lambda: first.host.machine.version >= 2, 20.0)
    first.die()
    second = fleet.aggregator(rounds=ROUNDS)
    began = second.host.machine.version
    eventually(lambda: second.host.machine.version >= began + 2, 20.0)
    shutil.copytree(state, killed)  # as kill -9 leaves it
    second.die()
    (killed / "aggregator.db-wal").write_bytes(b"")
    version = second.host.machine.version
    third = fleet.aggregator(rounds=ROUNDS, state_dir=str(killed))
    eventually(lambda: third.host.machine.version >= version + 3, 20.0)
    assert third.error is None and third.host.machine.fence.attempt > second.host.machine.fence.attempt


def test_an_aggregator_whose_database_is_deleted_stops_before_the_next_commit(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation]
) -> None:
    fleet = federation(shared_mosquitto.url)
    aggregator = fleet.aggregator(rounds=ROUNDS)
    fleet.agent("dev-a")
    fleet.agent("dev-b")
    eventually(lambda: aggregator.host.machine.version >= 2, 20.0)
    (fleet.folder / "aggregator" / "aggregator.db").unlink()
    assert aggregator.join()
    assert isinstance(aggregator.error, StoreError)
    assert "deleted or replaced" in str(aggregator.error) and "Put a backup" in str(aggregator.error)
