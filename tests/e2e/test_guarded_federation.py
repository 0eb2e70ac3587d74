"""A federation behind the guard, with the broker's generated files; and one whose broker was flooded without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import eventually
from conftest import ROOT
from daemons import Federation, Running
from guarded import GuardedMosquitto

ROUNDS = {"deadline_s": 10.0, "min_reports": 1, "expect": 2}


class Guarded:
    """A federation whose daemons have certificates."""

    def __init__(self, folder: Path, broker: GuardedMosquitto, protocol: str = "5") -> None:
        self.federation = Federation(folder, broker.url, broker.federation, protocol)
        self._broker = broker

    def _mqtt(self, name: str) -> dict[str, object]:
        tls = self._broker.authority.client(name)
        return {**self.federation._mqtt, "ca": tls.ca, "cert": tls.cert, "key": tls.key}

    def aggregator(self, **tables: object) -> Running:
        return self.federation.aggregator(mqtt=self._mqtt("aggregator"), **tables)

    def agent(self, name: str) -> Running:
        return self.federation.agent(name, mqtt=self._mqtt(name))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[..., Guarded]]:
    made: list[Guarded] = []

    def make(broker: GuardedMosquitto, protocol: str = "5") -> Guarded:
        made.append(Guarded(tmp_path, broker, protocol))
        return made[-1]

    yield make
    for one in made:
        one.federation.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_federation_trains_behind_the_guard_and_nothing_of_it_is_denied(guarded, protocol):
    with GuardedMosquitto() as broker:
        fleet = guarded(broker, protocol)
        aggregator = fleet.aggregator(rounds=ROUNDS | {"rounds": 20, "min_reports": 2})
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        assert aggregator.join(60.0) and aggregator.error is None
        assert aggregator.host.machine.version == 20
        fleet.federation.close()
        assert re.findall("guard: .*denied.*", broker.log) == []


def test_devices_beyond_their_budgets_come_back(guarded):
    """As after a mistake in mosquitto.conf: rounds are slower, and none is lost for good."""
    tight = {"messages_per_s": "10", "messages_at_once": "20", "statuses_per_s": "2", "statuses_at_once": "10"}
    with GuardedMosquitto(options={f"plugin_opt_{key}": value for key, value in tight.items()}) as broker:
        fleet = guarded(broker)
        fleet.federation._mqtt["reconnect_cap_s"] = 5.0
        aggregator = fleet.aggregator(rounds=ROUNDS | {"min_reports": 2})
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        eventually(lambda: "guard: dev-a: denied" in broker.log, 20.0)
        version = aggregator.host.machine.version
        eventually(lambda: aggregator.host.machine.version >= version + 3, 60.0)


def test_a_revoked_device_is_out_and_rounds_go_on(guarded):
    with GuardedMosquitto() as broker:
        fleet = guarded(broker)
        aggregator = fleet.aggregator(rounds=ROUNDS)
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        machine = aggregator.host.machine
        eventually(lambda: machine.version >= 3, 20.0)
        broker.write(revoked=("dev-b",))
        eventually(lambda: "guard: dev-b: denied" in broker.log, 10.0)
        version = machine.version
        eventually(lambda: machine.version >= version + 3, 30.0)
        assert "guard: dev-a" not in broker.log


def test_what_was_retained_before_the_guard_is_cleared_by_the_aggregator(guarded):
    with GuardedMosquitto(guard=False) as broker:
        junk = [f"{broker.base}/d/dev-a/u/{n}/0" for n in range(60)]
        with broker.client("dev-a") as flood:
            for topic in junk:
                flood.publish(topic, b"junk", retain=True)
        broker.stop()
        broker.write(guard=True)
        broker.start()
        with broker.client("aggregator") as reader:
            reader.subscribe(f"{broker.base}/#")
            eventually(lambda: len(reader.messages) >= 60)
        fleet = guarded(broker)
        aggregator = fleet.aggregator(rounds=ROUNDS)
        fleet.agent("dev-a")
        eventually(lambda: aggregator.host.machine.version >= 2, 20.0)
        fleet.federation.close()
        with broker.client("aggregator") as reader:
            reader.subscribe(f"{broker.base}/#")
            eventually(lambda: f"{broker.base}/d/dev-a/status" in [topic for topic, _, _ in reader.messages])
            assert not {topic for topic, _, _ in reader.messages} & set(junk)


def test_a_broker_that_was_filled_is_back_after_what_the_readme_says(guarded):
    """Without the guard; its steps, `stop`, `mv` of the database, `start`, with the new files."""
    chapter = (ROOT / "broker/README.md").read_text().split("## A broker that is full")[1].split("\n## ")[0]
    assert re.findall(r"^(systemctl \w+|mv)", chapter, re.MULTILINE) == ["systemctl stop", "mv", "systemctl start"]
    with GuardedMosquitto(guard=False, options={"memory_limit": "30000000"}) as broker:
        fleet = guarded(broker)
        aggregator = fleet.aggregator(rounds=ROUNDS)
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        machine = aggregator.host.machine
        eventually(lambda: machine.version >= 2, 20.0)
        for attempt in range(
            6
        ):  # The aggregator clears what is retained meanwhile: a busy machine may need more floods.
            flood = broker.client("dev-x")
            for n in range(2000):
                flood.send(f"{broker.base}/d/dev-x/u/{attempt * 2000 + n}/0", bytes(20000), retain=True)
            assert flood.left.wait(20.0), "out of memory"
            broker.stop()
            broker._options = {"memory_limit": "10000000"}
            broker.write()
            if filled := broker.refuses_to_start():
                break
            broker.stop()
            broker._options = {"memory_limit": "30000000"}
            broker.write()
            broker.start()
        assert filled
        (broker.files / "mosquitto.db").rename(broker.files / "mosquitto.db.full")
        broker.write(guard=True)
        broker.start()
        version = machine.version
        eventually(lambda: machine.version >= version + 3, 30.0)
        assert aggregator.error is None
        fleet.agent("dev-c")
        eventually(lambda: "dev-c" in machine.presence.statuses, 10.0)
