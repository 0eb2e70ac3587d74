"""The fleet in Home Assistant, over a real broker: a client that does what Home Assistant does stands for it.

`make test-home-assistant` has Home Assistant itself read the same messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from edgefl_broker import home_assistant
from edgefl_broker.ha_messages import HaTopics
from mqtt_fixtures import TestLink

from edgefl.cli.main import main
from edgefl.transports.mqtt import Message


class Retained:
    """What Home Assistant would know: the newest retained message of each topic."""

    def __init__(self, reader: TestLink) -> None:
        self._reader = reader
        self.messages: dict[str, bytes] = {}

    def forget(self) -> None:
        self.messages.clear()
        self._reader.inbox._events.clear()

    def __call__(self, topic: str) -> dict | None:
        for event in self._reader.inbox.quiet(Message, 0.05):
            self.messages[event.topic] = event.payload
        payload = self.messages.get(topic)
        return json.loads(payload) if payload and payload.startswith(b"{") else None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(home_assistant, "LOOK_S", 0.2)
    monkeypatch.setattr(home_assistant, "SETTLE_S", 2.0)
    yield


def test_devices_appear_are_paused_by_their_switch_and_disappear(
    quick: None, shared_mosquitto: Mosquitto, federation, link, capsys
) -> None:
    fleet: Federation = federation(shared_mosquitto.url)
    topics = HaTopics("ha-test", fleet.name)
    ha: TestLink = link(shared_mosquitto.url, "home-assistant")
    ha.up()
    ha.said(topics.config(topics.node("left-over")), b"{}", retain=True)
    ha.said("ha-test/device/edgefl_other_a/config", b"{}", retain=True)
    ha.subscribe(["ha-test/#"])
    known = Retained(ha)
    rounds = {"deadline_s": 10.0, "min_reports": 1, "interval_s": 0.3}
    aggregator = fleet.aggregator(rounds=rounds, home_assistant={"enabled": True, "prefix": "ha-test"})
    agents = {name: fleet.agent(name) for name in ("dev-a", "dev.b")}
    for name in agents:
        eventually(lambda name=name: known(topics.config(topics.node(name))), 20.0)
        eventually(lambda name=name: (known(topics.device_state(name)) or {}).get("model"), 20.0)
    eventually(lambda: (known(topics.state) or {}).get("accuracy"), 20.0)
    eventually(lambda: known(topics.state) and known.messages[topics.config(topics.node("left-over"))] == b"", 20.0)
    assert known.messages["ha-test/device/edgefl_other_a/config"] == b"{}", "another federation's is not touched"
    assert known.messages[topics.online] == b"online"

    ha.said(topics.pause("dev-a"), b"ON")
    eventually(lambda: known(topics.device_state("dev-a"))["paused"] == "ON", 20.0)
    assert aggregator.host.machine.presence.paused == {"dev-a": "by Home Assistant"}
    for topic, payload in (
        (topics.pause("nobody"), b"ON"),
        (topics.pause("dev.b"), b"rubbish"),
        (topics.pause(""), b"ON"),
    ):
        ha.said(topic, payload)
    ha.said(topics.pause("dev-a"), b"OFF")
    eventually(lambda: known(topics.device_state("dev-a"))["paused"] == "OFF", 20.0)
    assert aggregator.host.machine.presence.paused == {}

    known.forget()
    ha.said("ha-test/status", b"online")
    eventually(lambda: known(topics.config(topics.node("dev.b"))), 20.0)  # repeated on its birth

    agents["dev.b"].stop()
    eventually(lambda: main(["forget", "dev.b", "--state-dir", str(fleet.folder / "aggregator")]) == 0, 20.0)
    capsys.readouterr()
    topic = topics.config(topics.node("dev.b"))
    eventually(lambda: known(topic) is None and known.messages.get(topic) == b"", 20.0)
    aggregator.stop()
    eventually(lambda: known(topics.online) is None and known.messages[topics.online] == b"offline", 10.0)
    assert aggregator.error is None


def test_rounds_go_on_while_its_broker_is_away(quick: None, shared_mosquitto: Mosquitto, federation) -> None:
    fleet: Federation = federation(shared_mosquitto.url)
    aggregator = fleet.aggregator(
        rounds={"rounds": 3, "deadline_s": 10.0, "min_reports": 1},
        home_assistant={"enabled": True, "url": "mqtt://localhost:1"},
    )
    fleet.agent("dev-a")
    assert aggregator.join(30.0) and aggregator.error is None
    assert aggregator.host.machine.version == 3
