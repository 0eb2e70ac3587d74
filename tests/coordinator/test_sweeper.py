"""What somebody retained below our own topics is cleared, at a bounded rate, and only while the federation is ours."""

from __future__ import annotations

import pytest
from machines import HASH, TOPICS, commit_of, feed, make_coordinator, of, open_round, status, update_parts

from edgefl.coordinator.model.sweeper import AT_ONCE, MOST
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Sent, Subscribe


def retained(topic: str, payload: bytes = b"junk") -> Received:
    return Received(topic, payload, True)


def clears(actions) -> list[str]:
    return [a.topic for a in of(actions, Publish) if a.retain and not a.payload and "/d/" in a.topic]


def token_of(actions) -> int:
    (token,) = [a.token for a in of(actions, Publish) if clears([a]) and a.token is not None]
    return token


JUNK = [
    TOPICS.update("a", 3, 0), f"{TOPICS.base}/d/a/u/x/0", f"{TOPICS.base}/d/a/u/1/99999999999",
    f"{TOPICS.base}/d/.b/u/1/0", f"{TOPICS.base}/d/.b/status",
]  # fmt: skip


@pytest.mark.parametrize("topic", JUNK)
def test_what_is_retained_where_nothing_should_be_is_cleared(topic):
    coordinator = open_round("a")
    out = feed(coordinator, retained(topic), retained(topic))
    assert clears(out) == [topic]
    assert len([n for n in of(out, Note) if "is retained on" in n.text]) == 1
    assert feed(coordinator, Received(topic, b"")) == [], "our own clear comes back"
    assert feed(coordinator, Sent(token_of(out), True)) == []


def test_what_should_be_retained_stays():
    coordinator = open_round("a")
    present = status("a")
    out = feed(coordinator, retained(present.topic, present.payload), retained(TOPICS.status("a"), b"rubbish"))
    assert clears(out) == []


def test_nothing_is_cleared_before_the_federation_is_ours():
    coordinator = make_coordinator()
    claims = coordinator.step(Connected(), 0.0)
    assert clears(coordinator.step(retained(JUNK[0]), 0.0)) == []
    (question,) = of(claims, Publish, TOPICS.aggregator)
    assert clears(coordinator.step(Received(TOPICS.aggregator, question.payload), 0.0)) == [JUNK[0]]


def test_a_retained_part_counts_all_the_same():
    """A broker may mark what it forwards as retained."""
    coordinator = open_round("a")
    parts = [Received(part.topic, part.payload, True) for part in update_parts("a", federation=HASH)]
    out = feed(coordinator, *parts)
    assert commit_of(out).record.reported == 1
    assert clears(out)[0] == parts[0].topic


def test_i13_a_flood_is_cleared_a_batch_at_a_time_and_only_so_many_topics_are_remembered():
    flood = {TOPICS.update("a", 1, part): b"x" for part in range(2 * MOST + 10)}
    coordinator, batches, asked = open_round("a"), 0, 0
    out = feed(coordinator, *map(retained, flood))
    while clears(out) or of(out, Subscribe):
        if of(out, Subscribe):
            assert of(out, Subscribe) == [Subscribe((TOPICS.any_update,))]
            asked += 1
            out = feed(coordinator, *map(retained, list(flood)))
            continue
        assert len(clears(out)) <= AT_ONCE
        assert len(coordinator.sweeper._due) <= MOST
        batches += 1
        for topic in clears(out):
            flood.pop(topic)
        out = feed(coordinator, Sent(token_of(out), True))
    assert flood == {} and asked == 2 and batches <= 5 + 2 * MOST // AT_ONCE


def test_a_clear_that_was_refused_or_lost_is_repeated_on_the_next_connection():
    coordinator = open_round("a")
    out = feed(coordinator, retained(JUNK[0]))
    assert feed(coordinator, Sent(token_of(out), False)) == []
    assert clears(feed(coordinator, retained(JUNK[1]))) == [], "the broker would refuse it too"
    out = feed(coordinator, Disconnected(), Connected())
    assert clears(out) == [JUNK[0], JUNK[1]]
    out = feed(coordinator, Disconnected(), Connected())
    assert clears(out) == [JUNK[0], JUNK[1]]
    feed(coordinator, Sent(token_of(out), True))
    assert clears(feed(coordinator, Disconnected(), Connected())) == []
