"""What Home Assistant reads: one discovery payload a device, whose entities find their values in its state."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from edgefl_broker import ha_messages as ha

from edgefl.errors import UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.home_assistant import HomeAssistantConfig
from edgefl.protocol.fleet import DeviceRow, PastRound, Summary
from edgefl.settings import files
from edgefl.settings.render import dump
from edgefl.transports.settings import MqttConfig

TOPICS = ha.HaTopics("homeassistant", "pond")
ROW = DeviceRow("pi-01", "ready", examples=50, counted=11, times=3, agent="0.2.0", model=10, celsius=47)
SUMMARY = Summary(
    "pond", "0" * 16, 9, "open", 12, 11, present=2, edgefl="0.2.0", advice=["x" * 900],
    last=[PastRound(11, "abandoned", 11), PastRound(10, "committed", 10, accuracy=0.97125, loss=0.25)],
)  # fmt: skip
ENTITY_IDS = re.compile(r"[A-Za-z0-9_-]+")


def keys_in(template: str) -> set[str]:
    return set(re.findall(r"value_json\.(\w+)", template))


def test_a_device_is_described_whole_and_every_template_finds_its_value():
    config = ha.device_config(TOPICS, ROW, control=True)
    assert config.topic == "homeassistant/device/edgefl_pond_pi-01/config"
    payload = json.loads(config.payload)
    assert payload["dev"] == {
        "ids": ["edgefl_pond_pi-01"], "mf": "EdgeFL", "name": "pi-01", "mdl": "device of pond",
        "via_device": "edgefl_pond", "sw": "0.2.0",
    }  # fmt: skip
    parts = payload["cmps"]
    assert {key: part["p"] for key, part in parts.items()} == {
        "state": "sensor", "problem": "binary_sensor", "round": "sensor", "model": "update", "temperature": "sensor",
        "pause": "switch",
    }  # fmt: skip
    assert len({part["uniq_id"] for part in parts.values()}) == len(parts)
    state = ha.device_state(TOPICS, ROW, 10)
    assert payload["stat_t"] == state.topic and payload["avty_t"] == "homeassistant/edgefl/pond/online"
    told = json.loads(state.payload)
    for part in parts.values():
        assert keys_in(part["val_tpl"]) <= set(told)
    assert (told["model"], told["newest"], told["bad"], told["paused"]) == ("10", "10", "OFF", "OFF")
    assert parts["pause"]["cmd_t"] == TOPICS.pause("pi-01") and TOPICS.paused_by(TOPICS.pause("pi-01")) == "pi-01"


def test_a_device_without_thermometer_or_control_has_no_such_entity():
    cold = DeviceRow("pi-02", "trouble", "data", "no such file", paused="winter")
    parts = json.loads(ha.device_config(TOPICS, cold, control=False).payload)["cmps"]
    assert "temperature" not in parts and "pause" not in parts
    told = json.loads(ha.device_state(TOPICS, cold, 4).payload)
    assert told["bad"] == "ON" and told["paused"] == "ON" and told["model"] is None and told["newest"] == "4"


def test_the_federation_is_a_device_too():
    payload = json.loads(ha.federation_config(TOPICS, SUMMARY).payload)
    told = json.loads(ha.federation_state(TOPICS, SUMMARY).payload)
    assert payload["dev"]["ids"] == ["edgefl_pond"]
    assert all(keys_in(part["val_tpl"]) <= set(told) for part in payload["cmps"].values())
    assert (told["loss"], told["accuracy"], told["phase"]) == (0.25, 97.12, "open")
    assert len(told["advice"]) == 255  # more is no state to Home Assistant


def test_ids_are_those_that_home_assistant_allows_and_no_two_devices_share_one():
    names = ["a.b", "a_b", "a..b", "a.c", "A.b", "x" * 64, "0", "a-b"]
    nodes = [TOPICS.node(name) for name in names]
    assert all(ENTITY_IDS.fullmatch(node) for node in nodes) and len(set(nodes)) == len(names)
    assert all(TOPICS.is_ours(TOPICS.config(node)) for node in [*nodes, TOPICS.node()])
    other = ha.HaTopics("homeassistant", "pond-2")
    assert not TOPICS.is_ours(other.config(other.node("a"))) and not TOPICS.is_ours("homeassistant/status")


def test_a_switch_of_no_device_is_refused():
    for name in ("", "+", "a/b", "viewer-x"):
        with pytest.raises(UsageError):
            TOPICS.paused_by(TOPICS.pause(name))
    assert TOPICS.paused_by(TOPICS.state) is None


def test_with_certificates_home_assistant_needs_a_broker_of_its_own(tmp_path: Path):
    keyed = MqttConfig(url="mqtts://b", cert="c.crt", key="c.key", ca="ca.crt")
    with pytest.raises(UsageError, match=r"\[home_assistant\] needs the url"):
        HomeAssistantConfig(enabled=True).broker(keyed)
    table = {"federation": "f", "model": "m.onnx", "mqtt": {"url": "mqtts://b"}, "keys": {"dir": "."}}
    path = tmp_path / "aggregator.toml"
    path.write_text(dump(table | {"home_assistant": {"enabled": True}}))
    with pytest.raises(UsageError, match="needs the url"):
        files.load(path, AggregatorConfig)
    assert HomeAssistantConfig(url="mqtt://ha").broker(keyed).url == "mqtt://ha"
    open = HomeAssistantConfig().broker(MqttConfig(url="mqtt://b", username="u", client_id="agg-x"))
    assert (open.url, open.username, open.client_id, open.session_expiry_s) == ("mqtt://b", "u", None, 0)
