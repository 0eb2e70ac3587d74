"""MqttLink over real brokers, both versions of MQTT, and how it behaves when they are away or say no."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from brokers import FakeBroker, Mosquitto, eventually, password_file, running

from edgefl.errors import TransportError, UsageError
from edgefl.transports import mqtt, verdict
from edgefl.transports.backoff import Backoff, Outage, Reading, Versions
from edgefl.transports.connection import MAX_IN_FLIGHT
from edgefl.transports.embedded import MAX_PACKET_BYTES, EmbeddedBroker
from edgefl.transports.endpoint import Endpoint
from edgefl.transports.mqtt import Down, Message, MqttLink, Published, Refused, TlsConfig, Up
from edgefl.transports.tap import LARGEST_PACKET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def name(wire: tuple[str, str], what: str) -> str:
    """A topic or client id of this test's own: the brokers are shared."""
    return f"{what}-{wire[0][-5:]}-{wire[1][0]}"


# ---- both brokers, both versions


def test_retained_round_trip(wire, link):
    url, protocol = wire
    topic = name(wire, "retained")
    one, two = link(url, "rt-1", protocol=protocol), link(url, "rt-2", protocol=protocol, session_expiry_s=0)
    assert one.up().protocol == protocol
    payload = bytes(range(256)) * 256
    assert one.said(topic, payload, retain=True).ok
    two.up()
    two.subscribe([topic])
    message = two.heard(topic)
    assert (message.payload, message.retain) == (payload, True)
    assert type(message.payload) is bytes
    assert one.said(topic, b"", retain=True).ok
    two.heard(topic)
    two.unsubscribe([topic])
    two.subscribe([topic])
    assert two.inbox.quiet(Message) == [], "an empty payload clears the retained message"


DYING = """
import os, random, sys, threading
from edgefl.transports.mqtt import MqttLink, Up
url, protocol, topic = sys.argv[1:]
ready = threading.Event()
link = MqttLink(url, "dying" + protocol[0], protocol=protocol, will=(topic, b"lost"), rng=random.Random(1),
                on_event=lambda event: ready.set() if isinstance(event, Up) else None)
link.start()
assert ready.wait(10)
print("up", flush=True)
threading.Event().wait()
"""


