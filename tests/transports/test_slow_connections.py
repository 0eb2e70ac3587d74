"""A link that is slow is kept, a broker that is frozen is given up, and a stop never waits for either."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from brokers import Mosquitto
from proxy import Bad, Proxy

from edgefl.transports.endpoint import Endpoint
from edgefl.transports.mqtt import MAX_QUEUED, Down, Message, Published

KEEPALIVE = 2
MODEL = os.urandom(32_000)
SLOW = Bad(rate=8000.0, buffer=2048)  # the model takes two keep-alives: longer than a broker may be silent
VERSIONS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def frozen(mosquitto: Mosquitto) -> Iterator[Mosquitto]:
    """A broker that the test may freeze; it is thawed at the end."""
    yield mosquitto
    os.kill(mosquitto.pid, signal.SIGCONT)


def freeze(broker: Mosquitto) -> float:
    os.kill(broker.pid, signal.SIGSTOP)
    return time.monotonic()


@VERSIONS
def test_i07_a_message_that_takes_longer_than_the_keep_alive_arrives(shared_mosquitto, link, protocol):
    writer = link(shared_mosquitto.url, "writer", protocol=protocol)
    writer.up()
    topic = f"slow/model/{protocol}"
    writer.said(topic, MODEL, retain=True)
    with Proxy(shared_mosquitto.port, SLOW) as proxy:
        reader = link(proxy.url, "reader", protocol=protocol, keepalive=KEEPALIVE, session_expiry_s=0)
        reader.up()
        began = time.monotonic()
        reader._wish(lambda connection: connection.subscribe([topic], 1))
        heard = reader.inbox.wait(Message, lambda event: event.topic == topic, 30.0)
        assert time.monotonic() - began > 1.5 * KEEPALIVE
        assert (heard.payload, proxy.seen["connections"]) == (MODEL, 1)
    writer.said(topic, b"", retain=True)


@VERSIONS
def test_i07_a_message_that_is_sent_for_longer_than_the_keep_alive_is_acknowledged(shared_mosquitto, link, protocol):
    with Proxy(shared_mosquitto.port, SLOW) as proxy:
        writer = link(proxy.url, "writer", protocol=protocol, keepalive=KEEPALIVE)
        writer.up()
        began = time.monotonic()
        token = writer.publish("slow/update", MODEL)
        assert writer.inbox.wait(Published, lambda event: event.token == token, 30.0).ok
        assert time.monotonic() - began > 1.5 * KEEPALIVE
        assert proxy.seen["connections"] == 1


@VERSIONS
def test_i07_a_frozen_broker_is_noticed_within_a_keep_alive_and_a_half(frozen, link, protocol):
    one = link(frozen.url, "one", protocol=protocol, keepalive=KEEPALIVE)
    one.up()
    since = freeze(frozen)
    one.publish("t", b"which its kernel accepts")
    down = one.inbox.wait(Down, patience_s=3 * KEEPALIVE)
    assert time.monotonic() - since <= 1.5 * KEEPALIVE + 1.0
    assert "no sign of life for 3 s" in down.reason


@VERSIONS
def test_i07_a_link_stops_in_time_whatever_waits_for_a_frozen_broker(frozen, link, protocol):
    one = link(frozen.url, "one", protocol=protocol)
    one.up()
    freeze(frozen)
    for _ in range(MAX_QUEUED - 100):
        one.publish("t", bytes(20_000))
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 2.9
    assert not one._thread.is_alive()


def test_an_idle_link_stays_up_and_asks_now_and_then(mosquitto, link):
    with Proxy(mosquitto.port) as proxy:
        one = link(proxy.url, "one", keepalive=KEEPALIVE)
        one.up()
        before = proxy.seen["up"]
        assert not one.inbox.quiet(Down, 2.2 * KEEPALIVE)
        assert 2 <= proxy.seen["up"] - before <= 6  # two bytes each


def test_an_ipv6_address_is_shown_with_brackets():
    endpoint = Endpoint.parse("mqtt://[::1]:1884", None)
    assert (endpoint.host, endpoint.port, str(endpoint)) == ("::1", 1884, "[::1]:1884")
