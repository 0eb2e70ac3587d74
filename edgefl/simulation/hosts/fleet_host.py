"""FleetHost: a host in the fleet, on its clock and its broker. Base of the devices' hosts and of the aggregator's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from ...machine import A, E, Event, Note, Publish, Received, Sent, Subscribe, Unsubscribe
from ...transports.memory import MemoryBroker
from ..clock import VirtualClock
from ..devices.adversary import Adversary
from ..devices.energy import Meter
from ..devices.faults import Faults
from ..devices.line import Line, flow
from ..tasks.slot_file import SlotFile
from ..tasks.spool import Spool
from ..tasks.workers import Pool
from .shelf import FleetShelf
from .virtual_host import VirtualHost

AFTER = 2**40  # more than the number of any device
LATENCY_S = 0.05
KEEPALIVE_S = 60.0


class Ground:
    """What all hosts of a fleet have in common. `meter`: of the devices' energy, where a world says what that is."""

    def __init__(
        self, workers: Pool, faults: Faults, note: Callable[[str, Note], None], meter: Meter | None = None
    ) -> None:
        self.workers, self.faults, self.note, self.meter = workers, faults, note, meter
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self._deliver)
        self.adversary: Adversary | None = None
        self.on_update: Callable[[str, bytes], None] = lambda device, blob: None  # of each training that ends
        self.shelf, self.spool, self.slots = FleetShelf(), Spool(), SlotFile()
        self.keeps_residuals = True  # false: devices are asked so seldom that theirs would expire
        self.hosts: dict[str, FleetHost[Any, Any]] = {}  # that were made, by name
        self.turns = count(AFTER)  # of devices that start again, after all that are made

    def close(self) -> None:
        """Nothing is computed or read any more."""
        self.workers.close()
        self.spool.close()
        self.slots.close()

    def feed_later(self, name: str, event: Event) -> None:
        """One latency from now, unless the host has lost power in between; a slow line takes its time before."""
        host = self.hosts[name]
        boot, passed_at = host.boot, self.clock.now
        if host.lines is not None or self.meter is not None:
            size = len(event.topic) + len(event.payload) if isinstance(event, Received) else 0
            host.spend(down=size)
            passed_at = self.clock.now if host.lines is None else host.lines[1].send(size, self.clock.now)
        self.clock.at(passed_at + host.latency_s, lambda: host.feed(event) if host.boot == boot else None)

    def _deliver(self, client: str, topic: str, payload: bytes) -> None:
        self.feed_later(client, Received(topic, payload))


class FleetHost(VirtualHost[E, A]):
    """A host in the fleet: on its clock and its broker, and with a power switch."""

    def __init__(self, fleet: Ground, name: str) -> None:
        super().__init__(fleet.clock)
        self.fleet, self.name = fleet, name
        self.powered = True
        self.boot = 0
        self.turn = 0  # in which it hears rounds, of all hosts that hear them
        self.lines: tuple[Line, Line] | None = None  # up and down, where they are slow
        self.latency_s = LATENCY_S
        self._told_at = 0.0

    def feed(self, event: E | Event) -> None:
        if self.powered:
            if self.lines is not None:
                self._tell_flow(*self.lines)
            super().feed(event)

    def _tell_flow(self, up: Line, down: Line) -> None:
        """As a host on a real link does, at most once a second."""
        now = self.clock.now
        if now >= self._told_at + 1.0:
            self._told_at = now
            super().feed(flow(up, down, now, keepalive_s=KEEPALIVE_S))

    def spend(self, up: int = 0, down: int = 0) -> None:
        """So many bytes were sent, or received."""

    def publish(self, action: Publish) -> None:
        size, boot = len(action.topic) + len(action.payload), self.boot
        if self.fleet.meter is not None:
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
