"""Probe: one visit to an MQTT broker, beside the daemon's own link: connect, ask, listen for some seconds, leave.

A broker may give a client the id of its certificate or user name (mosquitto's use_username_as_clientid), whatever the
client asks for. A second client with the id of a daemon that runs would throw that daemon out. So a visit with the
daemon's own certificate or user is made only while the daemon does not run; else only TCP and TLS are tried (`reach`).
"""

from __future__ import annotations

import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import EdgeFLError
from ..transports.backoff import Backoff, Versions
from ..transports.connection import Connection, End, Settings
from ..transports.endpoint import Endpoint, why
from ..transports.events import Message, Published, Refused
from ..transports.settings import MqttConfig
from ..transports.verdict import Verdict

CONNECT_S = 10.0
ALERT_S = 0.5  # with TLS 1.3 a refusal comes after the handshake
NO_READERS = "No matching subscribers"  # MQTT 5: a publish was allowed, and nobody listens
STEP_S = 0.1


class Reached(NamedTuple):
    """What TCP and TLS have shown. `refused` says why they ended, "" if they did not."""

    seconds: float
    tls: str = ""
    ends: float | None = None  # of the broker's certificate, in Unix time
    refused: str = ""


def endpoint_of(config: MqttConfig) -> Endpoint:
    """Where the broker is; UsageError."""
    return Endpoint.parse(config.url, config.tls, config.login)


def names_itself(config: MqttConfig) -> bool:
    """Whether the broker knows this client by a certificate or a user name, and may choose its client id by that."""
    login = endpoint_of(config)
    return login.user is not None or bool(login.tls and login.tls.cert)


def reach(endpoint: Endpoint) -> Reached:
    """Connect with TCP, and TLS where it is on, and leave without a word of MQTT."""
    began = time.monotonic()
    try:
        with socket.create_connection((endpoint.host, endpoint.port), CONNECT_S) as plain:
            if endpoint.tls is None:
                return Reached(time.monotonic() - began)
            with endpoint.tls.context().wrap_socket(plain, server_hostname=endpoint.host) as secure:
                seconds, found = time.monotonic() - began, secure.getpeercert() or {}
                ends = ssl.cert_time_to_seconds(str(found["notAfter"])) if "notAfter" in found else None
                secure.settimeout(ALERT_S)
                with suppress(TimeoutError):
                    secure.recv(1)
                return Reached(seconds, secure.version() or "TLS", ends)
    except OSError as error:
        return Reached(time.monotonic() - began, refused=why(error))


def speaks_tls(endpoint: Endpoint) -> bool:
    """Whether TLS is spoken at a port at which plain MQTT was tried. Nothing is believed that comes over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.host),
        ):
            return True
    except ssl.SSLError as error:
        return error.reason != "WRONG_VERSION_NUMBER"
    except OSError:
        return False


class Probe:
    """A connection, of the daemon's own client id or of a free one; a context manager. After it was opened, `refused`
    says why the broker did not take it, "" if it did. `messages` and `answers` fill during `wait`."""

    def __init__(self, config: MqttConfig, own_id: str) -> None:
        self.endpoint, self.own = endpoint_of(config), names_itself(config)
        self._id = (config.client_id or own_id) if self.own else f"check-{secrets.token_hex(4)}"
        limits = config.limits
        self._settings = Settings(
            self.endpoint, self._id, config.keepalive_s, limits.session_expiry_s if self.own else 0,
            limits.receive_maximum or 10, manual_ack=self.own,
        )  # fmt: skip
        self._versions = Versions(config.protocol)
        self._verdict = Verdict(self._settings, self._versions, Backoff(random.Random(), 1.0))
        self._connection: Connection | None = None
        self._wake, self._waker = socket.socketpair()
        self._subscribed: list[str] = []
        self.refused, self.protocol = "", ""
        self.messages: dict[str, Message] = {}
        self.answers: dict[str, Published] = {}
        self._topics: list[str] = []  # of publishes, by token
        self.denied: list[str] = []  # subscriptions

    def __enter__(self) -> Probe:
        for _ in range(2):  # MQTT 5, then 3.1.1
            self.protocol = self._versions.current
            self._connect()
            if not self.refused or self._versions.current == self.protocol:
                break
        return self

    def __exit__(self, *exc: object) -> None:
        connection = self._connection
        if connection is not None:
            if connection.up is not None and connection.end is None:
                if not connection.up.session_present:  # in the daemon's session are its own subscriptions
                    connection.unsubscribe(self._subscribed)
                connection.close(self._wake)
            connection.abandon()
        self._wake.close()
        self._waker.close()

    @property
    def limits(self) -> Any:
        """The properties with which an MQTT 5 broker names its limits."""
        return None if self._connection is None else self._connection.properties

    @property
    def max_packet_bytes(self) -> int | None:
        up = None if self._connection is None else self._connection.up
        return None if up is None else up.max_packet_bytes

    def subscribe(self, *topics: str) -> None:
        assert self._connection is not None
        self._subscribed += topics
        self._connection.subscribe(list(topics), 1)

    def unsubscribe(self, *topics: str) -> None:
        """For topics that are no daemon's: a daemon's session would keep the subscription."""
        assert self._connection is not None
        self._connection.unsubscribe(list(topics))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send with QoS 1; `answers` will have the broker's word on the newest one of a topic."""
        assert self._connection is not None
        self.answers.pop(topic, None)
        self._topics.append(topic)
        self._connection.publish(len(self._topics) - 1, topic, payload, retain)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Read until `done`, for so many seconds at most; whether it is done."""
        until, connection = time.monotonic() + seconds, self._connection
        while connection is not None and not done() and connection.end is None and time.monotonic() < until:
            self._step(connection)
        return done()

    def _connect(self) -> None:
        connection = self._connection = Connection(self._settings, self.protocol, None, 1)
        self.refused = ""
        try:
            connection.open()
            until = time.monotonic() + CONNECT_S
            while connection.up is None and connection.end is None and time.monotonic() < until:
                self._step(connection)
            if connection.up is not None and connection.end is None:
                return
            end = connection.end or End(f"no answer to MQTT {self.protocol} within {CONNECT_S:.0f} s")
        except OSError as error:
            end = End(why(error), tls=isinstance(error, ssl.SSLError))
        except EdgeFLError:
            raise
        except Exception as error:  # paho may raise on bytes that no broker sends
            end = End(f"{type(error).__name__}: {error}")
        verdict = self._verdict.judge(connection, end, 0.0)
        self.refused = verdict.reason if isinstance(verdict, Refused) else verdict
        connection.abandon()

    def _step(self, connection: Connection) -> None:
        connection.step(STEP_S, self._wake)
        for event in connection.take():
            match event:
                case Message():
                    if event.retain or event.topic not in self.messages:  # one that is kept says more than its echo
                        self.messages[event.topic] = event
                    if self.own and event.retain:  # others may be of the daemon's session, and come to it again
                        connection.ack(event.handle)
                case Published():
                    self.answers[self._topics[event.token]] = event
                case Refused():
                    self.denied.append(event.reason)
