"""Host: a process that may die between any two actions, with a clock and a connection of its own.

It does what edgefl.hosting.link_host does: actions in their order, a message acknowledged after its actions,
nothing kept of a connection that is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgefl.errors import StoreError
from edgefl.machine import (
    A,
    Connected,
    Disconnected,
    E,
    Event,
    Note,
    Publish,
    Received,
    Sent,
    Subscribe,
    Unsubscribe,
    WallTime,
)
from edgefl.simulation.hosts.fleet import EPOCH_S
from edgefl.simulation.hosts.virtual_host import VirtualHost

from .disks import PowerLost, flipped
from .link import Connection, Delivery

if TYPE_CHECKING:
    from .world import World

LONGEST_BACKOFF_S = 30.0
SILENCE_S = 90.0  # a keep-alive and a half: then the other end is given up
RESTART_S = 20.0  # within so long a process that has died is started again


class Host(VirtualHost[E, A]):
    """A process, its clock and its connection. `die_in` counts actions down to a sudden death."""

    will: tuple[str, bytes] | None = None
    stable_s = 0.0  # the back-off starts over only after a connection that held for so long

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world.clock)
        self.world, self.name = world, name
        self.alive = self.gone = False
        self.boot = 0
        self.starts = 0
        self.connection: Connection | None = None
        self.partitioned_until = 0.0
        self.die_in: int | None = None
        self._frozen_until = 0.0
        self._frozen: list[Callable[[], None]] = []  # what waits for its end
        self._offset, self._rate = 0.0, 1.0
        self._tries, self._up_at = 0, 0.0

    # The process

    def now(self) -> float:
        """This process's monotonic clock."""
        return self._offset + self._rate * self.clock.now

    def virtual(self, at: float) -> float:
        return self.clock.now + max(0.0, at - self.now()) / self._rate + 0.01

    def jump(self, seconds: float) -> None:
        """Its clock leaps ahead: the machine was asleep."""
        self._offset += seconds
        self._tick_at = None
        if self.alive:
            self.plan_tick()

    def start(self) -> None:
        if self.alive or self.gone:
            return
        rng = self.world.rng
        self.alive, self.die_in = True, None
        self.starts += 1
        self._rate = rng.uniform(0.95, 1.05)
        self._offset = rng.uniform(0, 1000) - self._rate * self.clock.now
        self._tries, self._tick_at, self._frozen_until = 0, None, 0.0
        self._up_at = self.clock.now
        self.boot_up()
        self.feed(WallTime(EPOCH_S + self.clock.now))
        self.connect()

    def boot_up(self) -> None:
        raise NotImplementedError

    def die(self, why: str) -> None:
        """kill -9, or power lost; somebody starts it again."""
        if not self.alive:
            return
        self.world.trace(self.name, "dies: %s", why)
        self.alive = False
        self._frozen.clear()
        connection, self.connection = self.connection, None
        if connection is not None:
            self.world.sever(connection)
        self.clock.after(self.world.rng.uniform(0.1, RESTART_S), self.start)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP: nothing happens here until the thaw. Its connection stays until the broker misses a sign of life."""
        if not self.alive:
            return
        self.world.trace(self.name, "frozen for %d s", seconds)
        self._frozen_until = self.clock.now + seconds
        self.clock.at(self._frozen_until, self._thaw)
        connection = self.connection
        if connection is not None:
            self.clock.after(SILENCE_S, lambda: self._miss(connection))

    def thaw(self) -> None:
        """SIGCONT: what has come in the meantime is processed."""
        self._frozen_until = 0.0
        self._thaw()

    @property
    def is_frozen(self) -> bool:
        return self.clock.now < self._frozen_until

    def _thaw(self) -> None:
        if not self.is_frozen:
            waiting, self._frozen = self._frozen, []
            for call in waiting:
                call()

    def _miss(self, connection: Connection) -> None:
        if self.is_frozen and connection is self.connection:
            self.world.sever(connection)

    def _waits(self, call: Callable[[], None]) -> bool:
        """Whether this process is frozen; it will call `call` when it is not."""
        if self.is_frozen:
            self._frozen.append(call)
        return self.is_frozen

    # The connection

    def connect(self) -> None:
        if self._waits(self.connect):
            return
        if not self.alive or self.connection is not None:
            return
        if self.clock.now >= self.partitioned_until:
            self.connection = self.world.broker.connect(self, self.will, self.world.schedule.persistent)
        if self.connection is None:
            self._connect_later()

    def _connect_later(self) -> None:
        self._tries += 1
        starts = self.starts
        delay_s = self.world.rng.uniform(0.5, min(LONGEST_BACKOFF_S, 2.0**self._tries))
        self.clock.after(delay_s, lambda: self.connect() if starts == self.starts else None)

    def on_connected(self, connection: Connection) -> None:
        if not self._waits(lambda: self.on_connected(connection)) and connection is self.connection:
            self._up_at = self.clock.now
            if not self.stable_s:
                self._tries = 0
            self.feed(Connected(self.boot))

    def on_closed(self, connection: Connection) -> None:
        """The process notices that its connection is over."""
        if self._waits(lambda: self.on_closed(connection)):
            return
        if connection is not self.connection:
            return
        self.connection = None
        if self.clock.now >= self._up_at + self.stable_s:
            self._tries = 0
        self.boot += 1
        self.feed(Disconnected())
        self._connect_later()

    def on_message(self, connection: Connection, delivery: Delivery) -> None:
        if self._waits(lambda: self.on_message(connection, delivery)):
            return
        if connection is not self.connection:
            return
        payload, damaged = delivery.payload, False
        if payload.startswith(b"EFLT") and self.world.weather.damages():
            payload, damaged = flipped(payload, self.world.rng.getrandbits(16)), True
        self.feed(Received(delivery.topic, payload), damaged)
        if connection is self.connection:
            self.world.broker.acknowledge(connection, delivery)

    def on_acknowledged(self, connection: Connection, token: int) -> None:
        if not self._waits(lambda: self.on_acknowledged(connection, token)) and connection is self.connection:
            self.feed(Sent(token, True))

    # The machine

    def feed(self, event: E | Event, damaged: bool = False) -> None:
        """One event in, its actions out, or as many as the process lives to carry out."""
        if not self.alive or self._waits(lambda: self.feed(event, damaged)):
            return
        self.world.trace_event(self, event, damaged)
        checker = self.world.checker
        before = checker.before(self)
        try:
            if self.connection is not None and (flow := self.connection.measure()) is not None:
                super().feed(flow)
            super().feed(event)
        except PowerLost:
            self.die("killed at an action")
        except StoreError as error:
            self.die(f"stops: {error}")
        else:
            checker.after(self, event, before, damaged)

    def answer(self, event: E) -> None:
        """The answer to an action, at once: it belongs to the event that is being handled."""
        super().feed(event)

    def carry_out(self, action: A) -> None:
        if self.die_in is not None:
            self.die_in -= 1
            if self.die_in < 0:
                raise PowerLost
        self.act(action)

    def act(self, action: A) -> None:
        raise NotImplementedError

    def publish(self, action: Publish) -> None:
        self.world.checker.publishes(self, action)
        connection, token = self.connection, action.token
        if connection is not None:
            sent = None if token is None else lambda: self.on_acknowledged(connection, token)
            self.world.broker.publish(connection, action.topic, action.payload, action.retain, sent)

    def subscribe(self, action: Subscribe) -> None:
        self.world.checker.subscribes(self, action)
        if self.connection is not None:
            for topic in action.topics:
                self.connection.want("down " + topic)
            self.world.broker.subscribe(self.connection, action.topics)

    def unsubscribe(self, action: Unsubscribe) -> None:
        if self.connection is not None:
            for topic in action.topics:
                self.connection.forget("down " + topic)
            self.world.broker.unsubscribe(self.connection, action.topics)

    def note(self, action: Note) -> None:
        self.world.trace(self.name, "note: %s", action.text)
