"""A link that is slow is kept, a broker that is frozen is given up, and a stop never waits for either."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from brokers import FakeBroker, Mosquitto, eventually, free_port
from proxy import Bad, Proxy

from edgefl.errors import UsageError
from edgefl.transports.connection import MAX_IN_FLIGHT
from edgefl.transports.endpoint import Endpoint
from edgefl.transports.mqtt import MAX_QUEUED, Down, Message, Published, TlsConfig, Up
from edgefl.transports.traffic import kernel_counts

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


@pytest.mark.parametrize(("waiting", "status"), [(0, True), (1, True), (1, False)])
def test_a_link_leaves_cleanly_only_if_its_last_words_have_left(link, waiting, status):
    """Else the broker would keep a status by which a device that has gone seems present. Parts of updates may wait."""
    slow = FakeBroker(b"")
    one = link(slow.url, "one", will=("w", b"gone"))
    one.up()
    for _ in range(MAX_IN_FLIGHT + waiting):
        one.publish("t", b"words", retain=status)
    one.stop(0.3)
    assert len(slow.publishes(MAX_IN_FLIGHT)) == MAX_IN_FLIGHT
    eventually(slow.left.is_set)
    assert slow.disconnects == (not (waiting and status))


def test_i07_a_record_of_tls_that_takes_longer_than_silence_may_last_arrives(tmp_path, link):
    """Nothing can be read of a record before all of it has come; only the kernel sees its bytes."""
    make_certificate(tmp_path)
    port = free_port()
    config = f"allow_anonymous true\nlistener {port}\ncertfile {tmp_path}/crt\nkeyfile {tmp_path}/key\n"
    with Mosquitto(config) as broker:
        writer = link(broker.url, "writer")
        writer.up()
        writer.said("slow/model/tls", MODEL, retain=True)
        with Proxy(port, replace(SLOW, rate=3000.0)) as proxy:
            tls = TlsConfig(ca=f"{tmp_path}/crt")
            reader = link(proxy.url.replace("mqtt:", "mqtts:"), "reader", tls=tls, keepalive=KEEPALIVE)
            reader.start()
            reader.inbox.wait(Up, patience_s=20.0)
            began = time.monotonic()
            reader._wish(lambda connection: connection.subscribe(["slow/model/tls"], 1))
            heard = reader.inbox.wait(Message, lambda event: event.topic == "slow/model/tls", 40.0)
            assert (heard.payload, proxy.seen["connections"]) == (MODEL, 1)
            assert time.monotonic() - began > 3 * KEEPALIVE


def make_certificate(folder: Path) -> None:
    """Of 127.0.0.1, which is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "key", "-out", folder / "crt"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)


def test_i07_bytes_are_counted_by_the_kernel_in_both_directions():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        two, _ = listener.accept()
        before = kernel_counts(one)
        assert before is not None
        one.sendall(bytes(1000))
        two.recv(1000, socket.MSG_WAITALL)
        two.sendall(bytes(300))  # which nobody reads
        eventually(lambda: kernel_counts(one).received == before.received + 300)
        counts = kernel_counts(one)
        assert (counts.acknowledged - before.acknowledged, counts.pending) == (1000, 0)
        one.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                one.send(bytes(65536))  # until the other end's buffer is full
        assert kernel_counts(one).pending > 0
        two.close()
    assert kernel_counts(object()) is None


def test_an_idle_link_stays_up_and_asks_now_and_then(mosquitto, link):
    with Proxy(mosquitto.port) as proxy:
        one = link(proxy.url, "one", keepalive=KEEPALIVE)
        one.up()
        before = proxy.seen["up"]
        assert not one.inbox.quiet(Down, 2.2 * KEEPALIVE)
        assert 2 <= proxy.seen["up"] - before <= 6  # two bytes each


def test_i07_a_frozen_broker_is_noticed_over_ipv6_too(link):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    with Mosquitto(f"allow_anonymous true\nlistener {port} ::1\n") as broker:
        one = link(f"mqtt://[::1]:{port}", "one", keepalive=KEEPALIVE)
        one.up()
        since = freeze(broker)
        try:
            down = one.inbox.wait(Down, patience_s=3 * KEEPALIVE)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert time.monotonic() - since <= 1.5 * KEEPALIVE + 1.0
        assert "no sign of life" in down.reason


def test_an_ipv6_address_is_shown_with_brackets():
    endpoint = Endpoint.parse("mqtt://[::1]:1884", None)
    assert (endpoint.host, endpoint.port, str(endpoint)) == ("::1", 1884, "[::1]:1884")


@pytest.mark.parametrize("zone", ["%eth0", "%25eth0"])  # as people write it, and as RFC 6874 has it
def test_an_ipv6_address_may_have_a_zone(zone):
    endpoint = Endpoint.parse(f"mqtt://[fe80::1{zone}]", None)
    assert (endpoint.host, endpoint.port) == ("fe80::1%eth0", 1883)


@pytest.mark.parametrize("url", ["mqtt://::1:1883", "mqtt://2001:db8::1", "mqtt://[::1"])
def test_an_ipv6_address_without_brackets_is_told_to_have_them(url):
    with pytest.raises(UsageError, match=r"mqtt://\[::1\]:1883"):
        Endpoint.parse(url, None)
