"""MqttLink: a connection to an MQTT broker that comes back by itself. Used by agent and aggregator.

Design:
  a) Each link has one thread. Only that thread uses the connection (connection.py), and it calls `on_event` outside
     all locks: publish, subscribe and ack may be called from there or from any other thread.
  b) Messages wait here, in order, in a bounded queue, and go out as the broker's ReceiveMaximum allows. paho's own
     queue does not know that limit, and drops the newest message when full.
  c) Nothing survives a connection: at its end every waiting or unanswered message gets `Published(ok=False)`,
     subscriptions are void, and unacknowledged messages come again from the broker's session. The state machines above
     decide what to repeat.
  d) The link tries MQTT 5 first, and 3.1.1 where the broker refuses or drops that. It never stops trying: backoff.py
     says when, verdict.py what each failure teaches.

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
from ..machine import Flow
from .backoff import PAUSE_S, Backoff, Outage, Rate, Reading, Versions
from .connection import CLOSE_S, MAX_IN_FLIGHT, Connection, End, Settings
from .endpoint import NO_LOGIN, Endpoint, Login, TlsConfig, why
from .events import Down, LinkEvent, Message, Published, Refused, Up
from .traffic import Gauge
from .verdict import Verdict

__all__ = ["Down", "LinkEvent", "Login", "Message", "MqttLink", "Published", "Refused", "TlsConfig", "Up"]

MAX_QUEUED = 1000
PUBLISH_OVERHEAD = 10  # fixed header 5, topic length 2, packet id 2, empty properties 1
LOG_EVERY_S = 60.0
LOOK_S = 1.0  # between two looks at what has passed the link
STOP_S = 2.0

log = logging.getLogger(__name__)


class MqttLink:
    """A link to one broker, with one fixed `client_id` and a persistent session.

    url: `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS.
    will: (topic, payload), retained, sent by the broker when the link dies without `stop`.
    protocol: "auto", "5" or "3.1.1". backoff_cap_s: the longest wait between two attempts.
    session_expiry_s: how long the broker keeps the session without us (MQTT 3.1.1: without end); 0: no session.
    receive_maximum: how many unacknowledged messages the broker may send us (MQTT 5 only).
    in_flight: how many unacknowledged messages we send, if the broker takes as many.
    publishes_per_s: how many messages we may send in a second; None: no limit but the acknowledgements.
    manual_ack: messages are acknowledged by `ack` only; else once `on_event` was called.
    is_behind: while it returns True, the link reads nothing, and the broker has to keep its messages.
    on_event: is called with every event, on the link's thread; an exception from it is logged.
    login: user and password, if `url` has none.
    Raises UsageError if `url` or `tls` can't be used.
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
        login: Login = NO_LOGIN,
        receive_maximum: int = 10,
        manual_ack: bool = False,
        is_behind: Callable[[], bool] = lambda: False,
        backoff_cap_s: float = 600.0,
        in_flight: int = MAX_IN_FLIGHT,
        publishes_per_s: float | None = None,
    ) -> None:
        endpoint = Endpoint.parse(url, tls, login)
        self._settings = Settings(
            endpoint, client_id, keepalive, session_expiry_s, receive_maximum, manual_ack, in_flight
        )
        self._where = f"MQTT broker {endpoint}"
        self._will = will
        self._on_event = on_event
        self._reading = Reading(is_behind, keepalive)
        self._rate = Rate(publishes_per_s)
        self._versions = Versions(protocol)
        self._backoff = Backoff(rng, backoff_cap_s)
        self._verdict = Verdict(self._settings, self._versions, self._backoff)
        self._outage = Outage(LOG_EVERY_S)
        self._gauge = Gauge(keepalive)
        self._number = 0

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

    def stop(self, timeout: float = STOP_S, *, will: bool = False) -> None:
        """Send what is queued for at most `timeout` seconds, then leave: cleanly, or so that the will is sent, as it
        also is if a retained message is still queued: our last words. Leaving takes at most `CLOSE_S` more, whatever
        the broker does."""
        self._stop_at, self._leave_will = time.monotonic() + timeout, will
        self._stopping.set()
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout + CLOSE_S + 0.1)

    @property
    def flow(self) -> Flow | None:
        """What passes the link; None before the first connection. Another object whenever something has passed."""
        return self._gauge.flow

    def set_will(self, topic: str, payload: bytes) -> None:
        """The will of the next connection; the present one keeps its own."""
        self._will = (topic, payload)

    def calm(self, seconds: float) -> None:
        """A lost connection may stay away for so long, so that a fleet comes back spread over this time."""
        self._backoff.calm_s = seconds

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Queue a QoS 1 message and return its token; a `Published` with that token always follows.

        Raises TransportError, with nothing queued, if the link is down, the message is larger than the broker accepts,
        or `MAX_QUEUED` messages are waiting.
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
        """Acknowledge messages (`manual_ack`). A message of an earlier connection is skipped: it comes again."""
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
                self._void(connection, "the link was stopped")
                break
            reason = self._verdict.judge(connection, end, time.monotonic() - began)
            if isinstance(reason, Refused):
                self._emit(reason)
                reason = reason.reason
            self._void(connection, "connection lost")
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
            self._gauge.begin(time.monotonic())
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
        tick_s, look_at = min(5.0, self._settings.keepalive / 8), 0.0
        patience_s = self._versions.patience_s
        answer_by = time.monotonic() + patience_s
        while connection.end is None:
            self._send(connection)
            if self._stopping.is_set():
                left_s = self._stop_at - time.monotonic()
                if left_s <= 0 or connection.up is None or not (self._queue or connection.in_flight):
                    if not (self._leave_will or any(message[3] for message in self._queue)):
                        connection.close(self._wake_r)
                    return
                tick_s = min(tick_s, left_s)
            read = self._reading.allowed(time.monotonic())
            sleep_s = min(tick_s, self._rate.wait_s(time.monotonic()) or tick_s) if self._queue else tick_s
            connection.step(sleep_s if read else PAUSE_S, self._wake_r, read)
            for event in connection.take():
                self._emit(event)
            if (
                now := time.monotonic()
            ) >= look_at:  # after reading: a process that was asleep finds what has come meanwhile
                look_at = now + min(LOOK_S, tick_s)
                self._gauge.look(*connection.look(now), now)
                if connection.up is None and connection.end is None and now >= answer_by:
                    connection.end = End(f"no answer to MQTT 5 within {patience_s:.0f} s")

    def _send(self, connection: Connection) -> None:
        while self._wishes:
            self._wishes.popleft()(connection)
        while self._queue and connection.room > 0 and not self._rate.wait_s(now := time.monotonic()):
            self._rate.count(now)
            connection.publish(*self._queue[0])
            self._queue.popleft()

    def _void(self, connection: Connection | None, reason: str) -> None:
        """The connection has ended: from now on publish raises, and every token gets its Published."""
        for event in connection.take() if connection else ():
            self._emit(event)
        with self._lock:
            self._up = None
            tokens = [message[0] for message in self._queue]
            self._queue.clear()
            self._wishes.clear()
        for token in (connection.unanswered() if connection else []) + tokens:
            self._emit(Published(token, False, reason))

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
