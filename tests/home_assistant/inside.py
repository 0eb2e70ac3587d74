"""Runs in Home Assistant's own Python: `python inside.py FOLDER PORT`. Starts its MQTT integration on the broker at
that port, and obeys its standard input, a line of JSON each:

    {"wait": "switch.pi_01_paused", "state": "on"}      until the entity has the state, or any state if none is given
    {"call": "turn_on", "entity": "switch.pi_01_paused"}
    {"dump": true}                                      all states, and the devices

Each line is answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

from homeassistant import bootstrap, runner
from homeassistant.helpers import device_registry, entity_registry

WAIT_S = 40.0


def write_config(folder: Path, port: int) -> None:
    """A configuration with the MQTT integration alone."""
    (folder / "configuration.yaml").write_text("homeassistant:\n  name: test\n")
    entry = {
        "created_at": "2025-01-01T00:00:00+00:00", "modified_at": "2025-01-01T00:00:00+00:00",
        "data": {"broker": "localhost", "port": port, "protocol": "5"}, "disabled_by": None, "discovery_keys": {},
        "domain": "mqtt", "entry_id": "01JXMQTT000000000000000000", "minor_version": 2, "options": {},
        "pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user", "title": "localhost",
        "unique_id": None, "version": 1, "subentries": [],
    }  # fmt: skip
    store = {"version": 1, "minor_version": 5, "key": "core.config_entries", "data": {"entries": [entry]}}
    (folder / ".storage").mkdir(exist_ok=True)
    (folder / ".storage" / "core.config_entries").write_text(json.dumps(store))


async def obey(hass, order: dict) -> object:
    if "wait" in order:
        for _ in range(int(WAIT_S * 10)):
            state = hass.states.get(order["wait"])
            known = state is not None and state.state not in ("unknown", "unavailable")
            if state is not None and (state.state == order["state"] if "state" in order else known):
                return state.state
            await asyncio.sleep(0.1)
        return {"missing": order["wait"], "known": {s.entity_id: s.state for s in hass.states.async_all()}}
    if "call" in order:
        domain = order["entity"].partition(".")[0]
        await hass.services.async_call(domain, order["call"], {"entity_id": order["entity"]}, blocking=True)
        return True
    devices = device_registry.async_get(hass)
    entities = entity_registry.async_get(hass)
    return {
        "states": {s.entity_id: {"state": s.state, **dict(s.attributes)} for s in hass.states.async_all()},
        "devices": {d.name: {"sw": d.sw_version, "via": d.via_device_id, "id": d.id} for d in devices.devices.values()},
        "entities": {e.entity_id: e.unique_id for e in entities.entities.values() if e.platform == "mqtt"},
    }


async def main(folder: Path, port: int) -> None:
    bootstrap.CRITICAL_INTEGRATIONS = frozenset()  # a frontend needs much that nobody looks at here
    hass = await bootstrap.async_setup_hass(
        runner.RuntimeConfig(config_dir=str(folder), skip_pip=True, safe_mode=False, log_no_color=True)
    )
    assert hass is not None, "Home Assistant did not start"
    await hass.async_start()
    print(json.dumps("started"), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await obey(hass, json.loads(line)), default=str), flush=True)
    await hass.async_stop(force=True)


if __name__ == "__main__":
    where, broker_port = Path(sys.argv[1]), int(sys.argv[2])
    write_config(where, broker_port)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(main(where, broker_port))
