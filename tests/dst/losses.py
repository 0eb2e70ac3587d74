"""Losses: an aggregator's database that is put back to a backup, or lost, while the aggregator is down.

Its operator does what docs/operations.md says: begins the next epoch of the aggregator's certificate, and starts it
with --take-over. A database that is lost is another run, from the first model. And if devices say that they were told
of more epsilon than the aggregator tells, or the aggregator doubts a helper's word, sets [privacy] told or opened.

What is lost with the database, and no promise: rounds after the backup, their records, models, clip and ledger, and
which devices rest since then. The model and its version go back, and so may what viewers are shown. What is not lost,
and has to hold (masked.py, noise.py): no round of a run is opened for another set, or has noise twice; with noise none
that was opened before is asked for again, and no round tells less than a helper had in its ledger; without noise one
round is asked for in vain, at most, by each process whose helper answers; a device goes by no round that tells less
than one it has gone by; and rounds commit again, within a bound (liveness.py).

Not promised, so not done: both databases, the aggregator's and its only helper's, lost before either has seen what the
other one knew.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from .disks import AggregatorDisk
from .kept import Kept
from .keys import NOW
from .violation import require

if TYPE_CHECKING:
    from .schedule import Schedule
    from .world import World

RESTORED, LOST, COUNTED = "restored aggregator", "lost aggregator", "rounds counted after that"
BACKUP_EVERY_S, BACKUPS = 15.0, 6
SPARED = 0.8  # of the losses after which no sum was opened yet
LOOKS_EVERY_S = 20.0  # the operator, at what devices say
FALLS = re.compile(r"epsilon falls from ([0-9.e+-]+) to")
ASKS_FOR = re.compile(r"set \[privacy\] (told|opened) = ([0-9.e+-]+)")


def losses_of(seed: int) -> tuple[str, ...]:
    """The kinds in this masked schedule: none in three of five. From a stream of its own, so nothing else changes."""
    rng = random.Random(f"losses {seed}")
    return rng.choice([(), (), (), (RESTORED,), (RESTORED, LOST)])


class Backup(NamedTuple):
    """A database, and what is true of it."""

    disk: AggregatorDisk
    truth: Kept
    masked: Kept
    noise: Kept


class Losses:
    """`epoch` is that of the aggregator's certificate, `told` and `opened` what its operator has set. `count` has
    the losses, by kind, and the rounds that were committed with a model after the first one."""

    def __init__(self, world: World) -> None:
        self.epoch, self.told, self.opened = NOW, 0.0, 0
        self.count: Counter[str] = Counter()
        self._opened_at = 0  # a backup with fewer records lacks the newest sum; 0: there was none since the last loss
        self._world = world
        self._backups: list[Backup] = []
        self._rng = random.Random(f"backups {world.schedule.seed}")
        self._unsettled: Literal["", "aggregator", "helper"] = ""  # whose loss the other one may not know of yet
        if is_lossy(world.schedule):
            self._later()
            world.clock.after(LOOKS_EVERY_S, self._look)

    def __bool__(self) -> bool:
        """Whether there was one."""
        return self.epoch > NOW

    # The operator's backups

    def _later(self) -> None:
        self._world.clock.after(self._rng.expovariate(1 / BACKUP_EVERY_S), self._back_up)

    def _back_up(self) -> None:
        if self._world.healed_at is None:
            self._keep()
            self._later()

    def _keep(self) -> None:
        world, checker = self._world, self._world.checker
        disk, masked = world.aggregator.disk.copy(), checker.masked
        found = Backup(disk, checker.truth.kept(), masked.kept(), masked.noise.kept())
        self._backups = [*self._backups[1 - BACKUPS :], found]

    def asks(self) -> None:
        """The aggregator has asked a helper for a sum; some backups are of just this moment."""
        if is_lossy(self._world.schedule) and self._rng.random() < 0.3:
            self._world.clock.after(0.0, self._keep)

    # The losses

    def restore(self) -> None:
        """The aggregator's database is put back to one of its backups."""
        behind = [one for one in self._backups if len(one.disk.rounds) < self._opened_at]
        if not self._backups or self._is_too_soon():
            return
        waiting = [one for one in behind if one.disk.asked is not None and self._rng.random() < 0.5]
        world, backup = self._world, self._rng.choice(waiting or behind or self._backups)
        world.trace("losses", "goes back to %d rounds", len(backup.disk.rounds))
        disk, orders = backup.disk.copy(), world.aggregator.disk.orders
        self._begin(RESTORED)
        disk.orders = orders  # which are files beside the database
        asked, masked = disk.asked, world.checker.masked
        pending = 0 if asked is None else asked.record.round
        world.checker.truth.went_back(backup.truth, None if asked is None else asked.record)
        masked.went_back(backup.masked, disk.run, pending)
        masked.noise.went_back(backup.noise, self._helpers_epsilon, pending)
        self._adopt(disk)

    def lose(self) -> None:
        """The aggregator begins anew: another run of the same plan, from the first model."""
        if self._is_too_soon():
            return
        world, schedule = self._world, self._world.schedule
        self._begin(LOST)
        self.opened = 0  # of another run
        run = f"{self._rng.getrandbits(63) * 2 + int(schedule.manifest.run, 16) % 2:016x}"
        world.schedule = replace(schedule, manifest=msgspec.structs.replace(schedule.manifest, run=run))
        world.checker.begin_run()
        world.checker.masked.noise.went_back({}, self._helpers_epsilon, 0)
        self._backups.clear()
        self._adopt(AggregatorDisk(run))

    def _is_too_soon(self) -> bool:
        """Whether the helper was lost last; or no sum was opened since the last loss, which tells little."""
        soon = not self._opened_at and self._rng.random() < SPARED
        return soon or self._unsettled == "helper"

    @property
    def _helpers_epsilon(self) -> float:
        return max(helper.disk.state.epsilon for helper in self._world.helpers)

    def _begin(self, kind: str) -> None:
        self._world.aggregator.die(f"a {kind}")
        self.count[kind] += 1
        self.epoch += 1
        self._opened_at = 0
        self._unsettled = "aggregator"

    def committed(self) -> None:
        """A round has made a model."""
        if self:
            self.count[COUNTED] += 1

    def _adopt(self, disk: AggregatorDisk) -> None:
        aggregator = self._world.aggregator
        aggregator.disk, aggregator.takes_over = disk, True
        self._world.checker.listen()

    def may_lose_helper(self) -> bool:
        """Whether a helper may be put back to a backup: the aggregator knows what the helper does."""
        if self._unsettled == "aggregator":
            return False
        self._unsettled = "helper"
        return True

    def opened_sum(self, signer_epoch: int) -> None:
        """A helper has answered an ask under this certificate, so both know the same."""
        if signer_epoch == self.epoch:
            self._unsettled, self._opened_at = "", 1 + len(self._world.aggregator.disk.rounds)

    # The operator

    def _look(self) -> None:
        """At devices that say they were told more than an open round tells, and a helper knows of."""
        world = self._world
        world.clock.after(LOOKS_EVERY_S, self._look)
        if not self or not world.aggregator.alive:
            return
        machine, ledger = world.aggregator.machine, world.aggregator.disk.ledger
        if doubted := dict(ASKS_FOR.findall(" ".join(machine._doubts))):
            self.told = max(self.told, float(doubted.get("told", 0)))
            self.opened = max(self.opened, int(doubted.get("opened", 0)))
            known = world.checker.masked.newest_lost(world.schedule.manifest.run)
            require(self.opened <= known, "I35", "round %d was opened, not %d", known, self.opened)
            self._restart()
            return
        if machine.phase != "open" or ledger is None:
            return
        statuses = machine.presence.statuses.values()
        found = [float(match[1]) for status in statuses if (match := FALLS.search(status.reason))]
        if not found or max(found) <= ledger.highest:
            return
        known = self._helpers_epsilon
        require(max(found) > known, "I38", "devices remember %r, a helper knows of %r", max(found), known)
        self.told = max(found)
        self._restart()

    def _restart(self) -> None:
        self._world.trace("operator", "sets [privacy] told to %r, opened to %d", self.told, self.opened)
        self._world.aggregator.die("its operator restarts it")


def is_lossy(schedule: Schedule) -> bool:
    return RESTORED in schedule.faults
