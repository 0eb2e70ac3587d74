"""LinkHost without a network: what it hands to its link, and what it says of what the link does not take."""

from __future__ import annotations

import logging

import pytest

from edgefl.errors import TransportError
from edgefl.protocol.machine import Publish
from edgefl.transports.link_host import LinkHost
from edgefl.transports.mqtt import Down, Up

UP = Up(session_present=False, max_packet_bytes=None, receive_maximum=10, protocol="5")


class Refusing:
    """A link that takes nothing."""

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        raise TransportError(f"not taken: {topic}")


class Echo:
    """A machine whose only event is the list of its actions."""

    def step(self, event: object, now: float) -> list[object]:
        return event if isinstance(event, list) else []


@pytest.fixture
def host() -> LinkHost:
    host = LinkHost(logging.getLogger("edgefl.test"))
    host.machine, host.link = Echo(), Refusing()  # type: ignore[assignment]
    return host


def test_an_outage_is_one_line_whatever_is_published_meanwhile(
    host: LinkHost, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        for topic in "abc":
            host._handle([Publish(topic, b"")])
            host._answer()
        host._handle((UP, 1))
        host._handle(Down("gone", 0.0))
    assert [record.message for record in caplog.records] == ["not taken: a"] * 2


def test_on_line_every_message_that_is_not_taken_is_told(host: LinkHost, caplog: pytest.LogCaptureFixture) -> None:
    host._handle((UP, 1))
    host._handle([Publish("a", b""), Publish("b", b"")])
    host._answer()
    assert [record.message for record in caplog.records] == ["not taken: a", "not taken: b"]
