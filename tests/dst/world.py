"""World: one aggregator, some devices, a broker and their disks on one clock; the faults, and then the healing."""

from __future__ import annotations

import random
from collections.abc import Callable

from edgefl.errors import ProtocolError
from edgefl.machine import Received
from edgefl.protocol.envelope import Envelope
from edgefl.simulation.clock import VirtualClock

from .broker import Broker
from .checker import Checker
from .disks import AggregatorDisk
from .earlier import leave_behind
from .faults import Faults
from .helpers import HelperHost
from .host import Host
from .hosts import AggregatorHost, DeviceHost
from .keys import Adversary
from .link import Connection
from .losses import Losses
from .operator import Operator
from .schedule import Schedule

NOTICE_S = 30.0  # within so long an end notices that its connection is over


class World:
    """`run` raises Violation."""

    has_operator = True

    def __init__(self, schedule: Schedule, show: Callable[[str], None] | None = None) -> None:
        self.schedule = schedule
        self.rng = random.Random(schedule.seed + 1)
        self.clock = VirtualClock()
        self.healed_at: float | None = None
        self._show = show
        self.weather = schedule.weather(self.rng)
        self.broker = Broker(self.clock, self.weather, self.rng, self.trace)
        self.aggregators = [AggregatorHost(self, AggregatorDisk(schedule.manifest.run))]
        self.devices = [DeviceHost(self, name) for name in schedule.devices]
        self.helpers = [HelperHost(self)] if schedule.masked else []
        self.checker = Checker(self)
        self.losses = Losses(self)
        self.faults = Faults(self)
        self.adversary = Adversary(self)
        if schedule.earlier_run:
            leave_behind(self)

    @property
    def aggregator(self) -> AggregatorHost:
        return self.aggregators[0]

    @property
    def hosts(self) -> list[AggregatorHost | DeviceHost | HelperHost]:
        return [*self.aggregators, *self.devices, *self.helpers]

    def run(self) -> None:
        """Faults until the schedule's healing, then until every promise about what follows is kept."""
        for host in self.hosts:
            late = host.name in self.schedule.late
            self.clock.after(self.rng.uniform(0, self.schedule.heal_at if late else 3.0), host.start)
        self.faults.start()
        operator = Operator(self)
        while self.clock.now < self.schedule.heal_at and self.clock.advance():
            pass
        self.healed_at = self.clock.now
        self.trace("world", "healed")
        self.checker.liveness.heal()
        self.faults.heal()
        operator.heal()
        while not self.checker.liveness.satisfied() and self.clock.advance():
            pass

    def sever(self, connection: Connection) -> None:
        """The connection breaks; each end notices in its own time."""
        connection.sever()
        self.clock.after(self.rng.uniform(0, NOTICE_S), lambda: self.broker.notice(connection))
        self.clock.after(self.rng.uniform(0, NOTICE_S), lambda: connection.client.on_closed(connection))

    # Trace

    def trace(self, who: str, text: str, *args: object) -> None:
        if self._show is not None:
            self._show(f"{self.clock.now:9.3f}  {who:10}  {text % args if args else text}")

    def trace_event(self, host: Host, event: object, damaged: bool) -> None:
        if self._show is None:
            return
        text = type(event).__name__
        if isinstance(event, Received):
            text = f"<- {event.topic.split('/', 3)[3]} {_summary(event.payload)}{' DAMAGED' if damaged else ''}"
        self.trace(host.name, "%s", text)


def _summary(payload: bytes) -> str:
    if not payload.startswith(b"EFLT"):
        return payload[:150].decode(errors="replace")
    try:
        e = Envelope.from_bytes(payload)
    except ProtocolError as error:
        return str(error)
    return f"{e.kind.name} round {e.round} version {e.version} part {e.part + 1}/{e.parts} of {e.blob.hex()}"
