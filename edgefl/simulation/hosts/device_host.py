"""DeviceHost: one simulated device: its data, its training, its disk, its power."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, cast

from ...core.seeds import derived_seed
from ...device import events as device_events
from ...device.events import (
    CancelTraining,
    DataStamp,
    DropUpdate,
    Failed,
    KeepBase,
    KeepModel,
    KeepSkeleton,
    MarkCounted,
    SavePlan,
    SaveSeen,
    SaveSpent,
    SaveUpdate,
    StartTraining,
    Trained,
    TrainJob,
)
from ...device.owner.effort import takes
from ...device.owner.policy import OPEN, OwnersWord
from ...device.session import DeviceSession
from ...errors import DataError, EdgeFLError
from ...machine import Connected, Note, Unsubscribe
from ...protocol.messages import Status, encode
from ..devices.body import PLAIN, Body, Power
from ..devices.faults import DAY_S, NO_HANDICAP, Handicap
from ..devices.line import Line
from ..tasks.shares import Share
from ..tasks.task import Task, trouble_of
from .crowd import number_of
from .disk import Disk
from .fleet_host import FleetHost, Ground
from .keyring import Keyring

SECONDS_PER_EXAMPLE = 0.001
STAMP = 1  # simulated data never change


class DeviceHost(FleetHost[device_events.Event, device_events.Action]):
    """One device: its data, its training, its disk, its power."""

    machine: DeviceSession

    def __init__(
        self, fleet: Ground, name: str, share: Share, *, federation: str, seed: int,
        handicap: Handicap = NO_HANDICAP, body: Body = PLAIN, keyring: Keyring | None = None,
    ) -> None:  # fmt: skip
        super().__init__(fleet, name)
        self._handicap, self._body = handicap, body
        self._power = Power(self, body, fleet.meter)
        if body.latency_s is not None:
            self.latency_s = body.latency_s
        self._federation, self._share, self._keyring = federation, share, keyring
        self._trainings = 0
        self._rng = random.Random(derived_seed(seed, "device", name))
        self.disk = Disk()
        self._job: TrainJob | None = None
        self._ticket: int | None = None
        self._slept_at: int | None = None  # the bytes of all rounds when it went to sleep; None: it is awake

    def start(self, round_bytes: int = 0) -> None:
        """Power on, now or when it comes back; and off again from day to day. It would have heard rounds of
        `round_bytes` before, if it had been made earlier."""
        self.power_on()
        if round_bytes:
            self.machine.heard(round_bytes)
        if self._handicap.away_s:
            self.clock.at(self._handicap.leaves_at(self.clock.now), self._leave)

    def _leave(self) -> None:
        self.lose_power(self._handicap.away_s)
        self.clock.after(DAY_S, self._leave)

    def power_on(self) -> None:
        now = self.clock.now
        if (back_at := max(self._handicap.away_until(now), self._body.presence.away_until(now))) > now:
            self.powered = False
            self.clock.at(back_at, self.power_on)
            return
        rate = self._handicap.bytes_per_s
        self.lines = self._body.lines() if rate is None else (Line(rate), Line(rate))
        self.powered = True
        self.boot += 1
        self.turn = number_of(self.name) if self.boot == 1 else next(self.fleet.turns)
        self.machine = DeviceSession(
            self.name, self._federation, num_examples=len(self._share), rng=self._rng, outbox=self.disk.outbox,
            in_model=self.disk.in_model, shelf=self.fleet.shelf, base=self.disk.base, **self._trust(),
        )  # fmt: skip
        self.feed(DataStamp(STAMP))
        will = encode(Status("lost", self.boot))
        self.fleet.broker.connect(self.name, (self.machine.topics.status(self.name), will))
        self.feed(Connected(boot=self.boot))
        if (leaves_at := self._body.presence.leaves_at(now)) is not None:
            boot = self.boot
            self.clock.at(leaves_at, lambda: self.lose_power(0.0) if boot == self.boot else None)
        self._power.start()

    def _trust(self) -> dict[str, Any]:
        """Where rounds are masked, a device has keys, and an owner who lets nothing else leave."""
        if self._keyring is None:
            return {}
        owner = OwnersWord(replace(OPEN, masked=True))
        return {"keys": self._keyring.device(self.name, self.disk.seen), "owner": owner}

    @property
    def is_fresh(self) -> bool:
        """Whether its data are in no model yet."""
        return self.boot == 0 or self.machine.is_fresh  # it may never have been on

    @property
    def sleeps(self) -> bool:
        """Whether it hears no rounds, because it has nothing to do."""
        return self._slept_at is not None

    def sleep(self, round_bytes: int) -> bool:
        """Hear no rounds from now on, of which there were `round_bytes` so far; False if the device has something to
        do."""
        machine = self.machine
        if not self.powered or machine.work is not None or machine.wake_at is not None or self.disk.outbox is not None:
            return False
        self.unsubscribe(Unsubscribe((machine.topics.round,)))
        self._slept_at = round_bytes
        return True

    def wake(self, round_bytes: int) -> None:
        """Hear rounds again, of which there were `round_bytes` so far."""
        assert self._slept_at is not None
        self.machine.heard(round_bytes - self._slept_at)
        self._slept_at = None

    def lose_power(self, away_s: float) -> None:
        """Now, and for so many seconds at least; nothing if there is no power anyway."""
        if not self.powered:
            return
        self.powered = False
        self._cancel()
        self.fleet.broker.cut(self.name)
        self.fleet.clock.after(away_s, self.power_on)

    def carry_out(self, action: device_events.Action) -> None:
        match action:
            case StartTraining():
                self._train(action)
            case CancelTraining():
                self._cancel()
                self._power.look()
            case SaveUpdate():
                keeps = self.fleet.keeps_residuals
                slots = {name: slot for name, slot in action.slots.items() if keeps or name != "residual"}
                self.disk.save(action.outbox, {name: self.fleet.slots.keep(slot) for name, slot in slots.items()})
            case MarkCounted():
                self.disk.mark_counted(action.attempt)
            case DropUpdate():
                self.disk.drop(action.applied)
            case KeepBase():
                self.disk.base = action.numbers
            case SaveSeen(seen):
                self.disk.seen = seen
            case SaveSpent() | SavePlan() | KeepModel() | KeepSkeleton():
                pass  # a simulated device has no byte budget, and no owner who wants files or to be asked
            case _:
                self.carry_out_shared(action)

    def _train(self, action: StartTraining) -> None:
        fleet, job = self.fleet, action.job
        per_example = self._body.seconds_per_example or SECONDS_PER_EXAMPLE
        examples = takes(job.manifest, job.round.mode, len(self._share))
        duration = examples * per_example * fleet.faults.slowdown(self._rng)
        self._power.begin()
        drop = fleet.faults.drops_after(self._rng, duration) or self._body.drops_after(self._rng, duration)
        if drop is not None:
            boot, (after_s, away_s) = self.boot, drop
            fleet.clock.after(after_s, lambda: self.lose_power(away_s) if boot == self.boot else None)
            return
        self._job = job
        lasts = self._handicap.hung_s + duration * (self._handicap.factor - 1)
        if lasts:  # a worker begins when its result is near: results that wait take the places of others
            fleet.clock.after(lasts, lambda: self._begin(job, duration) if self._job is job else None)
        else:
            self._begin(job, duration)

    def _begin(self, job: TrainJob, duration: float) -> None:
        fleet, adversary, flip = self.fleet, self.fleet.adversary, 0
        if adversary is not None:
            adversary.begins(self.name, job.round.round, self.clock.now, duration)
            flip = adversary.flips(self.name)
        self._trainings += 1
        task = Task(self.name, job, self._share, dict(self.disk.slots), flip, self._trainings)
        ticket = self._ticket = fleet.workers.add(task)

        def finish() -> None:
            if self._ticket != ticket:
                return  # cancelled
            if adversary is not None and (at := adversary.reports_at(self.name, job.round)) > self.clock.now:
                self.clock.at(at, finish)
                return
            self._ticket = self._job = None
            self._power.end()
            try:
                made = fleet.workers.result(ticket)
            except EdgeFLError as error:
                if isinstance(error, DataError):
                    self.note(Note("error", str(error)))  # as in the log on a real device: it may quote the data
                why = trouble_of(error)
                self.feed(Failed(job, why.text, why.code))
            else:
                fleet.on_update(self.name, made.blob)
                blob = made.blob if adversary is None else adversary.turned(self.name, job, made.blob)
                kept = cast(bytes, fleet.spool.keep(blob))  # sessions measure and slice their update, and no more
                self.feed(Trained(job, kept, made.slots, STAMP))
            self._power.look()

        fleet.clock.after(duration, finish)

    def spend(self, up: int = 0, down: int = 0) -> None:
        self._power.spend(up=up, down=down)

    def _cancel(self) -> None:
        self._job = None
        self._power.end()
        if self._ticket is not None:
            self.fleet.workers.drop(self._ticket)
            self._ticket = None
