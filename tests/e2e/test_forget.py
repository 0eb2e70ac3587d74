"""A retired device leaves nothing behind, and may be enrolled again; a paused one is not asked."""

from __future__ import annotations

from pathlib import Path

from brokers import eventually
from daemons import Federation
from enrolled import tls
from keyed_fleet import KeyedFleet
from mqtt_fixtures import TestLink

from edgefl.cli.main import main
from edgefl.keys import enrolment
from edgefl.protocol.topics import Topics
from edgefl.transports.mqtt import Message

GONE = "retired-7"
TOPICS = Topics("f")


def left_in(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and GONE.encode() in path.read_bytes()]


def retained(fleet: KeyedFleet, link) -> dict[str, bytes]:
    """All that the broker keeps, as the aggregator's own user sees it while the aggregator is stopped."""
    home = fleet.keys / "aggregator"
    reader: TestLink = link(f"mqtts://localhost:{fleet.port}", "agg-f", tls=tls(home, "aggregator"))
    reader.up()
    TestLink.__mro__[1].subscribe(reader, [f"{TOPICS.base}/#"])
    found = {event.topic: event.payload for event in reader.inbox.quiet(Message, 1.0)}
    reader.stop(0.5)
    return found


def test_nothing_is_left_of_a_retired_device_and_it_can_enrol_again(tmp_path: Path, link, capsys) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol("pi-1", GONE)
        where = ["--state-dir", str(tmp_path / "state")]
        aggregator = fleet.aggregator("rounds.interval_s=0.3")
        fleet.agent("pi-1")
        retired = fleet.agent(GONE)
        eventually(lambda: sum(GONE in record.devices for record in fleet.records()) >= 2, 30.0)
        eventually(lambda: GONE in str(aggregator.host.machine.rows()))
        assert main(["forget", GONE, *where]) == 1
        assert "stop its agent, or revoke it" in capsys.readouterr().err
        retired.stop()
        enrolment.revoke_names(fleet.keys, [GONE])
        fleet.reload()
        eventually(lambda: GONE not in aggregator.host.machine.presence.statuses)
        assert left_in(tmp_path / "state")
        assert main(["forget", GONE, *where]) == 0
        assert f"{GONE} is removed" in capsys.readouterr().out
        assert not left_in(tmp_path / "state")
        aggregator.stop()
        assert not left_in(tmp_path / "state")
        found = retained(fleet, link)
        assert TOPICS.summary in found and TOPICS.fleet(0) in found and TOPICS.status("pi-1") in found
        assert not [topic for topic, payload in found.items() if GONE in topic or GONE.encode() in payload]
        rounds = len(fleet.records())
        (tmp_path / GONE / "agent.toml").unlink()
        fleet.enrol(GONE)
        fleet.reload()
        fleet.aggregator("rounds.interval_s=0.3")
        fleet.agent(GONE)
        eventually(lambda: any(GONE in record.devices for record in fleet.records()[rounds:]), 60.0)


def test_a_paused_device_is_asked_no_more_over_a_restart_too(broker_url: str, federation, capsys) -> None:
    fleet: Federation = federation(broker_url)
    where = ["--state-dir", str(fleet.folder / "aggregator")]
    rounds = {"rounds": {"deadline_s": 10.0, "min_reports": 1, "interval_s": 0.2}}
    aggregator = fleet.aggregator(**rounds)
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    eventually(lambda: aggregator.host.machine.presence.count == 2)
    assert main(["pause", "dev-b", "--why", "its sensor is being replaced", *where]) == 0
    assert "its sensor is being replaced" in capsys.readouterr().out

    def goes_on_without_b() -> None:
        tally = aggregator.host.machine.tally
        done = (tally.round if tally else 0) + 3
        eventually(lambda: aggregator.host.machine.round >= done)
        last = list(aggregator.host.machine.roll.past)[:2]
        assert all(past.state == "committed" and past.reported == 1 for past in last)

    goes_on_without_b()
    aggregator.stop()
    aggregator = fleet.aggregator(**rounds)
    eventually(lambda: "dev-b" in aggregator.host.machine.presence.statuses)
    goes_on_without_b()
    assert main(["resume", "dev-b", *where]) == 0
    eventually(lambda: aggregator.host.machine.roll.past[0].reported == 2)
    assert main(["resume", "dev-b", *where]) == 0 and "nothing was changed" in capsys.readouterr().out
    assert main(["forget", "dev/b", *where]) == 2
