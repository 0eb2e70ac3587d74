"""What a federation leaves on a real mosquitto: no more topics and no more memory, however many rounds there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from brokers import Mosquitto, eventually, resident_kb
from daemons import Federation
from mqtt_fixtures import TestLink

from edgefl.coordinator.model.downlink import SLOTS
from edgefl.transports.mqtt import Message

ROUNDS = {"deadline_s": 10.0, "min_reports": 2, "expect": 2}


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    """mosquitto without persistence, which this test alone uses."""
    with Mosquitto() as broker:
        yield broker


def retained(link: Callable[..., TestLink], broker: Mosquitto) -> set[str]:
    """The topics on which a message is retained."""
    reader = link(broker.url, "reader", session_expiry_s=0)  # else the broker would queue for it
    reader.up()
    reader.subscribe(["edgefl/#"])
    topics = {message.topic for message in reader.inbox.quiet(Message) if message.retain}
    reader.stop(0.0)
    return topics


def test_i13_hundreds_of_rounds_leave_few_topics_and_no_memory_on_mosquitto(
    broker: Mosquitto, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    """A topic that was ever retained takes 0.9 kB there: one for each version would show, and one for each update."""
    fleet = federation(broker.url)
    aggregator = fleet.aggregator(rounds=ROUNDS | {"rounds": 200}, downlink={"name": "ecq"})
    fleet.agent("dev-a")
    fleet.agent("dev-b")
    eventually(lambda: aggregator.host.machine.version >= 60, 60.0)
    early, early_kb = retained(link, broker), resident_kb(broker.pid)
    assert aggregator.join(120.0)
    topics, late_kb = retained(link, broker), resident_kb(broker.pid)
    assert aggregator.host.machine.version == 200
    assert late_kb <= early_kb + 100  # 140 versions would take 126 of this kind, and 280 updates 252
    assert max(len(early), len(topics)) <= 5 + SLOTS  # manifest, round, aggregator, two statuses; models of one part
    assert not [topic for topic in topics if "/u/" in topic]


def test_junk_that_somebody_retained_is_cleared_from_mosquitto(
    broker: Mosquitto, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    fleet = federation(broker.url)
    base = f"edgefl/2/{fleet.name}/d"
    vandal = link(broker.url, "vandal")
    vandal.up()
    junk = {f"{base}/dev-a/u/{n}/0" for n in range(1200)} | {f"{base}/.x/status"}
    for topic in sorted(junk):
        vandal.said(topic, b"junk", retain=True)
    fleet.aggregator(rounds=ROUNDS)
    fleet.agent("dev-a")
    fleet.agent("dev-b")
    eventually(lambda: not retained(link, broker) & junk, 30.0)
    assert {f"{base}/dev-a/status", f"{base}/dev-b/status"} <= retained(link, broker)