def test_will_is_sent_when_the_process_is_killed(wire, link):
    url, protocol = wire
    topic = name(wire, "will")
    watcher = link(url, "watcher", protocol=protocol)
    watcher.up()
    watcher.subscribe([topic])
    command = [sys.executable, "-c", DYING, url, protocol, topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": ROOT}) as child:
        assert child.stdout.readline() == b"up\n"
        child.kill()
    assert watcher.heard(topic).payload == b"lost"


def test_clean_stop_sends_what_is_queued_and_no_will(wire, link):
    url, protocol = wire
    will, last = name(wire, "no-will"), name(wire, "last")
    watcher = link(url, "watcher-2", protocol=protocol)
    watcher.up()
    watcher.subscribe([will, last])
    device = link(url, "leaving", protocol=protocol, will=(will, b"lost"))
    device.up()
    for i in range(30):
        device.publish(last, b"%d" % i)
    device.stop()
    assert [watcher.heard(last).payload for _ in range(30)] == [b"%d" % i for i in range(30)]
    assert watcher.inbox.quiet(Message) == []
    with pytest.raises(TransportError, match="not connected"):
        device.publish(last, b"too late")


def test_a_stop_after_a_failure_lets_the_broker_send_the_will(wire, link):
    url, protocol = wire
    will = name(wire, "failed")
    watcher = link(url, "watcher-3", protocol=protocol)
    watcher.up()
    watcher.subscribe([will])
    failing = link(url, "failing", protocol=protocol, will=(will, b"lost"))
    failing.up()
    failing.stop(will=True)
    assert watcher.heard(will).payload == b"lost"


def test_session_keeps_messages_while_away(wire, link):
    url, protocol = wire
    topic = name(wire, "inbox")
    device = link(url, "away", protocol=protocol)
    device.up()
    device.subscribe([topic])
    sender = link(url, "sender", protocol=protocol)
    sender.up()
    sender.said(topic, b"first")
    device.heard(topic)
    device.stop()
    for i in range(20):
        assert sender.said(topic, b"%d" % i).ok
    device = link(url, "away", protocol=protocol)
    assert device.up().session_present
    assert [device.heard(topic).payload for _ in range(20)] == [b"%d" % i for i in range(20)]


def test_i07_a_message_that_comes_with_the_connack_is_taken_after_it_and_acknowledged(link):
    message = b"\x32\x08\x00\x01t\x00\x07\x00hi"  # topic t, packet id 7, no properties
    server = FakeBroker(b"", behind=message)
    order = []

    def take(event):
        order.append(type(event))
        if isinstance(event, Message):
            client.ack(event.handle)

    client = link(server.url, "early", manual_ack=True, on_event=take)
    client.start()
    eventually(lambda: server.acks == [7])
    assert order[:2] == [Up, Message]


def test_parts_from_many_clients_at_once(wire, link):
    url, protocol = wire
    root = name(wire, "up")
    reader = link(url, "reader", protocol=protocol)
    reader.up()
    reader.subscribe([f"{root}/+/+"])
    devices = [link(url, f"part-{i}", protocol=protocol) for i in range(20)]
    for device in devices:
        device.up()
    part = os.urandom(64 << 10)
    for device in devices:
        for i in range(8):
            device.publish(f"{root}/{id(device)}/{i}", part)
    seen = {reader.inbox.wait(Message, lambda event: event.payload == part).topic for _ in range(160)}
    assert len(seen) == 160


def test_auto_falls_back_to_3_1_1_and_remembers(embedded, shared_mosquitto, link):
    assert link(shared_mosquitto.url, "auto").up().protocol == "5"
    assert link(embedded.url, "auto").up().protocol == "5"
    old = link(embedded.url_v3, "auto-3")
    assert old.up().protocol == "3.1.1"
    assert link(embedded.url_v3, "auto-3").up().protocol == "3.1.1"  # throws the first one out
    old.inbox.wait(Down)
    assert old.inbox.wait(Up).protocol == "3.1.1"


# ---- limits


@pytest.mark.parametrize("properties, window", [(b"\x21\x00\x04", 4), (b"\x21\x00\x64", 10), (b"", 10)])
def test_window_is_the_lesser_of_receive_maximum_and_ten(link, properties, window):
    server = FakeBroker(properties)
    device = link(server.url, "windowed", protocol="5")
    assert device.up().receive_maximum == window
    tokens = [device.publish("t", b"%d" % i) for i in range(window + 5)]
    sent = list(range(1, window + 1))
    assert server.publishes(window) == sent
    assert server.publishes(1, patience_s=0.2) == [], "the next waits for an acknowledgement"
    server.acknowledge(1)
    assert server.publishes(1) == [window + 1]
    server.hang_up()
    answers = [device.inbox.wait(Published) for _ in tokens]
    assert [(event.token, event.ok) for event in answers] == [(tokens[0], True)] + [(t, False) for t in tokens[1:]]
    assert answers[1].reason == "connection lost"


def test_oversize_is_refused_before_sending(shared_mosquitto, link):
    device = link(shared_mosquitto.url, "big", protocol="5")
    limit = device.up().max_packet_bytes
    assert limit == 1 << 20
    with pytest.raises(TransportError, match="lower the part size"):
        device.publish("big", bytes(limit))
    assert device.said("big", bytes(limit - len("big") - mqtt.PUBLISH_OVERHEAD)).ok, "the largest that fits"


LAVISH = "allow_anonymous true\nmax_packet_size 4194304\n"


def test_i15_in_mqtt_5_a_packet_above_our_limit_is_not_sent_to_us(link):
    with Mosquitto(LAVISH) as broker:
        reader, sender = link(broker.url, "reader", protocol="5"), link(broker.url, "sender", protocol="5")
        reader.up(), sender.up()
        reader.subscribe(["long"])
        largest = bytes(LARGEST_PACKET - len("long") - 9)  # fixed header 4, topic length 2, packet id 2, properties 1
        for excess in (1000, 2, 1, 0):  # mosquitto 2.0.11 does not count the first byte
            assert sender.said("long", largest + bytes(excess), retain=True).ok
        heard = [message.payload for message in reader.inbox.quiet(Message) if message.topic == "long"]
        assert heard in ([largest], [largest + bytes(1), largest])
        assert reader.inbox.quiet(Down) == []


def test_i15_in_mqtt_3_1_1_a_packet_above_our_limit_ends_the_connection(link, caplog):
    with Mosquitto(LAVISH) as broker:
        reader = link(broker.url, "reader", protocol="3.1.1", session_expiry_s=0)
        sender = link(broker.url, "sender", protocol="5")
        reader.up(), sender.up()
        assert sender.said("long", bytes(LARGEST_PACKET), retain=True).ok
        for again in ("", ", 2 times in a row"):
            MqttLink.subscribe(reader, ["long"])
            assert reader.inbox.wait(Down).reason.endswith(f"where it is not sent{again}")
            reader.inbox.wait(Up)
        reader.subscribe(["after"])
        assert sender.said("after", b"word").ok
        assert reader.heard("after").payload == b"word"


def test_embedded_takes_packets_up_to_its_limit(embedded, link):
    device = link(embedded.url, "big-embedded")
    device.up()
    assert device.said("big", bytes(MAX_PACKET_BYTES - 100)).ok


def test_queue_is_bounded(link):
    server = FakeBroker(b"")
    device = link(server.url, "flooding", protocol="5")
    device.up()
    with pytest.raises(TransportError, match="go on after Published"):
        for _ in range(mqtt.MAX_QUEUED + MAX_IN_FLIGHT + 1):
            device.publish("t", b"x")
    server.hang_up()


# ---- outages


def test_reconnects_after_restart_and_leaves_subscribing_to_the_user(mosquitto, link):
    device = link(mosquitto.url, "restarted")
    device.up()
    lost = device.publish("a", b"x")
    mosquitto.kill9()
    assert device.inbox.wait(Published).token == lost
    device.inbox.wait(Down)
    with pytest.raises(TransportError, match="after the next Up"):
        device.publish("a", b"x")
    mosquitto.start()
    device.inbox.wait(Up)
    assert device.said("a", b"y").ok
    device.subscribe(["b"])
    device.said("b", b"z")
    assert device.heard("b").payload == b"z"


def test_absent_broker_is_tried_for_ever_and_logged_now_and_then(link, caplog, monkeypatch, mosquitto):
    monkeypatch.setattr(mqtt, "LOG_EVERY_S", 0.4)
    mosquitto.stop()
    caplog.set_level(logging.INFO, "edgefl.transports.mqtt")
    device = link(mosquitto.url, "early", backoff_cap_s=0.05)
    began = time.monotonic()
    device.start()
    for _ in range(20):
        down = device.inbox.wait(Down)
        assert down.reason == "Connection refused"
        assert 0.0 <= down.retry_in_s <= 0.05
    while time.monotonic() - began < 1.0:
        device.inbox.wait(Down)
    lines = [record.getMessage() for record in caplog.records]
    assert (
        lines[0] == f"cannot reach MQTT broker 127.0.0.1:{mosquitto.port} (Connection refused); "
        "still trying, 0 s so far"
    )
    assert 2 <= len(lines) <= 4, lines
    mosquitto.start()
    device.inbox.wait(Up)


def test_stop_interrupts_a_long_wait(mosquitto, link):
    mosquitto.stop()
    device = link(mosquitto.url, "patient", backoff_cap_s=600.0)
    device._backoff.slow()
    device.start()
    device.inbox.wait(Down)
    began = time.monotonic()
    device.stop()
    assert time.monotonic() - began < 1.0


def test_new_will_holds_from_the_next_connection(mosquitto, link):
    device = link(mosquitto.url, "reborn", will=("will", b"boot 1"))
    device.up()
    device.set_will("will", b"boot 2")
    mosquitto.restart()
    device.inbox.wait(Down)
    device.inbox.wait(Up)
    watcher = link(mosquitto.url, "w")
    watcher.up()
    watcher.subscribe(["will"])
    rival = link(mosquitto.url, "reborn", session_expiry_s=0)
    rival.up()
    assert watcher.inbox.wait(Message, lambda event: not event.retain).payload == b"boot 2"
    # mosquitto 2.0.11 does not say "session taken over", so it must be guessed from short connections.
    # The restart may have taken it several attempts.
    device.inbox.wait(Down, lambda event: "2 times in a row: does another client have its id?" in event.reason)


def test_a_kick_by_the_guard_says_why_that_may_be(link):
    server = FakeBroker(b"")
    device = link(server.url, "kicked", protocol="5")
    device.up()
    server.disconnect(0x98)
    assert "revoked, or sends more than the broker's guard allows" in device.inbox.wait(Down).reason
    server.hang_up()


def test_taken_over_names_the_id_and_backs_off_further(monkeypatch, link):
    monkeypatch.setattr(verdict, "STABLE_S", 0.0)
    server = FakeBroker(b"")
    device = link(server.url, "twin", protocol="5")
    device.up()
    for _ in range(8):
        device._backoff.next()
    server.disconnect(0x8E)
    assert "another client has the id 'twin', give each its own" in device.inbox.wait(Down).reason
    assert device._backoff._ceiling_s == 0.2, "a long life that ends so does not reset the back-off"
    server.hang_up()


def test_wrong_password_is_said_with_advice_and_tried_slowly(link, tmp_path):
    passwords = password_file(tmp_path, {"pi-01": "right"})
    config = f"allow_anonymous false\npassword_file {passwords}\n"
    with Mosquitto(config) as broker:
        for protocol in ("5", "3.1.1"):
            url = broker.url.replace("//", "//pi-01:wrong@")
            device = link(url, "pi-01", protocol=protocol, backoff_cap_s=600.0)
            device.start()
            refused = device.inbox.wait(Refused)
            assert not refused.fatal
            assert "user 'pi-01'" in refused.reason and refused.reason.endswith("here, and the broker's users")
            assert "wrong" not in refused.reason
            assert device.inbox.wait(Down).retry_in_s > 1.0, "drawn from [0, 600] with a fixed seed"
        assert link(broker.url.replace("//", "//pi-01:right@"), "pi-02").up().protocol == "5"


def test_user_error_does_not_end_the_link(shared_mosquitto, link, caplog):
    def clumsy(event):
        device.inbox.put(event)
        raise ValueError("a bug upstairs")

    device = link(shared_mosquitto.url, "clumsy", on_event=clumsy)
    device.up()
    device.subscribe(["clumsy"])
    for payload in (b"1", b"2", b"3"):
        assert device.said("clumsy", payload).ok
        assert device.heard("clumsy").payload == payload
    assert device.inbox.quiet(Down) == []
    assert "a bug upstairs" in caplog.text


def test_unacknowledged_messages_come_again(mosquitto, link):
    sender = link(mosquitto.url, "sender")
    sender.up()
    reader = link(mosquitto.url, "manual", manual_ack=True)
    reader.up()
    reader.subscribe(["m"])
    sender.said("m", b"one")
    sender.said("m", b"two")
    first, second = reader.heard("m"), reader.heard("m")
    reader.ack(first.handle)
    reader.stop()
    reader = link(mosquitto.url, "manual", manual_ack=True)
    reader.up()
    again = reader.heard("m")
    assert (first.payload, second.payload, again.payload) == (b"one", b"two", b"two")
    reader.ack(again.handle)
    assert reader.inbox.quiet(Message) == []


def test_embedded_broker_leaves_with_its_parent():
    code = "from edgefl.transports.embedded import EmbeddedBroker as B; b = B(); print(b.pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
    ) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    eventually(lambda: not running(child))


