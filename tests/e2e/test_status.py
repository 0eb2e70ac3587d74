"""`edgefl status` over real brokers: what the operator sees of devices, rounds and an aggregator that is not there."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from enrolled import unpack
from keyed_fleet import KeyedFleet
from mqtt_fixtures import TestLink

from edgefl.cli.main import main
from edgefl.keys import enrolment
from edgefl.keys.enrolment import USUAL
from edgefl.protocol.fleet import Summary, encode_summary
from edgefl.protocol.messages import Status, encode
from edgefl.protocol.topics import Topics

ROUNDS = {"deadline_s": 10.0, "min_reports": 1, "interval_s": 0.5, "rounds": 2000}


def shown(capsys, *words: str) -> str:
    assert main(["status", *words]) == 0
    return capsys.readouterr().out


def as_json(capsys, *words: str) -> dict:
    return json.loads(shown(capsys, "--json", *words))


def test_an_open_fleet_is_shown_on_every_broker(broker_url: str, federation, link, capsys) -> None:
    fleet: Federation = federation(broker_url)
    where = ("--broker", broker_url, "--federation", fleet.name)
    assert main(["status", *where]) == 1
    assert "nothing of edgefl/2/" in capsys.readouterr().err
    aggregator = fleet.aggregator(rounds=ROUNDS)
    fleet.agent("dev-a")
    other: TestLink = link(broker_url, "dev-b")
    other.up()
    why = "its data can't be used: line 13: a text where a number is expected"
    topic = Topics(fleet.name).status("dev-b")
    other.said(topic, encode(Status("trouble", 1, 0, why, "data")), retain=True)
    eventually(lambda: aggregator.host.machine.version >= 2)
    eventually(lambda: len(as_json(capsys, *where)["devices"]) == 2, 20.0)
    found = as_json(capsys, *where)
    rows = {row["id"]: row for row in found["devices"]}
    assert set(rows) == {"dev-a", "dev-b"} and not found["stale"] and not found["verified"]
    assert rows["dev-a"]["agent"] and rows["dev-a"]["examples"] == 60 and rows["dev-a"]["seen"] > time.time() - 60
    assert rows["dev-b"]["code"] == "data" and "correct" in rows["dev-b"]["remedy"]
    assert found["summary"]["states"] == {"ready": 1, "trouble": 1}
    text = shown(capsys, "--config", str(fleet.folder / "dev-a" / "agent.toml"))
    assert "dev-b   trouble data" in text and "line 13" in text and "-> correct" in text and "committed" in text
    assert "dev-a" not in shown(capsys, *where, "--troubled", "dev-b").partition("DEVICE")[2].partition("committed")[0]
    assert main(["status", *where, "dev-aa"]) == 2 and "did you mean 'dev-a'?" in capsys.readouterr().err
    aggregator.stop()
    assert "the aggregator was stopped" in shown(capsys, *where)


def test_a_viewer_with_keys_reads_and_verifies(tmp_path: Path, capsys) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol("pi-1", "pi-2")
        (bundle,) = enrolment.add(fleet.keys, ["wall"], USUAL, "viewer")
        viewer = ("--config", str(unpack(bundle, fleet.home("wall")) / "viewer.toml"))
        aggregator = fleet.aggregator("rounds.min_reports=1")
        fleet.agent("pi-1")
        fleet.wait(2)
        assert main(["status", *viewer]) == 1  # the broker has the acl of before, and hides what that does not grant
        assert "or us read, edgefl/2/f/summary" in capsys.readouterr().err
        fleet.reload()
        eventually(lambda: as_json(capsys, *viewer)["summary"]["round"] > 2, 20.0)
        found = as_json(capsys, *viewer)
        states = {row["id"]: row["state"] for row in found["devices"]}
        assert found["verified"] and states.keys() == {"pi-1", "pi-2"} and states["pi-2"] == "absent"
        assert main(["status", "--config", str(fleet.home("pi-1") / "agent.toml")]) == 2
        assert "keys add DIR NAME --viewer" in capsys.readouterr().err
        (fleet.home("wall") / "root.pub").write_text("A" * 43 + "=\n")
        assert main(["status", *viewer]) == 1
        assert "compare root.pub" in capsys.readouterr().err
        assert aggregator.error is None


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_why_there_is_no_summary_is_said(protocol: str, shared_mosquitto: Mosquitto, link, capsys) -> None:
    topics = Topics(f"none-{protocol.replace('.', '-')}")
    sets = ("--set", f"mqtt.protocol={protocol}")
    where = ("--broker", shared_mosquitto.url, "--federation", topics.base.rpartition("/")[2], *sets)
    other: TestLink = link(shared_mosquitto.url, f"aggregator-{protocol[0]}")
    other.up()
    other.said(topics.manifest, b"{}", retain=True)
    assert main(["status", *where]) == 1
    assert "older than this program, or the broker's ACL" in capsys.readouterr().err
    other.said(topics.summary, b"rubbish", retain=True)
    assert main(["status", *where]) == 1
    assert "can't be read" in capsys.readouterr().err
    old = Summary("none", "0" * 16, int(time.time()) - 4000, "waiting", 3, 2)
    other.said(topics.summary, encode_summary(old), retain=True)
    assert "STALE" in shown(capsys, *where) and "66 min" in shown(capsys, *where)
    for topic in (topics.summary, topics.manifest):
        other.said(topic, b"", retain=True)


def test_a_broker_that_is_not_there_is_named(capsys) -> None:
    assert main(["status", "--broker", "mqtt://localhost:1", "--federation", "pond", "--wait", "2"]) == 1
    assert "can't reach the MQTT broker at localhost:1 (Connection refused)" in capsys.readouterr().err


def test_a_watched_fleet_is_shown_anew_until_ctrl_c(shared_mosquitto: Mosquitto, federation, link) -> None:
    fleet: Federation = federation(shared_mosquitto.url)
    fleet.aggregator(rounds=ROUNDS)
    words = ["--broker", shared_mosquitto.url, "--federation", fleet.name, "--watch"]
    screen, end = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-m", "edgefl", "status", *words, "--wait", "20"], stdout=end, stderr=end,
        env=os.environ | {"COLUMNS": "80", "LINES": "12"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    os.close(end)
    seen = b""

    def shows(text: bytes) -> bool:
        nonlocal seen
        if select.select([screen], [], [], 0.1)[0]:
            seen += os.read(screen, 65536)
        return text in seen

    def ended() -> bool:
        """What it still writes must be read, or it can't end; a terminal that it has closed can't be read."""
        with suppress(OSError):
            shows(b"")
        return watch.poll() is not None

    try:
        eventually(lambda: shows(b"0 devices"), 30.0)
        fleet.agent("dev-a")
        eventually(lambda: shows(b"1 device") and shows(b"dev-a") and shows(b"committed"), 60.0)
        frames = seen.split(b"\x1b[H\x1b[2J")[1:]
        assert len(frames) >= 2 and all(frame.count(b"\n") <= 12 for frame in frames[:-1])
        watch.send_signal(signal.SIGINT)
        eventually(ended, 10.0)
        assert watch.returncode == 0 and b"Traceback" not in seen
    finally:
        watch.kill()
        os.close(screen)
