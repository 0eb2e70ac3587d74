"""Host: a process that may die between any two actions, with a clock and a connection of its own.

It does what edgefl.hosting.link_host does: actions in their order, a message acknowledged after its actions,
nothing kept of a connection that is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.device.session import DeviceSession
from edgefl.errors import StoreError
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Sent, Subscribe, Tick, Unsubscribe

from .broker import Connection, Delivery
from .disks import PowerLost, flipped

if TYPE_CHECKING:
    from .world import World

LONGEST_BACKOFF_S = 30.0
RESTART_S = 20.0  # within so long a process that has died is started again


class Host:
    """A process, its clock and its connection. `die_in` counts actions down to a sudden death."""

    machine: DeviceSession | RoundCoordinator
    will: tuple[str, bytes] | None = None

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.alive = self.gone = False
        self.boot = 0
        self.starts = 0
        self.connection: Connection | None = None
        self.partitioned_until = 0.0
        self.die_in: int | None = None
        self._offset, self._rate = 0.0, 1.0
        self._tries = 0
        self._tick_at: float | None = None

    # The process

    @property
    def now(self) -> float:
        """This process's monotonic clock."""
        return self._offset + self._rate * self.world.clock.now

    def jump(self, seconds: float) -> None:
        """Its clock leaps ahead: the machine was asleep."""
        self._offset += seconds
        self._tick_at = None
        self._plan_tick()

    def start(self) -> None:
        if self.alive or self.gone:
            return
        rng = self.world.rng
        self.alive, self.die_in = True, None
        self.starts += 1
        self._rate = rng.uniform(0.95, 1.05)
        self._offset = rng.uniform(0, 1000) - self._rate * self.world.clock.now
        self._tries, self._tick_at = 0, None
        self.boot_up()
        self.connect()

    def boot_up(self) -> None:
        raise NotImplementedError

    def die(self, why: str) -> None:
        """kill -9, or power lost; somebody starts it again."""
        if not self.alive:
            return
        self.world.trace(self.name, "dies: %s", why)
        self.alive = False
        connection, self.connection = self.connection, None
        if connection is not None:
            self.world.sever(connection)
        self.world.clock.after(self.world.rng.uniform(0.1, RESTART_S), self.start)

    # The connection

    def connect(self) -> None:
        if not self.alive or self.connection is not None:
            return
        if self.world.clock.now >= self.partitioned_until:
            self.connection = self.world.broker.connect(self, self.will, self.world.schedule.persistent)
        if self.connection is None:
            self._connect_later()

    def _connect_later(self) -> None:
        self._tries += 1
        starts = self.starts
        delay_s = self.world.rng.uniform(0.5, min(LONGEST_BACKOFF_S, 2.0**self._tries))
        self.world.clock.after(delay_s, lambda: self.connect() if starts == self.starts else None)

    def on_connected(self, connection: Connection) -> None:
        if connection is self.connection:
            self._tries = 0
            self.feed(Connected(self.boot))

    def on_closed(self, connection: Connection) -> None:
        """The process notices that its connection is over."""
        if connection is not self.connection:
            return
        self.connection = None
        self.boot += 1
        self.feed(Disconnected())
        self._connect_later()

    def on_message(self, connection: Connection, delivery: Delivery) -> None:
        if connection is not self.connection:
            return
        payload, damaged = delivery.payload, False
        if payload.startswith(b"EFLT") and self.world.weather.damages():
            payload, damaged = flipped(payload, self.world.rng.getrandbits(16)), True
        self.feed(Received(delivery.topic, payload), damaged)
        if connection is self.connection:
            self.world.broker.acknowledge(delivery)

    def on_acknowledged(self, connection: Connection, token: int) -> None:
        if connection is self.connection:
            self.feed(Sent(token, True))

    # The machine

    def feed(self, event: object, damaged: bool = False) -> None:
        """One event in, its actions out, or as many as the process lives to carry out."""
        if not self.alive:
            return
        self.world.trace_event(self, event, damaged)
        checker = self.world.checker
        before = checker.before(self)
        try:
            self._carry_out_all(event)
        except PowerLost:
            self.die("killed at an action")
        except StoreError as error:
            self.die(f"stops: {error}")
        else:
            checker.after(self, event, before, damaged)
            self._plan_tick()

    def _carry_out_all(self, event: object) -> None:
        for action in self.machine.step(event, self.now):
            if self.die_in is not None:
                self.die_in -= 1
                if self.die_in < 0:
                    raise PowerLost
            self.carry_out(action)

    def _plan_tick(self) -> None:
        wake_at = self.machine.wake_at
        if wake_at is None or not self.alive:
            return
        clock, starts = self.world.clock, self.starts
        at = clock.now + max(0.0, wake_at - self.now) / self._rate + 0.01
        if self._tick_at is None or at < self._tick_at:
            self._tick_at = at
            clock.after(at - clock.now, lambda: self._tick(at) if starts == self.starts else None)

    def _tick(self, at: float) -> None:
        if at == self._tick_at:
            self._tick_at = None
            self.feed(Tick())

    def carry_out(self, action: object) -> None:
        broker, connection = self.world.broker, self.connection
        match action:
            case Publish(topic, payload, retain, token):
                self.world.checker.publishes(self, action)
                if connection is not None:
                    sent = None if token is None else lambda: self.on_acknowledged(connection, token)
                    broker.publish(connection, topic, payload, retain, sent)
            case Subscribe(topics):
                if connection is not None:
                    broker.subscribe(connection, topics)
            case Unsubscribe(topics):
                if connection is not None:
                    broker.unsubscribe(connection, topics)
            case Note():
                self.world.trace(self.name, "note: %s", action.text)
            case _:
                raise TypeError(f"no such action: {action!r}")
