"""Broker profiles: what they set, what overrides them, and that the link keeps to the rate and the window."""

from __future__ import annotations

import itertools
import time

import msgspec
import onnx
import pytest
from brokers import FakeBroker
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent
from mqtt_fixtures import Published

from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx import zoo
from edgefl.protocol.envelope import HEADER_BYTES
from edgefl.protocol.topics import ROOT, Topics
from edgefl.settings import files
from edgefl.transports.backoff import Rate
from edgefl.transports.connection import FILTERS_PER_SUBSCRIBE
from edgefl.transports.profiles import PROFILES, Profile
from edgefl.transports.settings import MqttConfig


def limits(**settings) -> Profile:
    return msgspec.convert({"url": "mqtt://h"} | settings, MqttConfig).limits


def test_without_a_profile_it_is_mosquittos():
    assert limits() == PROFILES["mosquitto"] == Profile()


@pytest.mark.parametrize("name", PROFILES)
def test_explicit_settings_win(name):
    assert limits(profile=name) == PROFILES[name]
    found = limits(profile=name, receive_maximum=7, publishes_per_s=0.5, session_expiry_s=0)
    assert (found.receive_maximum, found.publishes_per_s, found.session_expiry_s) == (7, 0.5, 0)
    assert (found.part_bytes, found.in_flight) == (PROFILES[name].part_bytes, PROFILES[name].in_flight)


def test_what_the_brokers_documents_say():
    aws, azure, emqx, hivemq = (PROFILES[name] for name in ("aws", "azure", "emqx", "hivemq"))
    assert aws.part_bytes + HEADER_BYTES <= 128 * 1000 and aws.publishes_per_s <= 100 and aws.receive_maximum <= 100
    packet = azure.part_bytes + HEADER_BYTES + len(Topics("f" * 48).update("d" * 64, 2**32 - 1, 65534)) + 10
    assert azure.in_flight * packet <= 64 * 1000 and azure.receive_maximum * packet <= 64 * 1000
    assert azure.session_expiry_s <= 8 * 3600
    assert emqx.publishes_per_s <= 10 and emqx.session_expiry_s <= 2 * 3600
    assert hivemq.in_flight <= 10 and hivemq.receive_maximum <= 10
    assert FILTERS_PER_SUBSCRIBE <= 8 and ROOT.count("/") <= 1


@pytest.mark.parametrize("per_s", [0.5, 10.0, 1000.0])
def test_a_rate_spaces_publishes_evenly(per_s):
    rate, now, sent = Rate(per_s), 100.0, []
    while len(sent) < 50:
        if wait := rate.wait_s(now):
            now += wait
        else:
            rate.count(now)
            sent.append(now)
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert min(gaps) == pytest.approx(1 / per_s, rel=1e-6) and max(gaps) == pytest.approx(1 / per_s, rel=1e-6)


def test_a_pause_earns_no_burst():
    rate = Rate(10.0)
    rate.count(0.0)
    rate.count(100.0)
    assert rate.wait_s(100.05) == pytest.approx(0.05)
    assert not Rate(None).wait_s(0.0)


def test_the_link_keeps_to_the_rate_and_the_window(link):
    server = FakeBroker(b"")
    device = link(server.url, "slow", protocol="5", publishes_per_s=20.0, in_flight=4)
    assert device.up().receive_maximum == 4
    began = time.monotonic()
    tokens = [device.publish("t", b"%d" % i) for i in range(12)]
    for mid in range(1, 13):
        assert server.publishes(1) == [mid]
        server.acknowledge(mid)
    took = time.monotonic() - began
    assert 11 / 20 <= took < 5.0
    assert [device.inbox.wait(Published).token for _ in tokens] == tokens


@pytest.mark.parametrize(("profile", "explicit"), [("mosquitto", None), ("azure", None), ("azure", 1000)])
def test_the_profile_sets_the_length_of_parts_unless_it_is_set(tmp_path, profile, explicit):
    onnx.save(zoo.mlp([4, 8, 2]), tmp_path / "start.onnx")
    part = "" if explicit is None else f"part_bytes = {explicit}"
    (tmp_path / "aggregator.toml").write_text(
        f'federation = "pond"\nmodel = "{tmp_path}/start.onnx"\nstate_dir = "{tmp_path}/state"\n'
        f'[mqtt]\nurl = "mqtt://127.0.0.1:1"\nprofile = "{profile}"\nroot = "lab/7"\n[codec]\nname = "raw32"\n{part}\n'
        '[downlink]\nname = "raw32"\n'
    )
    aggregator = Aggregator(files.load(tmp_path / "aggregator.toml", AggregatorConfig), Silent())
    assert aggregator.machine.announcer.manifest.part_bytes == (explicit or PROFILES[profile].part_bytes)
    assert aggregator.machine.topics.round == "lab/7/pond/round"
