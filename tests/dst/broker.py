"""An MQTT broker whose connections break and whose memory fails: sessions, QoS 1, retained messages, wills.

A message to a client is kept until its acknowledgement has arrived, and sent again in order when the client is back
(MQTT 5, 4.4). Order holds within a topic only. What no honest broker may do (invent a message, change one) is not here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from edgefl.simulation.clock import VirtualClock
from edgefl.transports.memory import filter_pattern

from .link import Client, Connection, Delivery
from .schedule import Weather


@dataclass
class Session:
    """What the broker keeps of a client."""

    exact: set[str] = field(default_factory=set)
    patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    connection: Connection | None = None

    def wants(self, topic: str) -> bool:
        return topic in self.exact or any(pattern.fullmatch(topic) for pattern in self.patterns.values())

    def forget_acknowledged(self, now: float) -> None:
        self.deliveries = [d for d in self.deliveries if d.acknowledged_at is None or d.acknowledged_at > now]

    def copy(self) -> Session:
        """As it lies in a snapshot: what is acknowledged later is not known there."""
        deliveries = [Delivery(d.topic, d.payload) for d in self.deliveries]
        return Session(set(self.exact), dict(self.patterns), deliveries)


class Broker:
    """`retained` and `sessions` are its memory; `snapshot` what lies on its disk."""

    def __init__(self, clock: VirtualClock, weather: Weather, rng: random.Random, trace: Callable[..., None]) -> None:
        self.retained: dict[str, bytes] = {}
        self.sessions: dict[str, Session] = {}
        self.up = True
        self.rates: dict[str, float] = {}  # bytes a second of slow links, by client
        self._clock, self._weather, self._rng, self._trace = clock, weather, rng, trace
        self._last: dict[str, Connection] = {}  # each client's
        self._saved: tuple[dict[str, bytes], dict[str, Session]] = ({}, {})

    # A client's side of a connection

    def connect(self, client: Client, will: tuple[str, bytes] | None, persistent: bool) -> Connection | None:
        """A new connection, which throws an older one out; None while the broker is down or frozen."""
        if not self.up or self._clock.now < self._weather.frozen_until:
            return None
        session = self.sessions.get(client.name)
        if session is not None and session.connection is not None:
            self._throw_out(session.connection, client)
            session = self.sessions.get(client.name)
        if session is None or not persistent:
            session = self.sessions[client.name] = Session()
        connection = session.connection = Connection(
            self._clock, self._weather, client, will, self.rates.get(client.name), self._last.get(client.name)
        )
        self._last[client.name] = connection
        connection.down("connack", lambda: self._resume(connection, client.name))
        return connection

    def _throw_out(self, connection: Connection, newcomer: Client) -> None:
        """One id, one connection. Who throws itself out knows that its old connection is over."""
        connection.sever()
        self.notice(connection)
        if connection.client is not newcomer:
            self._clock.after(self._weather.latency(), lambda: connection.client.on_closed(connection))

    def _resume(self, connection: Connection, name: str) -> None:
        connection.client.on_connected(connection)
        session = self.sessions.get(name)
        if session is not None and session.connection is connection:
            for delivery in session.deliveries:
                self._send(connection, delivery)

    def publish(
        self, connection: Connection, topic: str, payload: bytes, retain: bool, acknowledge: Callable[[], None] | None
    ) -> None:
        """The client publishes at QoS 1; `acknowledge` is called at its end when the PUBACK has come back."""

        def arrive() -> None:
            self.route(topic, payload, retain)
            if acknowledge is not None:
                connection.down("puback", acknowledge)

        connection.up("up " + topic, arrive, len(topic) + len(payload))

    def subscribe(self, connection: Connection, topics: tuple[str, ...]) -> None:
        connection.up("subscriptions", lambda: self._subscribe(connection, topics), _length(topics))

    def unsubscribe(self, connection: Connection, topics: tuple[str, ...]) -> None:
        connection.up("subscriptions", lambda: self._unsubscribe(connection, topics), _length(topics))

    def acknowledge(self, connection: Connection, delivery: Delivery) -> None:
        """The client's PUBACK is under way; if the connection is severed first, the message comes again."""
        if not connection.severed:
            delivery.acknowledged_at = connection.puback()

    def leave(self, connection: Connection) -> None:
        """DISCONNECT: no will."""
        connection.will = None
        connection.sever()
        self.notice(connection)

    # The broker's side

    def _session_of(self, connection: Connection) -> Session | None:
        session = self.sessions.get(connection.client.name)
        return session if session is not None and session.connection is connection else None

    def _subscribe(self, connection: Connection, topics: tuple[str, ...]) -> None:
        session = self._session_of(connection)
        if session is None:
            return
        for topic in topics:
            if "+" in topic or "#" in topic:
                pattern = session.patterns[topic] = filter_pattern(topic)
                found = [name for name in self.retained if pattern.fullmatch(name)]
            else:
                session.exact.add(topic)
                found = [topic] if topic in self.retained else []
            for name in found:
                self._deliver(session, name, self.retained[name])
                connection.expect("down " + name)

    def _unsubscribe(self, connection: Connection, topics: tuple[str, ...]) -> None:
        session = self._session_of(connection)
        if session is not None:
            session.exact.difference_update(topics)
            for topic in topics:
                session.patterns.pop(topic, None)

    def route(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """To every session that wants it; a retained empty payload clears what was retained."""
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for session in self.sessions.values():
            if session.wants(topic):
                for _ in range(1 + self._weather.repeats()):
                    self._deliver(session, topic, payload)

    def _deliver(self, session: Session, topic: str, payload: bytes) -> None:
        """A full queue drops the newest."""
        if len(session.deliveries) >= self._weather.max_queued:
            session.forget_acknowledged(self._clock.now)
            if len(session.deliveries) >= self._weather.max_queued:
                self._trace("broker", "queue full, lost: %s", topic)
                return
        delivery = Delivery(topic, payload)
        session.deliveries.append(delivery)
        if session.connection is not None:
            self._send(session.connection, delivery)

    def _send(self, connection: Connection, delivery: Delivery) -> None:
        size = len(delivery.topic) + len(delivery.payload)
        connection.down("down " + delivery.topic, lambda: connection.client.on_message(connection, delivery), size)

    def notice(self, connection: Connection) -> None:
        """The connection is gone: its will is published, at once or some time later."""
        session = self._session_of(connection)
        if session is not None:
            session.forget_acknowledged(connection.severed_at)
            for delivery in session.deliveries:
                delivery.acknowledged_at = None  # that one was lost on its way
            session.connection = None
        will, connection.will = connection.will, None
        if will is not None:
            self._clock.after(self._weather.will_delay(), lambda: self.route(*will, retain=True))

    # Faults

    def snapshot(self) -> None:
        """Write to disk what a restart may come back with."""
        self._saved = (dict(self.retained), {name: session.copy() for name, session in self.sessions.items()})

    def crash(self, memory: str) -> list[Connection]:
        """Down, at once; the connections that broke. `memory`: "kept", "lost", or "old", that of the snapshot."""
        self.up = False
        broken = [s.connection for s in self.sessions.values() if s.connection is not None]
        for connection in broken:
            connection.sever()
            connection.will = None
            self.notice(connection)
        if memory == "lost":
            self.retained, self.sessions = {}, {}
        elif memory == "old":
            retained, sessions = self._saved
            self.retained, self.sessions = dict(retained), {name: s.copy() for name, s in sessions.items()}
        return broken

    def forget_session(self, name: str) -> None:
        """Amnesia: the client's subscriptions and messages are gone, whether or not it is connected."""
        session = self.sessions.get(name)
        if session is not None:
            self.sessions[name] = Session(connection=session.connection)


def _length(topics: tuple[str, ...]) -> int:
    return sum(len(topic) for topic in topics)
