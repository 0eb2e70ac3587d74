"""MqttLink: a connection to an MQTT broker that comes back by itself. Used by agent and aggregator.

Design:
  a) One thread a link. It alone touches the connection (connection.py), and calls `on_event` outside all
     locks: publish, subscribe and ack may be called from there or from any other thread.
  b) Messages wait here, in order and bounded, and go out as the broker's ReceiveMaximum lets them: paho's
     own queue lives in memory, knows no such limit and drops the newest when full.
  c) Nothing survives a connection: at its end every waiting or unanswered message gets
     `Published(ok=False)`, subscriptions are void, and unacknowledged messages come again from the
     broker's session. What to repeat is for the state machines above to decide.
  d) MQTT 5 first, 3.1.1 where the broker refuses or drops it. Trying never ends; see backoff.py.

Not here: topics, envelopes, and any decision about a round.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..errors import TransportError
from ..protocol.topics import LONGEST_CLIENT_ID
from .backoff import PAUSE_S, Backoff, Outage, Rate, Reading, Versions
from .connection import (
    BAD_CLIENT_ID,
    BAD_CREDENTIALS,
    CLOSE_S,
    LOST,
    MAX_IN_FLIGHT,
    NOT_AUTHORIZED,
    TAKEN_OVER,
    UNSUPPORTED_VERSION,
    Connection,
    End,
    Settings,
)
from .endpoint import Endpoint, TlsConfig, why
from .events import Down, LinkEvent, Message, Published, Refused, Up

__all__ = ["Down", "LinkEvent", "Message", "MqttLink", "Published", "Refused", "TlsConfig", "Up"]

MAX_QUEUED = 1000
PUBLISH_OVERHEAD = 10  # fixed header 5, topic length 2, packet id 2, empty properties 1
STABLE_S = 30.0  # a connection that held this long was a good one: the back-off starts over
LOG_EVERY_S = 60.0

_ADVICE = {
    BAD_CLIENT_ID: "choose another client id",
    BAD_CREDENTIALS: "check user and password here and in the broker",
    NOT_AUTHORIZED: "check user, password or certificate here, and the broker's users",
}

log = logging.getLogger(__name__)


class MqttLink:
    """A link to one broker, with one fixed `client_id` and a persistent session.

    url: `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS.
    will: (topic, payload), retained, sent by the broker when the link dies without `stop`.
    protocol: "auto", "5" or "3.1.1". backoff_cap_s: the longest wait between two attempts.
    session_expiry_s: how long the broker keeps the session without us (MQTT 3.1.1: for ever); 0, no session.
    receive_maximum: how many unacknowledged messages the broker may send us (MQTT 5 only).
    in_flight: how many unacknowledged messages we send, if the broker takes as many.
    publishes_per_s: how many messages we send in a second at most; None: as many as are acknowledged.
    manual_ack: messages are acknowledged by `ack` only; else once `on_event` was called.
    is_behind: while it says so, nothing is read, and the broker has to keep its messages.
    on_event: gets every event, on the link's thread; what it raises is logged and goes no further.
    Raises TransportError where `url` or `tls` can't be used.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        on_event: Callable[[LinkEvent], None],
        rng: random.Random,
        will: tuple[str, bytes] | None = None,
        keepalive: int = 60,
        protocol: str = "auto",
        session_expiry_s: int = 86400,
        tls: TlsConfig | None = None,
        receive_maximum: int = 10,
        manual_ack: bool = False,
        is_behind: Callable[[], bool] = lambda: False,
        backoff_cap_s: float = 600.0,
        in_flight: int = MAX_IN_FLIGHT,
        publishes_per_s: float | None = None,
    ) -> None:
        endpoint = Endpoint.parse(url, tls)
        self._settings = Settings(
            endpoint, client_id, keepalive, session_expiry_s, receive_maximum, manual_ack, in_flight
        )
        self._where = f"MQTT broker {endpoint}"
        self._will = will
        self._on_event = on_event
        self._reading = Reading(is_behind)
        self._rate = Rate(publishes_per_s)
        self._versions = Versions(protocol)
        self._backoff = Backoff(rng, backoff_cap_s)
        self._outage = Outage(LOG_EVERY_S)
        self._number = 0
        self._short_lives = 0

        self._lock = threading.Lock()  # guards the four below
        self._up: Up | None = None
        self._queue: deque[tuple[int, str, bytes, bool]] = deque()
        self._wishes: deque[Callable[[Connection], None]] = deque()
        self._last_token = 0

        self._stopping = threading.Event()
        self._stop_at, self._leave_will = 0.0, False
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{client_id}", daemon=True)

    def start(self) -> None:
        """Begin connecting, and return at once. A link is started once."""
        self._thread.start()

    def stop(self, timeout: float = 5.0, *, will: bool = False) -> None:
        """Send what is queued for at most `timeout` seconds, then leave: cleanly, or so that the will is sent."""
        self._stop_at, self._leave_will = time.monotonic() + timeout, will
        self._stopping.set()
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout + 2 * CLOSE_S)

    def set_will(self, topic: str, payload: bytes) -> None:
        """The will of the next connection; the present one keeps its own."""
        self._will = (topic, payload)

    def calm(self, seconds: float) -> None:
        """After a lost connection it is early enough to be back by then: a fleet then comes back more gently."""
        self._backoff.calm_s = seconds

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Queue a QoS 1 message and return its token; a `Published` with that token always follows.

        Raises TransportError, and nothing is queued, where the link is down, the message is larger than the
        broker takes, or `MAX_QUEUED` messages are waiting.
        """
        size = len(topic.encode()) + len(payload) + PUBLISH_OVERHEAD
        with self._lock:
            if self._up is None:
                raise TransportError(f"not connected to {self._where}: publish after the next Up")
            limit = self._up.max_packet_bytes
            if limit is not None and size > limit:
                raise TransportError(
                    f"a message of {size} bytes on {topic!r} is more than {self._where} takes ({limit}): "
                    "lower the part size, or raise max_packet_size in the broker"
                )
            if len(self._queue) >= MAX_QUEUED:
                raise TransportError(f"{MAX_QUEUED} messages wait for {self._where}: go on after Published")
            self._last_token += 1
            token = self._last_token
            self._queue.append((token, topic, payload, retain))
            if len(self._queue) == 1:  # else those before it have woken the thread
                self._wake()
        return token

    def subscribe(self, topics: list[str], qos: int = 1) -> None:
        """Without a connection this does nothing: subscribe at every `Up`."""
        self._wish(lambda connection: connection.subscribe(topics, qos))

    def unsubscribe(self, topics: list[str]) -> None:
        self._wish(lambda connection: connection.unsubscribe(topics))

    def ack(self, *handles: tuple[int, int]) -> None:
        """Acknowledge messages (`manual_ack`). One of an earlier connection is left: it comes again."""
        self._wish(lambda connection: connection.ack(*handles))

    def _wish(self, call: Callable[[Connection], None]) -> None:
        with self._lock:
            if self._up is None:
                return
            self._wishes.append(call)
            if len(self._wishes) == 1:
                self._wake()

    def _wake(self) -> None:
        if threading.current_thread() is not self._thread:
            with suppress(OSError):  # full: it is awake already; closed: it has ended
                self._wake_w.send(b"\0")

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._number += 1
            began = time.monotonic()
            connection, end = self._live()
            if self._stopping.is_set():
                self._forget(connection, "the link was stopped")
                break
            reason = self._judge(connection, end, time.monotonic() - began)
            self._forget(connection, "connection lost")
            delay_s = self._backoff.next()
            self._emit(Down(reason, delay_s))
            self._wait(reason, delay_s)
        self._wake_r.close()
        self._wake_w.close()

    def _live(self) -> tuple[Connection | None, End]:
        """One connection from birth to end; it is None where not even the attempt could be made."""
        connection = None
        try:
            connection = Connection(self._settings, self._versions.current, self._will, self._number)
            connection.open()
            self._serve(connection)
            return connection, connection.end or End("closed")
        except OSError as error:
            return connection, End(why(error))
        except Exception as error:
            # paho may raise on bytes that no sane broker sends; an unattended device must survive that.
            log.exception("the connection to %s broke", self._where)
            return connection, End(f"{type(error).__name__}: {error}")
        finally:
            if connection is not None:
                connection.abandon()

    def _serve(self, connection: Connection) -> None:
        tick_s = min(5.0, self._settings.keepalive / 8)
        while connection.end is None:
            self._send(connection)
            if self._stopping.is_set():
                left_s = self._stop_at - time.monotonic()
                if left_s <= 0 or connection.up is None or not (self._queue or connection.in_flight):
                    if not self._leave_will:
                        connection.close(self._wake_r)
                    return
                tick_s = min(tick_s, left_s)
            read = self._reading.allowed(time.monotonic())
            sleep_s = min(tick_s, self._rate.wait_s(time.monotonic()) or tick_s) if self._queue else tick_s
            connection.step(sleep_s if read else PAUSE_S, self._wake_r, read)
            for event in connection.take():
                self._emit(event)

    def _send(self, connection: Connection) -> None:
        while self._wishes:
            self._wishes.popleft()(connection)
        while self._queue and connection.room > 0 and not self._rate.wait_s(now := time.monotonic()):
            self._rate.count(now)
            connection.publish(*self._queue[0])
            self._queue.popleft()

    def _forget(self, connection: Connection | None, reason: str) -> None:
        """From here on publish raises, and every token is answered."""
        for event in connection.take() if connection else ():
            self._emit(event)
        with self._lock:
            self._up = None
            tokens = [message[0] for message in self._queue]
            self._queue.clear()
            self._wishes.clear()
        for token in (connection.unanswered() if connection else []) + tokens:
            self._emit(Published(token, False, reason))

    def _judge(self, connection: Connection | None, end: End, lasted_s: float) -> str:
        """Learn from a connection that ended; returns the reason, in the operator's words."""
        up = connection is not None and connection.up is not None
        opened = connection is not None and connection.opened
        unsupported = end.code == UNSUPPORTED_VERSION
        self._versions.learn(up=up, hung_up=opened and end.code is None, unsupported=unsupported)
        if end.code in _ADVICE or (unsupported and self._versions.pinned):
            self._backoff.slow()
            return self._refused(end)
        if not up:
            return end.reason
        if end.code == TAKEN_OVER:
            return f"{end.reason}: another client has the id {self._settings.client_id!r}, give each its own"
        if lasted_s >= STABLE_S:
            self._backoff.reset()
            self._short_lives = 0
            return end.reason
        self._short_lives += 1
        guess = ": does another client have its id?" if end.reason == LOST else ""
        return end.reason + (f", {self._short_lives} times in a row{guess}" if self._short_lives > 1 else "")

    def _refused(self, end: End) -> str:
        user = f"user {self._settings.endpoint.user!r}" if self._settings.endpoint.user else "no user name"
        advice = _ADVICE.get(end.code or 0, "set the protocol to auto")
        if end.code == BAD_CLIENT_ID and len(self._settings.client_id) > LONGEST_CLIENT_ID:
            advice = (
                f"an MQTT 3.1.1 broker may refuse more than {LONGEST_CLIENT_ID} characters: set [mqtt] client_id to a "
                "short name that no other client has"
            )
        reason = f"{end.reason}, with {user}, id {self._settings.client_id!r}: {advice}"
        self._emit(Refused(reason, fatal=end.code in (UNSUPPORTED_VERSION, BAD_CLIENT_ID)))
        return reason

    def _wait(self, reason: str, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while True:
            now = time.monotonic()
            so_far_s = self._outage.due(now)
            if so_far_s is not None:
                line = "cannot reach %s (%s); still trying, %.0f s so far"
                log.warning(line, self._where, reason, so_far_s)
            if now >= until or self._stopping.wait(min(until - now, self._outage.next_in(now))):
                return

    def _emit(self, event: LinkEvent) -> None:
        if isinstance(event, Up):
            took_s = self._outage.over(time.monotonic())
            log.info("connected to %s, MQTT %s, after %.0f s", self._where, event.protocol, took_s)
            with self._lock:
                self._up = event
        elif isinstance(event, Refused):
            log.warning("%s: %s", self._where, event.reason)
        try:
            self._on_event(event)
        except Exception:
            log.exception("on_event failed on %s", type(event).__name__)