def test_embedded_broker_closes_at_once():
    with EmbeddedBroker() as broker:
        pid = broker.pid
    assert not running(pid)


# ---- the parts without I/O


def test_backoff_is_full_jitter_up_to_its_cap():
    rng = random.Random(7)
    ceilings = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    draws = []
    for _ in range(400):
        backoff = Backoff(rng, 600.0)
        draws.append([backoff.next() for _ in ceilings])
    for ceiling, column in zip(ceilings, zip(*draws, strict=True), strict=True):
        assert 0.0 <= min(column) < 0.05 * ceiling
        assert 0.95 * ceiling < max(column) <= ceiling
    backoff.reset()
    assert backoff.next() <= 1.0
    backoff.slow()
    assert max(backoff.next() for _ in range(50)) > 300.0


def test_a_calm_link_takes_its_time_but_never_more_than_the_cap():
    rng, firsts = random.Random(7), {20.0: [], 1e6: []}
    for calm_s, draws in firsts.items():
        for _ in range(100):
            backoff = Backoff(rng, 60.0)
            backoff.calm_s = calm_s
            draws.append(backoff.next())
    assert 19.0 < max(firsts[20.0]) <= 20.0
    assert 57.0 < max(firsts[1e6]) <= 60.0
    backoff.calm_s = 20.0
    assert max(backoff.next() for _ in range(50)) > 40.0  # it goes on growing


