"""What is taken off the MQTT broker, and that nothing stays there for ever: a model's parts are retained."""

from __future__ import annotations

import pytest
from machines import TOPICS, feed, make_coordinator, make_manifest, of, report, status

from edgefl.coordinator.sweeper import AT_ONCE, Sweeper
from edgefl.machine import Connected, Disconnected, Publish, Sent, Stop
from edgefl.protocol.messages import RETAINED_LIMIT, Round, decode

CLEARS = [Publish(f"topic/{i}", b"", retain=True) for i in range(3)]


def topics(actions):
    return [action.topic for action in actions]


def token_of(actions):
    """That of the last one; the others have none."""
    assert not any(action.token for action in actions[:-1])
    return actions[-1].token


def test_a_clear_is_repeated_at_each_connection_until_it_is_acknowledged():
    sweeper = Sweeper()
    first = sweeper.add(CLEARS)
    assert sweeper.on_sent(token_of(first), False) == []
    assert topics(sweeper.again()) == topics(CLEARS)
    assert sweeper.on_sent(token_of(first), True) == []  # of an earlier connection
    again = sweeper.again()
    assert topics(again) == topics(CLEARS)
    assert sweeper.on_sent(token_of(again), True) == sweeper.again() == []


def test_a_few_are_handed_out_at_a_time_the_next_when_those_are_acknowledged():
    clears = [Publish(f"topic/{i}", b"", retain=True) for i in range(2 * AT_ONCE + 10)]
    sweeper = Sweeper()
    first = sweeper.add(clears[:-5])
    assert topics(first) == topics(clears[:AT_ONCE])
    assert sweeper.add(clears[-5:]) == []
    second = sweeper.on_sent(token_of(first), True)
    assert topics(second) == topics(clears[AT_ONCE : 2 * AT_ONCE])
    again = sweeper.again()  # what was acknowledged is not repeated
    assert topics(again) == topics(second)
    assert sweeper.on_sent(token_of(second), True) == []
    third = sweeper.on_sent(token_of(again), True)
    assert topics(third) == topics(clears[2 * AT_ONCE :])
    assert sweeper.on_sent(token_of(third), True) == []


def test_what_the_broker_has_refused_is_repeated_before_what_comes_next():
    sweeper = Sweeper()
    sweeper.on_sent(token_of(sweeper.add(CLEARS[:2])), False)
    assert topics(sweeper.add(CLEARS[2:])) == topics(CLEARS)


def clears_in(actions):
    return [p for p in of(actions, Publish) if p.retain and not p.payload]


def swept(coordinator, actions):
    """The broker acknowledges all: what is cleared."""
    found, more = [], clears_in(actions)
    while more:
        assert len(more) <= AT_ONCE
        found += more
        more = clears_in(feed(coordinator, Sent(token_of(more), True)))
    return [p.topic for p in found]


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
    out = feed(coordinator, Connected())
    broker.take(out)
    for topic in swept(coordinator, out):
        broker.pop(topic, None)
    fresh = Retained()
    fresh.take(coordinator.announcer.everything())
    assert broker.model == fresh.model < left


LEFT = [TOPICS.model(version, part) for version in range(6, 30) for part in range(16)]


def test_what_the_broker_has_acknowledged_is_not_swept_again():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    assert swept(coordinator, feed(coordinator, Connected())) == LEFT
    feed(coordinator, Disconnected())
    assert not clears_in(feed(coordinator, Connected()))


def test_a_sweep_goes_on_where_it_was_cut_off():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    first = clears_in(feed(coordinator, Connected()))
    second = clears_in(feed(coordinator, Sent(token_of(first), True)))
    feed(coordinator, Sent(token_of(second), False), Disconnected())
    assert swept(coordinator, feed(coordinator, Connected())) == LEFT[AT_ONCE:]


def test_receipts_and_rounds_do_not_wait_for_a_sweep():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    out = feed(coordinator, status("a"), Connected())
    out += report(coordinator, "a", round=31, version=30)
    published = of(out, Publish)
    rounds = [i for i, p in enumerate(published) if p.topic == TOPICS.round]
    assert decode(Round, published[rounds[-1]].payload, RETAINED_LIMIT).round == 32
    assert len(clears_in(published[: rounds[-1]])) <= AT_ONCE


@pytest.mark.parametrize("end", ["done", "stopped"])
def test_the_last_versions_parts_are_cleared_when_all_is_done_but_not_after_a_stop(end):
    """Nobody starts again after the end. After a stop the federation may be another aggregator's at any time, and the
    next start sweeps."""
    start = {"round": 31, "version": 30}
    coordinator = make_coordinator(min_reports=1, rounds=31 if end == "done" else None, start=start)
    out = feed(coordinator, status("a"), Connected())
    (first, *_), token = clears_in(out), token_of(clears_in(out))
    if end == "done":
        report(coordinator, "a", round=31, version=30)
        own = [TOPICS.model(30, part) for part in range(16)]
        assert [first.topic, *swept(coordinator, feed(coordinator, Sent(token, True)))][-16:] == own
    else:
        feed(coordinator, Stop())
        assert feed(coordinator, Sent(token, True)) == []
