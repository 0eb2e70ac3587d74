"""Revoked on a real broker with TLS and the guard: a device is out within one round, and nothing restarts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from brokers import eventually
from enrolled import tls, unpack
from keyed_fleet import KeyedFleet

from edgefl.keys import enrolment
from edgefl.transports.mqtt import Down


@pytest.fixture(autouse=True)
def trusted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")


def test_a_revoked_device_is_out_within_one_round_and_nothing_restarts(tmp_path: Path) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol("pi-01", "pi-02", "pi-03")
        fleet.aggregator()
        agents = {name: fleet.agent(name) for name in ("pi-01", "pi-02", "pi-03")}
        eventually(lambda: any("pi-03" in record.devices for record in fleet.records()), 30.0)
        boots = {name: agent.host.boot for name, agent in agents.items()}
        enrolment.revoke_names(fleet.keys, ["pi-03"])
        revoked_at = time.monotonic()
        eventually(lambda: agents["pi-03"].host.boot > boots["pi-03"], 5.0)  # it was disconnected
        kicked_s = time.monotonic() - revoked_at
        fleet.reload()
        before = len(fleet.records())
        after = fleet.wait(before + 4)[before + 1 :]
        assert all(set(record.devices) == {"pi-01", "pi-02"} for record in after), [r.devices for r in after]
        assert all(record.state == "committed" for record in after)
        assert {name: agents[name].host.boot for name in ("pi-01", "pi-02")} == {
            n: boots[n] for n in ("pi-01", "pi-02")
        }
        assert kicked_s < 3.0


def test_the_roster_alone_keeps_a_revoked_device_out(tmp_path: Path) -> None:
    """Without the guard and without a reload of mosquitto, so the device stays connected."""
    with KeyedFleet(tmp_path, guard=False) as fleet:
        fleet.enrol("pi-01", "pi-02", "pi-03")
        fleet.aggregator()
        agents = [fleet.agent(name) for name in ("pi-01", "pi-02", "pi-03")]
        eventually(lambda: any("pi-03" in record.devices for record in fleet.records()), 30.0)
        boots = [agent.host.boot for agent in agents]
        enrolment.revoke_names(fleet.keys, ["pi-03"])
        time.sleep(1.5)  # the aggregator looks at its roster once a second
        before = len(fleet.records())
        after = fleet.wait(before + 4)[before + 1 :]
        assert all(set(record.devices) == {"pi-01", "pi-02"} for record in after), [r.devices for r in after]
        assert [agent.host.boot for agent in agents] == boots, "nobody was disconnected"


@pytest.mark.parametrize("change", [enrolment.renew_signer, enrolment.next_epoch])
def test_devices_follow_what_the_root_certifies_next_while_all_runs(tmp_path: Path, change: Any) -> None:
    with KeyedFleet(tmp_path, guard=False) as fleet:
        fleet.enrol("pi-01", "pi-02")
        fleet.aggregator()
        for name in ("pi-01", "pi-02"):
            fleet.agent(name)
        fleet.wait(2)
        change(fleet.keys)
        time.sleep(1.5)
        before = len(fleet.records())
        after = fleet.wait(before + 4)[before + 1 :]
        assert all(record.state == "committed" for record in after)
        assert all(set(record.devices) == {"pi-01", "pi-02"} for record in after)


def test_a_device_that_is_enrolled_while_all_runs_takes_part(tmp_path: Path) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol("pi-01", "pi-02")
        fleet.aggregator()
        for name in ("pi-01", "pi-02"):
            fleet.agent(name)
        fleet.wait(2)
        fleet.enrol("pi-03")
        fleet.agent("pi-03")
        eventually(lambda: any("pi-03" in record.devices for record in fleet.records()), 30.0)


def test_a_reload_brings_revocations_and_renewed_certificates(tmp_path: Path, link: Any) -> None:
    """Without the guard too: mosquitto reads its list of revoked certificates and its own certificate again."""
    with KeyedFleet(tmp_path, guard=False) as fleet:
        fleet.enrol("pi-01", "pi-02")

        def client(name: str) -> Any:
            return link(f"mqtts://localhost:{fleet.port}", name, tls=tls(fleet.home(name)), session_expiry_s=0)

        client("pi-01").up()
        enrolment.revoke_names(fleet.keys, ["pi-01"])
        enrolment.renew_broker(fleet.keys)
        fleet.reload()
        time.sleep(0.5)
        out = client("pi-01")
        out.start()
        assert "our certificate is revoked" in out.inbox.wait(Down).reason
        client("pi-02").up()
        unpack(enrolment.renew(fleet.keys, ["pi-02"])[0], fleet.home("pi-02"))
        client("pi-02").up()
