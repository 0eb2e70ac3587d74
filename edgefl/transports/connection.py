"""One MQTT connection, from CONNECT to its end, over paho-mqtt.

Design:
  a) A connection belongs to one thread and does nothing between calls: paho's writer takes no lock, so a
     second thread would interleave packets. `step` is one turn of the event loop.
  b) paho's callbacks only append to a queue, which `take` hands over outside paho's locks. So whatever the link's
     user does with an event can neither deadlock paho nor end its thread.
  c) A paho client lives for one connection, and its in-flight messages end with it. So paho never resends a message
     that the state machines no longer want sent. The session lives in the broker.

Not here: threads, queues and trying again (mqtt.py).
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from typing import Any

from msgspec import Struct
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .endpoint import Endpoint, why
from .events import LinkEvent, Message, Published, Refused, Up
from .lean import Client, ssl
from .liveness import SILENCE, Liveness
from .reason_codes import know_all
from .tap import LARGEST_PACKET, TappedClient
from .traffic import Counts

know_all()

CONNECT_TIMEOUT_S = 15.0  # a TLS handshake over a cellular link takes a Pi several seconds
MAX_IN_FLIGHT = 10  # the least that common brokers grant (HiveMQ), and enough to fill a 64 KiB-part link
FILTERS_PER_SUBSCRIBE = 8  # AWS IoT Core takes no more

UNSUPPORTED_VERSION, BAD_CLIENT_ID, BAD_CREDENTIALS, NOT_AUTHORIZED = 0x84, 0x85, 0x86, 0x87  # MQTT 5, 2.4
TAKEN_OVER, ADMINISTRATIVE = 0x8E, 0x98
LOST = "connection lost"  # without a DISCONNECT
CLOSE_S = 0.5


class Settings(Struct, frozen=True):
    """The settings that all connections of a link share."""

    endpoint: Endpoint
    client_id: str
    keepalive: int
    session_expiry_s: int
    receive_maximum: int
    manual_ack: bool
    in_flight: int = MAX_IN_FLIGHT


class End(Struct, frozen=True):
    """Why a connection ended; `code` is the broker's MQTT 5 reason code where it gave one. `tls`: TLS has ended it."""

    reason: str
    code: int | None = None
    tls: bool = False


