"""What is taken off the MQTT broker, and that nothing stays there for ever: a model's parts are retained."""

from __future__ import annotations

import pytest
from machines import TOPICS, feed, make_coordinator, make_manifest, of, report, status

from edgefl.protocol.machine import Connected, Disconnected, Publish, Sent
from edgefl.sweeper import Sweeper

CLEARS = [Publish(f"topic/{i}", b"", retain=True) for i in range(3)]


def topics(actions):
    return [action.topic for action in actions]


def test_a_clear_is_repeated_at_each_connection_until_it_is_acknowledged():
    sweeper = Sweeper()
    (token,) = {a.token for a in sweeper.add(CLEARS)} - {None}
    sweeper.on_sent(token, False)
    again = sweeper.again()
    assert topics(again) == topics(CLEARS)
    sweeper.on_sent(token, True)  # the token of an earlier connection
    assert topics(sweeper.again()) == topics(CLEARS)
    sweeper.on_sent(sweeper.again()[-1].token, True)
    assert sweeper.again() == []


def test_what_was_added_last_speaks_for_all_before():
    sweeper = Sweeper()
    first, second = sweeper.add(CLEARS[:2])[-1], sweeper.add(CLEARS[2:])[-1]
    sweeper.on_sent(first.token, True)
    assert topics(sweeper.again()) == topics(CLEARS)
    sweeper.on_sent(sweeper.again()[-1].token + second.token, True)
    assert topics(sweeper.again()) == topics(CLEARS)


class Retained(dict):
    """An MQTT broker's retained messages."""

    def take(self, actions):
        for message in of(actions, Publish):
            if message.retain and message.payload:
                self[message.topic] = message.payload
            elif message.retain:
                self.pop(message.topic, None)

    @property
    def model(self):
        return {topic for topic in self if topic.startswith(f"{TOPICS.base}/model/")}


@pytest.mark.parametrize("downlink", ["raw32", "ecq"])
@pytest.mark.parametrize("fault", ["killed", "cut"])
def test_a_fault_between_the_commit_and_the_clearing_leaves_nothing_behind(fault, downlink):
    """Without the second connection's sweep the versions' parts would stay for ever."""
    manifest, broker = make_manifest(downlink=downlink), Retained()
    coordinator = make_coordinator(manifest=manifest, min_reports=1)
    broker.take(feed(coordinator, status("a"), Connected()))
    for _ in range(12):
        out = report(coordinator, "a", round=coordinator.round, version=coordinator.version)
        broker.take([a for a in out if not (isinstance(a, Publish) and a.retain and not a.payload)])
    left = broker.model
    if fault == "killed":
        start = {"round": 13, "version": 12, "attempt": 2}
        coordinator = make_coordinator(manifest=manifest, min_reports=1, params=coordinator.params, start=start)
        feed(coordinator, status("a"))
    else:
        feed(coordinator, Disconnected())
    broker.take(feed(coordinator, Connected()))
    fresh = Retained()
    fresh.take(coordinator.announcer.everything())
    assert broker.model == fresh.model < left


def test_what_the_broker_has_acknowledged_is_not_swept_again():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    sweep = [p for p in of(feed(coordinator, Connected()), Publish) if p.retain and not p.payload]
    assert {p.topic for p in sweep} == {TOPICS.model(v, part) for v in range(6, 30) for part in range(16)}
    feed(coordinator, Sent(sweep[-1].token, True), Disconnected())
    assert not [p for p in of(feed(coordinator, Connected()), Publish) if not p.payload]