def test_outage_reports_at_once_and_then_once_a_minute():
    outage, reports = Outage(60.0), {}
    for now in range(1000, 1200):
        if (so_far := outage.due(float(now))) is not None:
            reports[now] = so_far
    assert reports == {1000: 0.0, 1060: 60.0, 1120: 120.0, 1180: 180.0}
    assert outage.next_in(1190.0) == 50.0
    assert outage.over(1200.0) == 200.0
    assert outage.over(1201.0) == 0.0
    assert outage.due(1202.0) == 0.0


def test_versions_take_turns_until_one_works_and_stay_with_it():
    versions = Versions("auto")
    spoken = []
    for up, hung_up, unsupported in [(0, 1, 0), (0, 1, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]:
        spoken.append(versions.current)
        versions.learn(up=bool(up), hung_up=bool(hung_up), unsupported=bool(unsupported))
    assert spoken == ["5", "3.1.1", "5", "5", "5", "3.1.1", "5"]
    assert versions.current == "3.1.1"
    pinned = Versions("5")
    pinned.learn(up=False, hung_up=True, unsupported=True)
    assert pinned.current == "5"
    with pytest.raises(TransportError, match=r"use auto, 5 or 3\.1\.1"):
        Versions("4")


@pytest.mark.parametrize(
    "url, tls, hint",
    [
        ("http://host", None, "mqtts:// for TLS"),
        ("mqtt://", None, "mqtts:// for TLS"),
        ("mqtt://host:99999", None, "mqtts:// for TLS"),
        ("mqtt://u:secret@host/path", None, "mqtts:// for TLS"),
        ("mqtt://host", TlsConfig(ca="ca.crt"), "write mqtts://"),
        ("mqtts://host", TlsConfig(ca="/nowhere/ca.crt"), "/nowhere/ca.crt .*check the path"),
    ],
)
def test_unusable_urls_are_refused_with_advice(url, tls, hint):
    with pytest.raises(UsageError, match=hint) as caught:
        Endpoint.parse(url, tls)
    assert "secret" not in str(caught.value)


def test_url_parts_are_unquoted_and_hidden():
    endpoint = Endpoint.parse("mqtts://pi%2F1:p%40ss@broker", None)
    assert (endpoint.user, endpoint.password, endpoint.port) == ("pi/1", "p@ss", 8883)
    assert "p@ss" not in repr(endpoint) + str(endpoint)
    assert Endpoint.parse("mqtt://[::1]:7", None).host == "::1"


def test_i13_who_is_behind_is_sent_no_more_and_later_all(shared_mosquitto, link):
    behind = threading.Event()
    reader = link(shared_mosquitto.url, "slow", manual_ack=True, is_behind=behind.is_set)
    reader.up()
    reader.subscribe(["slow"])
    sender = link(shared_mosquitto.url, "fast")
    sender.up()
    behind.set()
    time.sleep(0.1)  # what it waits for already, it reads
    sender.said("slow", b"zero")
    time.sleep(0.1)
    sender.said("slow", b"one")
    assert [message.payload for message in reader.inbox.quiet(Message)] == [b"zero"]
    behind.clear()
    assert [reader.heard("slow").payload for _ in range(2)] == [b"zero", b"one"]


@pytest.mark.parametrize(("keepalive_s", "longest_s"), [(60, 10.0), (5, 5.0)])
def test_reading_pauses_for_ten_seconds_or_a_keep_alive_at_most(keepalive_s, longest_s):
    """A longer pause would pass for the broker's silence."""
    reading = Reading(lambda: True, keepalive_s)
    assert reading.allowed(100.0)
    assert not reading.allowed(100.0 + longest_s - 0.1)
    assert reading.allowed(100.0 + longest_s)
    assert not reading.allowed(100.0 + longest_s + 0.1)