class Connection:
    """One connection. `number` distinguishes its messages' handles from those of earlier connections."""

    def __init__(self, settings: Settings, protocol: str, will: tuple[str, bytes] | None, number: int) -> None:
        self.end: End | None = None
        self.up: Up | None = None
        self.properties: Any = None  # of the CONNACK, in MQTT 5
        self.opened = False  # TCP and TLS were established, whether or not CONNECT was accepted
        self._settings = settings
        self._protocol = protocol
        self._number = number
        self._events: deque[LinkEvent] = deque()
        self._early: list[Message] = []  # read together with the CONNACK, which paho has not processed yet
        self._tokens: dict[int, int] = {}  # packet id -> token of the publishes in flight
        self._filters: dict[int, list[str]] = {}  # packet id -> the filters of a SUBSCRIBE
        self._client = self._make_client(will)
        self._liveness = Liveness(settings.keepalive, 0.0)

    def _make_client(self, will: tuple[str, bytes] | None) -> TappedClient:
        settings, endpoint, v5 = self._settings, self._settings.endpoint, self._protocol == "5"
        client = TappedClient(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if v5 else settings.session_expiry_s == 0,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            on_tapped=self._on_message,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if endpoint.user is not None:
            client.username_pw_set(endpoint.user, endpoint.password)
        if endpoint.tls is not None:
            client.tls_set_context(endpoint.tls.context())  # read each time, since certificates are renewed
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def open(self) -> None:
        """Connect and send CONNECT; `Up` or the end comes from `step`. Raises OSError."""
        settings, options = self._settings, dict[str, Any]()
        if self._protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_s
            properties.ReceiveMaximum = settings.receive_maximum
            properties.MaximumPacketSize = LARGEST_PACKET  # the broker drops larger packets instead of sending them
            options = {"clean_start": settings.session_expiry_s == 0, "properties": properties}
        self._client.connect(settings.endpoint.host, settings.endpoint.port, settings.keepalive, **options)
        self._liveness = Liveness(settings.keepalive, time.monotonic())
        self.opened = True

    def step(self, timeout_s: float, wake: socket.socket, read: bool = True) -> None:
        """Wait for the network or for a byte on `wake`, then read and write. Look at `take`, then at `end`."""
        client, tap = self._client, self._client.tap
        if tap is not None and client.socket() is not None:
            tap.flush()
            poller = select.poll()
            writing = client.want_write() or tap.unsent
            pending = tap.for_paho or (read and tap.pending)  # or the connection is already lost
            poller.register(tap, (select.POLLIN if read else 0) | (select.POLLOUT if writing else 0))
            poller.register(wake, select.POLLIN)
            ready = dict(poller.poll(0 if pending else timeout_s * 1000.0))
            if wake.fileno() in ready:
                wake.recv(4096)
            state = ready.get(tap.fileno(), 0)
            if pending or state & ~select.POLLOUT:
                self._read()
            if state & select.POLLOUT:
                tap.flush()
                client.loop_write()
            client.loop_misc()
        if client.socket() is None and self.end is None:
            self.end = End(LOST)

    def _read(self) -> None:
        """Read what has arrived: messages here, everything else through paho."""
        tap = self._client.tap
        assert tap is not None
        tap.fill()
        while tap.for_paho and self._client.socket() is not None:
            self._client.loop_read()

    def look(self, now: float) -> tuple[Counts, int]:
        """Ask for a sign of life if one is due, or end. Returns what has passed, and bytes of an unfinished packet."""
        tap = self._client.tap
        if tap is None or self._client.socket() is None:
            return Counts(), 0
        counts = tap.counts
        verdict = self._liveness.judge(counts, now)
        if verdict == "dead" and self.end is None:
            self.end = End(f"no sign of life for {SILENCE * self._liveness.keepalive_s:.0f} s")
        elif verdict == "ask" and self.up is not None:
            tap.ping()
        return counts, tap.arriving

    def take(self) -> list[LinkEvent]:
        """The events since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    @property
    def room(self) -> int:
        """How many more messages may be in flight."""
        return self.up.receive_maximum - len(self._tokens) if self.up and not self.end else 0

    @property
    def in_flight(self) -> int:
        return len(self._tokens)

    def publish(self, token: int, topic: str, payload: bytes, retain: bool) -> None:
        """Send with QoS 1; a `Published` with this token follows unless the connection ends first."""
        self._tokens[self._client.publish(topic, payload, qos=1, retain=retain).mid] = token

    def unanswered(self) -> list[int]:
        """The tokens still in flight, oldest first."""
        return list(self._tokens.values())

    def subscribe(self, filters: list[str], qos: int) -> None:
        for first in range(0, len(filters), FILTERS_PER_SUBSCRIBE):
            some = filters[first : first + FILTERS_PER_SUBSCRIBE]
            _, mid = self._client.subscribe([(name, qos) for name in some])
            if mid is not None:
                self._filters[mid] = some

    def unsubscribe(self, filters: list[str]) -> None:
        for first in range(0, len(filters), FILTERS_PER_SUBSCRIBE):
            self._client.unsubscribe(filters[first : first + FILTERS_PER_SUBSCRIBE])

    def ack(self, *handles: tuple[int, int]) -> None:
        """Acknowledge messages. Those of an earlier connection are skipped: the broker sends them again."""
        for number, mid in handles:
            if number == self._number and mid and self._client.tap is not None:
                self._client.tap.ack(mid)

    def close(self, wake: socket.socket) -> None:
        """Send DISCONNECT, so that the broker publishes no will; wait at most `CLOSE_S` until it has left."""
        until = time.monotonic() + CLOSE_S
        client, tap = self._client, self._client.tap
        while tap is not None and tap.unsent and client.socket() is not None and time.monotonic() < until:
            self.step(0.05, wake)
        if tap is not None and client.socket() is not None:  # paho takes it for sent as soon as the tap has it
            poller = select.poll()
            poller.register(tap, select.POLLOUT)
            poller.poll(max(0.0, until - time.monotonic()) * 1000.0)
        client.disconnect()
        while client.socket() is not None and time.monotonic() < until:
            self.step(0.05, wake)

    def abandon(self) -> None:
        """Close the socket without a DISCONNECT."""
        if self._client.socket() is not None and self._client.tap is not None:
            self._client.tap.abandon()

    def _on_connect(self, client: Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self.end = End(str(code), code.value)
            return
        self.properties = properties
        self._liveness.keepalive_s = min(
            getattr(properties, "ServerKeepAlive", self._settings.keepalive) or self._settings.keepalive,
            self._settings.keepalive,
        )
        self.up = Up(
            session_present=flags.session_present,
            max_packet_bytes=getattr(properties, "MaximumPacketSize", None),
            receive_maximum=min(getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT), self._settings.in_flight),
            protocol=self._protocol,
        )
        self._events.append(self.up)
        self._events.extend(self._early)  # an acknowledgement before `Up` would be lost, and the broker would wait
        self._early.clear()

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if self.end is not None:
            return
        lost = self._client.tap.lost if self._client.tap is not None else None
        if isinstance(lost, ssl.SSLError):  # with TLS 1.3 a certificate is refused after the handshake
            self.end = End(why(lost), tls=True)
        elif flags.is_disconnect_packet_from_server:
            self.end = End(f"the broker says: {code}", code.value)
        elif str(code) == "Protocol error":  # as paho sees it
            self.end = End("the broker sends what MQTT does not allow")
        else:
            self.end = End(LOST if self.up else "closed before it answered")

    def _on_message(self, topic: str, payload: bytes, retain: bool, packet_id: int) -> None:
        handle = (self._number, packet_id)
        (self._early if self.up is None else self._events).append(Message(topic, payload, retain, handle))
        if not self._settings.manual_ack:
            self.ack(handle)

    def _on_publish(self, client: Client, userdata: Any, mid: int, code: Any, properties: Any) -> None:
        token = self._tokens.pop(mid)
        self._events.append(Published(token, not code.is_failure, str(code), code.is_failure))

    def _on_subscribe(self, client: Client, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        for name, code in zip(self._filters.pop(mid, []), codes, strict=False):
            if code.is_failure:
                advice = "let this client read it in the broker's ACL"
                self._events.append(Refused(f"may not subscribe to {name!r} ({code}): {advice}", fatal=False))
