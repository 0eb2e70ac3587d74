"""The simulation's disk is the aggregator's store: the same calls, the same state, at every restart."""

from __future__ import annotations

import random

import numpy as np
import pytest
from dst.disks import AggregatorDisk
from edgefl_broker.store import AggregatorStore

from edgefl.coordinator.events import LateUpdate
from edgefl.history_record import RoundRecord
from edgefl.strategies.checkpoint import pack

PARAMS = np.arange(4, dtype=np.float32)


def record(round: int, version: int, state: str) -> RoundRecord:
    return RoundRecord(round, state, version, 1, ["a"], 10, 0.5, 100, 100, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_the_simulated_disk_is_the_aggregators_store(tmp_path, seed):
    rng = random.Random(seed)
    disk = AggregatorDisk("")
    for _ in range(6):
        store = AggregatorStore(tmp_path)
        real, simulated = store.resume("plan", PARAMS), disk.resume(PARAMS)
        for side in (store, disk):
            side.save_attempt(real.start)
        assert (real.start, real.round, real.version) == (simulated.start, simulated.round, simulated.version)
        assert real.params.tobytes() == simulated.params.tobytes()
        assert pack(real.strategy, real.state) == pack(simulated.strategy, simulated.state)
        assert list(store.recent(2)) == disk.recent(2)
        round, version = real.round, real.version
        for _ in range(rng.randint(0, 4)):
            committed = rng.random() < 0.7
            version += committed
            row = record(round, version, "committed" if committed else "abandoned")
            params = PARAMS + version if committed else None
            late = LateUpdate(f"dev-{round}", max(1, round - rng.randint(1, 3)), version, 1, rng.randbytes(9))
            waiting = sorted(disk.late)
            for side in (store, disk):
                side.save_late(late)
                gone = waiting[: len(waiting) // 2] if committed else []
                side.commit(row, params, gone, pack("fedavgm", {"server.velocity": PARAMS * version}))
            assert {(u.device, u.round): u.blob for u in store.late()} == {k: u.blob for k, u in disk.late.items()}
            round += 1
        disk.flip(rng.getrandbits(16))
        if disk.newest_is_damaged:
            newest, _, blob = disk.models[-1]
            store._db.execute("UPDATE models SET params = ? WHERE version = ?", (blob, newest))
        store.close()
