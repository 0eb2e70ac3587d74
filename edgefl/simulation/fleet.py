"""A fleet in memory: real sessions and a real coordinator on a virtual clock.

Design:
  a) Messages are those of a real fleet, byte for byte; only sockets, clocks and disks are simulated.
  b) Time is virtual, and so is the time of day. A message takes LATENCY_S, and training takes a time in proportion to
     its examples; a round of ten thousand devices takes as long as its arithmetic.
  c) All randomness comes from one seed: a run repeats bit for bit, with any number of workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import numpy as np

from ..coordinator import events as coordinator_events
from ..coordinator.coordinator import RoundCoordinator
from ..coordinator.events import (
    Answered,
    Commit,
    Erase,
    Evaluate,
    Evaluated,
    Fenced,
    Finished,
    LateUpdate,
    ReloadedLate,
    ReloadLate,
    SaveAttempt,
    SaveLate,
    SavePaused,
    SaveProfile,
    SaveSuspects,
)
from ..core.seeds import derived_seed
from ..device import events as device_events
from ..device.events import (
    CancelTraining,
    DataStamp,
    DropUpdate,
    Failed,
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
from ..device.session import DeviceSession
from ..errors import DataError, EdgeFLError
from ..history import RoundRecord
from ..machine import A, Connected, E, Event, Note, Publish, Received, Sent, Subscribe, Unsubscribe, WallTime
from ..protocol.messages import Status, encode
from ..transports.memory import MemoryBroker
from .adversary import Adversary
from .body import PLAIN, Body, Power
from .clock import VirtualClock
from .disk import Disk
from .energy import Meter
from .faults import DAY_S, NO_HANDICAP, Faults, Handicap
from .line import Line, flow
from .shelf import FleetShelf
from .task import Task, trouble_of
from .virtual_host import VirtualHost
from .workers import Pool

LATENCY_S = 0.05
SECONDS_PER_EXAMPLE = 0.001
KEEPALIVE_S = 60.0
EPOCH_S = 1_767_225_600.0  # 2026-01-01, 00:00 UTC: the virtual time of day at the start
LOOK_S = 60.0  # between two looks whether there are new data
STAMP = 1  # simulated data never change
AGGREGATOR = "aggregator"


class FleetHost(VirtualHost[E, A]):
    """A host in the fleet: on its clock and its broker, and with a power switch."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        super().__init__(fleet.clock)
        self.fleet, self.name = fleet, name
        self.powered = True
        self.boot = 0
        self.lines: tuple[Line, Line] | None = None  # up and down, where they are slow
        self.latency_s = LATENCY_S
        self._told_at = 0.0

    def feed(self, event: E | Event) -> None:
        if self.powered:
            self._tell_flow()
            super().feed(event)

    def _tell_flow(self) -> None:
        """As a host on a real link does, at most once a second."""
        now = self.clock.now
        if self.lines is not None and now >= self._told_at + 1.0:
            self._told_at = now
            super().feed(flow(*self.lines, now, keepalive_s=KEEPALIVE_S))

    def spend(self, up: int = 0, down: int = 0) -> None:
        """So many bytes were sent, or received."""

    def publish(self, action: Publish) -> None:
        size, boot = len(action.topic) + len(action.payload), self.boot
        self.spend(up=size)
        if self.lines is None:
            self._publish(action)
            return
        passed_at = self.lines[0].send(size, self.clock.now)
        self.clock.at(passed_at, lambda: self._publish(action) if self.powered and self.boot == boot else None)

    def _publish(self, action: Publish) -> None:
        self.fleet.broker.publish(action.topic, action.payload, action.retain)
        if action.token is not None:
            self.fleet.feed_later(self.name, Sent(action.token, True))

    def subscribe(self, action: Subscribe) -> None:
        self.fleet.broker.subscribe(self.name, action.topics)

    def unsubscribe(self, action: Unsubscribe) -> None:
        self.fleet.broker.unsubscribe(self.name, action.topics)

    def note(self, action: Note) -> None:
        self.fleet.note(self.name, action)


