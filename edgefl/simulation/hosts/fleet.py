"""A fleet in memory: real sessions and a real coordinator on a virtual clock.

Design:
  a) Messages are those of a real fleet; only sockets, clocks and disks are simulated. A part of a large update is not
     written into bytes that nobody would send (protocol/envelope.py).
  b) Time is virtual, and so is the time of day. A message takes LATENCY_S, and training takes a time in proportion to
     its examples; a round of ten thousand devices takes as long as its arithmetic.
  c) All randomness comes from one seed: a run repeats bit for bit, with any number of workers.
  d) What costs a large fleet most is done once, or not at all: crowd.py makes devices when they are asked, shelf.py
     reads a message once for all devices, shares.py has a device train on its examples where they lie, spool.py keeps
     large updates, whose parts nobody writes into messages; and parts are long where no link is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from ...coordinator import events as coordinator_events
from ...coordinator.coordinator import RoundCoordinator
from ...coordinator.events import (
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
    SaveAsk,
    SaveAttempt,
    SaveLate,
    SavePaused,
    SaveProfile,
    SaveSuspects,
)
from ...history_record import RoundRecord
from ...machine import Connected, Note, Publish, WallTime
from ...privacy.ledger import SaveLedger
from ...protocol.messages import RETAINED_LIMIT, decode
from ...protocol.round import Round
from ..devices.energy import Meter
from ..devices.faults import Faults
from ..tasks.workers import Pool
from .crowd import Crowd
from .device_host import DeviceHost
from .disk import Disk
from .fleet_host import FleetHost, Ground
from .helper_host import HelperHost

EPOCH_S = 1_767_225_600.0  # 2026-01-01, 00:00 UTC: the virtual time of day at the start
LOOK_S = 60.0  # between two looks whether there are new data
AGGREGATOR = "aggregator"


class AggregatorHost(FleetHost[coordinator_events.Event, coordinator_events.Action]):
    """The coordinator, its history and its test set."""

    machine: RoundCoordinator
    fleet: Fleet

    def __init__(
        self, fleet: Fleet, coordinator: RoundCoordinator, evaluate: Callable[[np.ndarray], Evaluated]
    ) -> None:
        super().__init__(fleet, AGGREGATOR)
        self.machine = coordinator
        self.rounds: list[RoundRecord] = []
        self.finished = ""
        self.evaluate = evaluate
        self._late: dict[tuple[str, int], LateUpdate] = {}

    def _publish(self, action: Publish) -> None:
        """Of the rounds, devices that have nothing to do hear only those that ask them."""
        if action.topic != self.machine.topics.round:
            super()._publish(action)
            return
        fleet, round = self.fleet, decode(Round, action.payload.partition(b"\n")[0], RETAINED_LIMIT)  # it may be sealed
        woken = fleet.crowd.prepare(round, len(action.payload))
        fleet.broker.resume(woken, action.topic, lambda name: fleet.hosts[name].turn)
        super()._publish(action)

    def carry_out(self, action: coordinator_events.Action) -> None:
        match action:
            case Evaluate():
                self.feed(self.evaluate(action.params))
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
            case (
                SaveAttempt()
                | SaveAsk()
                | SaveLedger()
                | SaveSuspects()
                | SavePaused()
                | SaveProfile()
                | Erase()
                | Answered()
            ):
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


class Fleet(Ground):
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
        super().__init__(workers, faults, note, meter)
        self.on_round, self.on_model = on_round, on_model
        self.crowd: Crowd

    def run(
        self, aggregator: AggregatorHost, crowd: Crowd, max_virtual_s: float, helpers: Sequence[HelperHost] = ()
    ) -> None:
        """Until the aggregator has finished, or the virtual time is up."""
        self.crowd, self.hosts = crowd, {aggregator.name: aggregator, **{host.name: host for host in helpers}}
        for helper in helpers:
            helper.power_on()
        aggregator.machine.presence.know(crowd.start())
        self.broker.connect(AGGREGATOR)
        aggregator.feed(WallTime(EPOCH_S))  # once: a virtual clock is never set
        aggregator.feed(Connected())
        look_at = LOOK_S if aggregator.machine.config.only_new_data else max_virtual_s
        while not aggregator.finished and self.clock.now < max_virtual_s and self.clock.advance():
            if self.clock.now >= look_at:
                look_at = self.clock.now + LOOK_S
                self._end_without_news(aggregator)

    def disks(self) -> dict[str, Disk]:
        """The disk of each device that was made."""
        return {name: host.disk for name, host in self.hosts.items() if isinstance(host, DeviceHost)}

    def _end_without_news(self, aggregator: AggregatorHost) -> None:
        """End the run if no round will open any more, because simulated data never change."""
        machine = aggregator.machine
        if machine.snapshot().phase == "waiting" and self.crowd.fresh() < max(1, machine.config.min_reports):
            aggregator.finished = "only_new_data is set, simulated data never change, and all have been counted"
            self.note(AGGREGATOR, Note("warning", f"the run ends: {aggregator.finished}"))
