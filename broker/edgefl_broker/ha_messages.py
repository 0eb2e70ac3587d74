"""What Home Assistant reads of a fleet: discovery payloads and states, as JSON. No I/O.

    PREFIX/device/edgefl_FED/config            the federation; retained
    PREFIX/device/edgefl_FED_DEVICE/config     a device; retained
    PREFIX/edgefl/FED/online                   "online", or "offline": also the will
    PREFIX/edgefl/FED/state                    the federation's state
    PREFIX/edgefl/FED/d/DEVICE/state           a device's
    PREFIX/edgefl/FED/d/DEVICE/pause           what its switch says: "ON" or "OFF"

One payload describes a whole device with all its entities (MQTT device discovery: `dev`, `o`, `cmps`), so that a device
that is removed takes its entities along.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from edgefl import __version__
from edgefl.protocol.fleet import DeviceRow, Summary
from edgefl.protocol.topics import check_device_id
from edgefl.viewer.remedy import problem, remedy

ONLINE, OFFLINE, ON, OFF = b"online", b"offline", b"ON", b"OFF"
BORN = b"online"  # what Home Assistant says on PREFIX/status when it has started
ORIGIN = {"name": "EdgeFL", "sw": __version__}
_NO_ID = re.compile(r"[^A-Za-z0-9_-]")
_HEAD = 8  # hex digits


class HaTopics:
    """All topics of one federation below the discovery prefix."""

    def __init__(self, prefix: str, federation: str) -> None:
        self.federation = federation
        self.base = f"{prefix}/edgefl/{federation}"
        self.online, self.state = f"{self.base}/online", f"{self.base}/state"
        self.birth = f"{prefix}/status"
        self.any_pause = f"{self.base}/d/+/pause"
        self.any_config = f"{prefix}/device/+/config"
        self._configs = f"{prefix}/device/"

    def node(self, device: str = "") -> str:
        """The id of the federation, or of a device; a dot, which Home Assistant allows in none, becomes a hash."""
        if not device:
            return f"edgefl_{self.federation}"
        name = _NO_ID.sub("_", device)
        if name != device:
            name += f"_{hashlib.sha256(device.encode()).hexdigest()[:_HEAD]}"
        return f"edgefl_{self.federation}_{name}"

    def config(self, node: str) -> str:
        return f"{self._configs}{node}/config"

    def is_ours(self, topic: str) -> bool:
        """Whether this is the discovery topic of this federation, or of a device of it."""
        node = topic.removeprefix(self._configs).removesuffix("/config")
        return topic == self.config(node) and (node == self.node() or node.startswith(f"{self.node()}_"))

    def device_state(self, device: str) -> str:
        return f"{self.base}/d/{device}/state"

    def pause(self, device: str) -> str:
        return f"{self.base}/d/{device}/pause"

    def paused_by(self, topic: str) -> str | None:
        """The device whose switch has this topic; None for any other topic. UsageError: no device's name."""
        head, tail = f"{self.base}/d/", "/pause"
        if not (topic.startswith(head) and topic.endswith(tail)):
            return None
        return check_device_id(topic[len(head) : -len(tail)])


class Shown(NamedTuple):
    """A retained message."""

    topic: str
    payload: bytes


def _sensor(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"p": "sensor", "name": name, "val_tpl": f"{{{{ value_json.{key} }}}}", **more}


def _discovery(topics: HaTopics, node: str, device: dict[str, Any], state: str, parts: dict[str, Any]) -> Shown:
    entities = {key: {**part, "uniq_id": f"{node}_{key}"} for key, part in parts.items()}
    payload = {
        "dev": {"ids": [node], "mf": "EdgeFL", **device}, "o": ORIGIN, "cmps": entities, "stat_t": state,
        "avty_t": topics.online, "qos": 1,
    }  # fmt: skip
    return Shown(topics.config(node), msgspec.json.encode(payload))