class DeviceHost(FleetHost[device_events.Event, device_events.Action]):
    """One device: its data, its training, its disk, its power."""

    machine: DeviceSession

    def __init__(
        self, fleet: Fleet, name: str, x: np.ndarray, y: np.ndarray, *, federation: str, seed: int,
        handicap: Handicap = NO_HANDICAP, body: Body = PLAIN,
    ) -> None:  # fmt: skip
        super().__init__(fleet, name)
        self._handicap, self._body = handicap, body
        self._power = Power(self, body, fleet.meter)
        if body.latency_s is not None:
            self.latency_s = body.latency_s
        self._federation, self._x, self._y = federation, x, y
        self._rng = random.Random(derived_seed(seed, "device", name))
        self.disk = Disk()
        self._job: TrainJob | None = None
        self._ticket: int | None = None

    def start(self) -> None:
        """Power on, now or when it comes back; and off again from day to day."""
        self.power_on()
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
        self.machine = DeviceSession(
            self.name, self._federation, num_examples=len(self._x), rng=self._rng, outbox=self.disk.outbox,
            in_model=self.disk.in_model, shelf=self.fleet.shelf,
        )  # fmt: skip
        self.feed(DataStamp(STAMP))
        will = encode(Status("lost", self.boot))
        self.fleet.broker.connect(self.name, (self.machine.topics.status(self.name), will))
        self.feed(Connected(boot=self.boot))
        if (leaves_at := self._body.presence.leaves_at(now)) is not None:
            boot = self.boot
            self.clock.at(leaves_at, lambda: self.lose_power(0.0) if boot == self.boot else None)
        self._power.start()

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
                self.disk.save(action.outbox, action.slots)
            case MarkCounted():
                self.disk.mark_counted(action.attempt)
            case DropUpdate():
                self.disk.drop(action.applied)
            case SaveSpent() | SavePlan() | SaveSeen() | KeepModel() | KeepSkeleton():
                pass  # a simulated device has no byte budget, no owner who wants files or to be asked, and no keys
            case _:
                self.carry_out_shared(action)

    def _train(self, action: StartTraining) -> None:
        fleet, job = self.fleet, action.job
        epochs = job.manifest.train.epochs if job.round.mode == "train" else 1
        per_example = self._body.seconds_per_example or SECONDS_PER_EXAMPLE
        duration = len(self._x) * epochs * per_example * fleet.faults.slowdown(self._rng)
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
        fleet, adversary, y = self.fleet, self.fleet.adversary, self._y
        if adversary is not None:
            adversary.begins(self.name, job.round.round, self.clock.now, duration)
            y = adversary.labels(self.name, y)
        ticket = self._ticket = fleet.workers.add(Task(self.name, job, self._x, y, dict(self.disk.slots)))

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
                blob = made.blob if adversary is None else adversary.turned(self.name, job, made.blob)
                self.feed(Trained(job, blob, made.slots, STAMP))
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


