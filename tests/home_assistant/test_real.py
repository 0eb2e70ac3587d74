"""Home Assistant itself discovers the fleet, shows its states, and pauses a device: `make test-home-assistant`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from edgefl_broker import home_assistant

from edgefl.cli.main import main

PYTHON = os.environ.get("EDGEFL_HA_PYTHON", "")
INSIDE = Path(__file__).parent / "inside.py"
pytestmark = pytest.mark.skipif(not PYTHON, reason="Home Assistant takes 1 GB: make test-home-assistant")


class HomeAssistant:
    """The process; `ask` gives it an order."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self._log = open(folder / "log", "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            [PYTHON, str(INSIDE), str(folder), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log,
        )  # fmt: skip
        self.log = folder / "log"
        assert self._read() == "started"

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        return json.loads(line)

    def ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self, entity: str, state: str | None = None) -> str:
        found = self.ask(wait=entity, **({} if state is None else {"state": state}))
        assert isinstance(found, str), found
        return found

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


@pytest.fixture
def ha(tmp_path: Path, shared_mosquitto: Mosquitto) -> Iterator[HomeAssistant]:
    made = HomeAssistant(tmp_path / "ha", shared_mosquitto.port)
    yield made
    made.stop()


def test_home_assistant_shows_the_fleet_and_pauses_a_device(
    ha: HomeAssistant, shared_mosquitto: Mosquitto, federation, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(home_assistant, "LOOK_S", 0.5)
    fleet: Federation = federation(shared_mosquitto.url)
    rounds = {"deadline_s": 10.0, "min_reports": 1, "interval_s": 0.3}
    aggregator = fleet.aggregator(rounds=rounds, home_assistant={"enabled": True})
    agents = {name: fleet.agent(name) for name in ("pi-1", "pi.2")}
    agents["pi-1"].host._thermometer._read = lambda: 47.2
    agents["pi-1"].host._thermometer._look_at = 0.0
    base = f"federation_{fleet.name.replace('-', '_')}"
    assert ha.wait("sensor.pi_1_state") in ("ready", "training")
    ha.wait("sensor.pi_2_last_round")
    ha.wait(f"sensor.{base}_accuracy")
    ha.wait("update.pi_1_model", "off")
    ha.wait("sensor.pi_1_temperature", "47")
    ha.wait("binary_sensor.pi_1_problem", "off")

    ha.ask(call="turn_on", entity="switch.pi_1_paused")
    ha.wait("switch.pi_1_paused", "on")
    assert aggregator.host.machine.presence.paused == {"pi-1": "by Home Assistant"}
    ha.ask(call="turn_off", entity="switch.pi_1_paused")
    ha.wait("switch.pi_1_paused", "off")
    assert aggregator.host.machine.presence.paused == {}

    found = ha.ask(dump=True)
    devices = found["devices"]
    assert set(devices) >= {"pi-1", "pi.2", f"Federation {fleet.name}"}
    assert devices["pi-1"]["via"] == devices[f"Federation {fleet.name}"]["id"] and devices["pi-1"]["sw"]
    entities = {entity for entity in found["entities"] if ".pi_1_" in entity}
    assert len(entities) == 6
    assert found["states"]["sensor.pi_1_state"]["what_to_do"] == ""

    agents["pi.2"].stop()
    eventually(lambda: main(["forget", "pi.2", "--state-dir", str(fleet.folder / "aggregator")]) == 0, 20.0)
    eventually(lambda: "pi.2" not in ha.ask(dump=True)["devices"], 20.0)
    aggregator.stop()
    ha.wait("sensor.pi_1_state", "unavailable")
    log = ha.log.read_text()
    assert "homeassistant.components.mqtt" not in log.replace("mqtt.client", ""), log[-3000:]
