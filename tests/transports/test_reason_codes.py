"""Reason codes that paho-mqtt does not know in their packet: each is named, and none ends the connection."""

from __future__ import annotations

import pytest
from brokers import FakeBroker
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edgefl.transports.mqtt import Down, Published, Refused

ANSWERS = [PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.SUBACK, PacketTypes.UNSUBACK, PacketTypes.DISCONNECT]


@pytest.mark.parametrize("packet", ANSWERS)
def test_every_code_can_be_decoded_and_named_in_every_answer(packet: int) -> None:
    for code in range(256):
        decoded = ReasonCode(packet, identifier=code)
        decoded.unpack(bytes([code]))
        assert decoded.value == code and decoded.is_failure == (code >= 0x80)
    assert str(ReasonCode(PacketTypes.PUBACK, identifier=0x87)) == "Not authorized"


@pytest.mark.parametrize(
    ("code", "reason"), [(0x95, "Packet too large (0x95)"), (0xC3, "reason code (0xc3)"), (0x97, "Quota exceeded")]
)
def test_a_publish_that_is_refused_for_any_reason_is_named_and_the_connection_goes_on(link, code, reason) -> None:
    broker = FakeBroker(b"")
    one = link(broker.url, "one")
    one.up()
    token = one.publish("a", b"x")
    broker.acknowledge(broker.publishes(1)[0], code)
    assert one.inbox.wait(Published) == Published(token, False, reason, refused=True)
    token = one.publish("a", b"y")
    broker.acknowledge(broker.publishes(1)[0])
    assert one.inbox.wait(Published).ok
    assert one.inbox.quiet(Down) == []


def test_a_subscription_that_is_refused_for_any_reason_is_named(link) -> None:
    broker = FakeBroker(b"")
    one = link(broker.url, "one")
    one.up()
    one._wish(lambda connection: connection.subscribe(["a"], 1))
    mid = broker.subscribed()
    broker.send(bytes([0x90, 4]) + mid.to_bytes(2, "big") + b"\0\xc3")
    assert "may not subscribe to 'a' (reason code (0xc3))" in one.inbox.wait(Refused).reason


@pytest.mark.parametrize("code", [0xC3, 0x86])
def test_a_broker_that_leaves_for_any_reason_is_quoted(link, code) -> None:
    broker = FakeBroker(b"")
    one = link(broker.url, "one")
    one.up()
    broker.disconnect(code)
    reason = one.inbox.wait(Down).reason
    assert f"0x{code:02x}" in reason and "another client" not in reason


def test_what_is_not_mqtt_is_not_blamed_on_another_client(link) -> None:
    broker = FakeBroker(b"")
    one = link(broker.url, "one")
    one.up()
    broker.send(b"\x10\x02\0\0")  # a CONNECT, which a broker never sends
    assert one.inbox.wait(Down).reason == "the broker sends what MQTT does not allow"