class AggregatorHost(FleetHost[coordinator_events.Event, coordinator_events.Action]):
    """The coordinator, its history and its test set."""

    machine: RoundCoordinator

    def __init__(
        self, fleet: Fleet, coordinator: RoundCoordinator, evaluate: Callable[[np.ndarray], Evaluated]
    ) -> None:
        super().__init__(fleet, AGGREGATOR)
        self.machine = coordinator
        self.rounds: list[RoundRecord] = []
        self.finished = ""
        self._evaluate = evaluate
        self._late: dict[tuple[str, int], LateUpdate] = {}

    def carry_out(self, action: coordinator_events.Action) -> None:
        match action:
            case Evaluate():
                self.feed(self._evaluate(action.params))
            case Commit():
                record = self._complete(action.record)
                self.rounds.append(record)
                for key in action.drop:
                    del self._late[key]
                if action.params is not None:
                    self.fleet.on_model(record, action.params)
                self.fleet.on_round(record)
            case SaveLate(update):
                self._late[update.device, update.round] = update
            case ReloadLate():
                self.feed(ReloadedLate(list(self._late.values())))
            case SaveAttempt() | SaveSuspects() | SavePaused() | SaveProfile() | Erase() | Answered():
                pass  # it starts once
            case Finished():
                self.finished = action.reason
            case Fenced():
                raise AssertionError(f"the fleet has one aggregator, yet: {action.reason}")
            case _:
                self.carry_out_shared(action)

    def _complete(self, record: RoundRecord) -> RoundRecord:
        """The record with what only a simulation can tell."""
        meter = self.fleet.meter
        joules = None if meter is None else meter.read()
        return msgspec.structs.replace(record, elapsed_s=self.clock.now, joules=joules)


class Fleet:
    """One aggregator, many devices, one broker, one clock."""

    def __init__(
        self,
        workers: Pool,
        faults: Faults,
        *,
        on_round: Callable[[RoundRecord], None] = lambda record: None,
        note: Callable[[str, Note], None] = lambda name, note: None,
        on_model: Callable[[RoundRecord, np.ndarray], None] = lambda record, params: None,
        meter: Meter | None = None,  # of the devices' energy, where a world says what that is
    ) -> None:
        self.meter = meter
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self._deliver)
        self.workers, self.faults, self.on_round, self.note = workers, faults, on_round, note
        self.on_model = on_model
        self.adversary: Adversary | None = None
        self.hosts: dict[str, DeviceHost | AggregatorHost] = {}
        self.shelf = FleetShelf()

    def run(self, aggregator: AggregatorHost, devices: list[DeviceHost], max_virtual_s: float) -> None:
        """Until the aggregator has finished, or the virtual time is up."""
        self.hosts = {aggregator.name: aggregator, **{d.name: d for d in devices}}
        for device in devices:
            device.start()
        self.broker.connect(AGGREGATOR)
        aggregator.feed(WallTime(EPOCH_S))  # once: a virtual clock is never set
        aggregator.feed(Connected())
        look_at = LOOK_S if aggregator.machine.config.only_new_data else max_virtual_s
        while not aggregator.finished and self.clock.now < max_virtual_s and self.clock.advance():
            if self.clock.now >= look_at:
                look_at = self.clock.now + LOOK_S
                self._end_without_news(aggregator, devices)

    def disks(self) -> dict[str, Disk]:
        """The disk of each device."""
        return {name: host.disk for name, host in self.hosts.items() if isinstance(host, DeviceHost)}

    def _end_without_news(self, aggregator: AggregatorHost, devices: list[DeviceHost]) -> None:
        """End the run if no round will open any more, because simulated data never change."""
        machine = aggregator.machine
        fresh = sum(device.machine.is_fresh for device in devices)
        if machine.snapshot().phase == "waiting" and fresh < max(1, machine.config.min_reports):
            aggregator.finished = "only_new_data is set, simulated data never change, and all have been counted"
            self.note(AGGREGATOR, Note("warning", f"the run ends: {aggregator.finished}"))

    def feed_later(self, name: str, event: Event) -> None:
        """One latency from now, unless the host has lost power in between; a slow line takes its time before."""
        host = self.hosts[name]
        boot, passed_at = host.boot, self.clock.now
        size = len(event.topic) + len(event.payload) if isinstance(event, Received) else 0
        host.spend(down=size)
        if host.lines is not None:
            passed_at = host.lines[1].send(size, self.clock.now)
        self.clock.at(passed_at + host.latency_s, lambda: host.feed(event) if host.boot == boot else None)

    def _deliver(self, client: str, topic: str, payload: bytes) -> None:
        self.feed_later(client, Received(topic, payload))