def federation_config(topics: HaTopics, summary: Summary) -> Shown:
    """The federation itself, as a device that all others are reached through."""
    diagnostic = {"ent_cat": "diagnostic"}
    parts = {
        "phase": _sensor("Phase", "phase", ic="mdi:state-machine"),
        "round": _sensor("Round", "round", ic="mdi:counter"),
        "version": _sensor("Model version", "version", ic="mdi:brain"),
        "present": _sensor("Devices present", "present", stat_cla="measurement", ic="mdi:devices"),
        "loss": _sensor("Loss", "loss", stat_cla="measurement", ic="mdi:chart-line"),
        "accuracy": _sensor("Accuracy", "accuracy", stat_cla="measurement", unit_of_meas="%", ic="mdi:target"),
        "advice": _sensor("Advice", "advice", ic="mdi:message-alert", **diagnostic),
    }
    device = {"name": f"Federation {summary.federation}", "mdl": "federation", "sw": summary.edgefl}
    return _discovery(topics, topics.node(), device, topics.state, parts)


def federation_state(topics: HaTopics, summary: Summary) -> Shown:
    """`loss` and `accuracy` are those of the last round that has them; Home Assistant shows null as unknown."""
    loss = next((past.loss for past in summary.last if past.loss is not None), None)
    accuracy = next((past.accuracy for past in summary.last if past.accuracy is not None), None)
    state = {
        "phase": summary.phase, "round": summary.round, "version": summary.version, "present": summary.present,
        "loss": loss, "accuracy": None if accuracy is None else round(100 * accuracy, 2),
        "advice": summary.advice[0][:255] if summary.advice else "none",
    }  # fmt: skip
    return Shown(topics.state, msgspec.json.encode(state))


def device_config(topics: HaTopics, row: DeviceRow, *, control: bool) -> Shown:
    """A device with its entities; one that has no thermometer has no temperature."""
    node, state = topics.node(row.id), topics.device_state(row.id)
    parts: dict[str, Any] = {
        "state": _sensor("State", "state", json_attr_t=state, ic="mdi:state-machine"),
        "problem": {"p": "binary_sensor", "name": "Problem", "dev_cla": "problem", "val_tpl": "{{ value_json.bad }}"},
        "round": _sensor("Last round", "round", ic="mdi:counter"),
        "model": {
            "p": "update", "name": "Model", "ent_cat": "diagnostic", "ic": "mdi:brain",
            "val_tpl": "{{ {'installed_version': value_json.model, 'latest_version': value_json.newest} | to_json }}",
        },
    }  # fmt: skip
    if row.celsius is not None:
        more = {"dev_cla": "temperature", "unit_of_meas": "°C", "stat_cla": "measurement"}
        parts["temperature"] = _sensor("Temperature", "celsius", **more)
    if control:
        parts["pause"] = {
            "p": "switch", "name": "Paused", "cmd_t": topics.pause(row.id), "val_tpl": "{{ value_json.paused }}",
            "ic": "mdi:pause-circle", "ent_cat": "config",
        }  # fmt: skip
    device = {"name": row.id, "mdl": f"device of {topics.federation}", "via_device": topics.node()}
    return _discovery(topics, node, device | ({"sw": row.agent} if row.agent else {}), state, parts)


def device_state(topics: HaTopics, row: DeviceRow, newest: int) -> Shown:
    """`newest` is the version that the last round began with: a device that counted in it is up to date."""
    wrong = bool(row.barred) or row.state in ("trouble", "lost")
    state = {
        "state": "barred" if row.barred else row.state, "bad": "ON" if wrong else "OFF", "round": row.counted or None,
        "paused": "ON" if row.paused else "OFF", "celsius": row.celsius, "examples": row.examples,
        "model": str(row.model) if row.times else None, "newest": str(max(newest, row.model)), "why": problem(row),
        "what_to_do": remedy(row),
    }  # fmt: skip
    return Shown(topics.device_state(row.id), msgspec.json.encode(state))


def newest_of(rows: Sequence[DeviceRow]) -> int:
    """The newest version that a device has trained from."""
    return max((row.model for row in rows), default=0)
