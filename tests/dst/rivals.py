"""Rivals: a second aggregator is started by mistake, from a copy of the first one's state. One of them must go on.

No fault here makes the broker forget: the claim to the federation lies there (fence.py). What is not promised,
and not checked: in the moment until a newer claim arrives, both may close a round, each on its own disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgefl.coordinator.opening import DEADLINES
from edgefl.history_record import RoundRecord
from edgefl.transports.verdict import STABLE_S

from .hosts import AggregatorHost
from .liveness import RECONNECT_S
from .schedule import Schedule
from .violation import require
from .witness import Witness
from .world import World

FORGETFUL = ("broker restart", "snapshot", "amnesia", "lose retained", "flip bit on disk", "leave")


class OneGoesOn(Witness):
    """The checker's place in a world of two: once the faults have stopped one of them has the federation, and commits;
    it checks nothing else. A device whose update is of a round that a copy has not reached waits until it has. Both may
    have opened the same attempt of a round, and a device has one receipt for it, from the one that is gone: then the
    round ends without that device, after all its deadlines, and the next one commits."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._committed = self._from = self._behind = 0
        self.liveness = self

    def tell(self, record: RoundRecord, params: np.ndarray | None) -> None:
        self._committed += record.state == "committed"

    def heal(self) -> None:
        self._from = self._committed
        saved = [device.disk.truth.outbox for device in self._world.devices]
        newest = max((outbox.round for outbox in saved if outbox is not None), default=0)
        self._behind = max(0, newest - min(len(host.disk.rounds) for host in self._world.aggregators))

    def satisfied(self) -> bool:
        world = self._world
        assert world.healed_at is not None
        holders = [host for host in world.aggregators if host.alive and host.machine.snapshot().held]
        done = self._committed > self._from and len(holders) == 1
        waited = world.clock.now - world.healed_at
        bound = RECONNECT_S + (DEADLINES + 1 + self._behind) * world.schedule.round_s
        require(done or waited < bound, "I05", "%d aggregators go on, after %d s", len(holders), waited)
        return done


class Rivals(World):
    """Both with one client id, as two of one federation have, or with two.

    Two with one id throw each other out. Each comes back later every time, as the link does: else neither would stay
    long enough to be told of the other. No operator acts here: what one of the two is told, the other does not know.
    """

    has_operator = False

    def __init__(self, schedule: Schedule, show: Callable[[str], None] | None = None) -> None:
        kinds = tuple(kind for kind in schedule.faults if kind not in FORGETFUL)
        super().__init__(replace(schedule, faults=kinds), show)
        self._tell = OneGoesOn(self)
        self.checker = self._tell  # type: ignore[assignment]
        self.aggregator.disk.told = self._tell.tell
        self.aggregator.stable_s = STABLE_S
        self.clock.after(self.rng.uniform(1, schedule.heal_at), self._start_second)

    def _start_second(self) -> None:
        second = AggregatorHost(self, self.aggregator.disk.copy())
        second.disk.told = self._tell.tell
        second.stable_s = STABLE_S
        if self.rng.random() < 0.5:
            second.name = "aggregator-2"
        self.aggregators.append(second)
        second.start()
