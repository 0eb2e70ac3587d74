"""A device whose update counted, and whose receipt was lost: it asks, since what it has of its own depends on that."""

from __future__ import annotations

import pytest
from machines import (
    PARAMS,
    TOPICS,
    feed,
    give,
    make_coordinator,
    make_manifest,
    make_round,
    make_session,
    of,
    received,
    reporting,
    serve,
    status,
    update_parts,
    updates,
    word_to,
)  # fmt: skip

from edgefl.device.events import DropUpdate, MarkCounted, StartTraining
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Sent
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.update_header import UpdateHeader
from edgefl.strategies.local import LocalRule

OWN = make_manifest(local=LocalRule("ditto"), requires=["local"])
PLAIN = make_manifest()


def later(manifest=OWN, round=2, version=1, **changes):
    return make_round(round, version, params=PARAMS + 1, manifest=manifest, **changes)


def asking(manifest=OWN, state="open", **options):
    """A session that has reported to round 1, heard nothing, and now hears of round 2."""
    session, out = reporting(manifest=manifest, round=make_round(manifest=manifest), **options)
    acknowledge(session, out)
    return session, give(session, later(manifest, state=state))


def acknowledge(session, out):
    """The broker has what the session sent, and what it sends then, to the end."""
    while sent := updates(out):
        out = feed(session, *(Sent(part.token, True) for part in sent))


def told(outcome, attempt=1):
    return received(TOPICS.inbox("a"), Receipt(1, attempt, outcome, folded=1 if outcome == "counted" else 2))


@pytest.mark.parametrize(("outcome", "applied"), [("counted", True), ("rejected", False)])
def test_i11_a_device_without_a_receipt_asks_whether_its_update_counted(outcome, applied):
    session, out = asking(blob=bytes(UpdateHeader(5, 1, 0.5, 10, 100).to_bytes()) + bytes(4000))
    (first,) = updates(out)  # of 16 parts
    assert first.topic.endswith("/1/0")
    assert not of(out, DropUpdate)
    out = feed(session, told(outcome))
    (drop,) = of(out, DropUpdate)
    assert drop.applied is applied
    out = serve(session, out, parts=None)  # and it takes part in round 2
    assert session._part.work is not None


def test_i07_parts_that_are_on_their_way_are_not_sent_again_when_the_next_round_opens():
    session, sent = reporting(manifest=OWN, round=make_round(manifest=OWN))
    out = give(session, later())
    assert updates(sent)
    assert not updates(out)
    assert not of(out, DropUpdate)
    (drop,) = of(feed(session, told("counted")), DropUpdate)
    assert drop.applied


def many_parts():
    """A session that reports an update of 16 parts, of which a window is on its way."""
    blob = bytes(UpdateHeader(5, 1, 0.5, 10, 100).to_bytes()) + bytes(4000)
    return reporting(manifest=OWN, round=make_round(manifest=OWN), blob=blob)


def test_i07_where_the_first_part_is_all_that_is_of_use_no_part_follows_those_on_their_way():
    session, out = many_parts()
    sent = updates(out)
    assert len(sent) < 16
    out = give(session, later())
    out += feed(session, *(Sent(part.token, True) for part in sent))
    assert not updates(out)


@pytest.mark.parametrize("late_rounds", [0, 3])
def test_a_device_whose_first_part_arrived_before_its_round_closed_sends_it_next(late_rounds):
    """The aggregator answers no other part of an update that counted, or that no round can add."""
    session, out = many_parts()
    first, second, *_ = updates(out)
    feed(session, Sent(first.token, True))
    assert not updates(give(session, later(late_rounds=late_rounds)))  # the window is full
    (again,) = updates(feed(session, Sent(second.token, True)))
    assert again.topic.endswith("/1/0")


def test_an_update_that_leaves_a_residual_alone_is_dropped_at_once():
    _, out = asking(PLAIN)
    (drop,) = of(out, DropUpdate)
    assert not drop.applied


def test_with_a_receipt_no_device_asks():
    session, _ = reporting(manifest=OWN, round=make_round(manifest=OWN))
    assert of(feed(session, received(TOPICS.inbox("a"), Receipt(1, 1, "counted"))), MarkCounted)
    out = give(session, later())
    (drop,) = of(out, DropUpdate)
    assert drop.applied
    assert not updates(out)


@pytest.mark.parametrize("changes", [{"round": 3}, {"attempt": 2}])
def test_i11_a_receipt_of_a_round_that_may_have_been_abandoned_since_proves_nothing(changes):
    """It counted, and the device was away while its round was abandoned, or its aggregator killed, and another round
    made the next model."""
    session, _ = reporting(manifest=OWN, round=make_round(manifest=OWN))
    feed(session, received(TOPICS.inbox("a"), Receipt(1, 1, "counted")))
    out = give(session, later(**changes))
    assert updates(out)
    assert not of(out, DropUpdate)
    (drop,) = of(feed(session, told("rejected", **({} if "round" in changes else changes))), DropUpdate)
    assert not drop.applied


def test_a_device_that_was_killed_before_its_receipt_asks_when_it_is_back():
    session, _ = reporting(manifest=OWN, round=make_round(manifest=OWN))
    again = make_session(outbox=session._part._saved.outbox)
    feed(again, Connected(boot=8))
    give(again, OWN)
    out = give(again, later(version=3, round=5))
    assert updates(out)
    assert not of(out, StartTraining)
    (drop,) = of(feed(again, told("counted")), DropUpdate)
    assert drop.applied


def test_when_all_is_done_the_update_is_kept_for_a_run_that_goes_on():
    _, out = asking(state="done")
    assert not of(out, DropUpdate)
    assert not updates(out)


@pytest.mark.parametrize("round", [102, 500])
def test_after_a_hundred_rounds_nobody_knows(round):
    session, _ = reporting(manifest=OWN, round=make_round(manifest=OWN))
    (drop,) = of(give(session, later(round=round, version=round - 1)), DropUpdate)
    assert not drop.applied


# The aggregator's side


def closed(manifest=OWN):
    """A coordinator in round 2; a has counted in round 1, b has not reported."""
    coordinator = make_coordinator(manifest=manifest, min_reports=1, goal=1)
    feed(coordinator, *map(status, "ab"), Connected())
    feed(coordinator, *update_parts("a"))
    assert coordinator.round == 2
    return coordinator


@pytest.mark.parametrize(("device", "outcome"), [("a", "counted"), ("b", "rejected")])
def test_i06_the_aggregator_says_at_the_first_part_whether_an_update_counted(device, outcome):
    coordinator = closed()
    first, *rest = update_parts(device)
    assert word_to(feed(coordinator, *rest), device) is None
    word = word_to(feed(coordinator, first), device)
    assert (word.round, word.outcome, word.folded) == (1, outcome, 1 if device == "a" else 2)
    assert coordinator.tally.num_counted == 0  # nothing has counted again


def test_i06_it_knows_that_after_a_restart_from_its_records():
    record = RoundRecord(1, "committed", 1, 1, ["a"], 5, 0.5, 0, 0, 1.0, attempt=1)
    again = make_coordinator(
        manifest=OWN, min_reports=2, start={"round": 2, "version": 1, "attempt": 2, "recent": [record]}
    )
    feed(again, *map(status, "ab"), Connected())
    first, *_ = update_parts("a")
    assert word_to(feed(again, first), "a").outcome == "counted"


def test_where_devices_do_not_ask_a_late_part_has_no_answer():
    coordinator = closed(PLAIN)
    assert word_to(feed(coordinator, *update_parts("b")), "b") is None
