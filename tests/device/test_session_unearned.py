"""DeviceSession that a round names as unearned: it finishes what it has begun, and reports it however late it is."""

from __future__ import annotations

import pytest
from machines import (
    BLOB,
    MANIFEST,
    PARAMS,
    STATUS,
    TOPICS,
    feed,
    give,
    make_round,
    make_session,
    model_parts,
    of,
    received,
    reporting,
    serve,
    training,
    updates,
)

from edgefl.device.events import CancelTraining, DropUpdate, Failed, Outbox, StartTraining, Trained
from edgefl.device.report.update_report import UpdateReport
from edgefl.machine import Connected, Publish, Sent, Tick
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.protocol.round import UNEARNED_ROUNDS
from edgefl.protocol.update_header import UpdateHeader


def later(round=2, version=1, unearned=("a",), **changes):
    return make_round(round, version, **({"params": PARAMS + 1, "unearned": list(unearned)} | changes))


def refused(round=1):
    return received(TOPICS.inbox("a"), Receipt(round, 1, "rejected", "it came too late to count"))


def sent(session, out):
    """All that is to be sent is acknowledged."""
    while out:
        out = [a for p in updates(out) for a in feed(session, Sent(p.token, True))]


def test_a_named_device_finishes_its_training_reports_it_and_goes_on():
    session, job = training()
    for number in (2, 3, 1 + UNEARNED_ROUNDS):
        assert not of(give(session, later(number, number - 1)), CancelTraining)
    out = feed(session, Trained(job, BLOB))
    assert {p.topic.rsplit("/", 1)[0] for p in updates(out)} == {TOPICS.update("a", 1, 0)[:-2]}
    out = feed(session, refused())
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    (start,) = of(serve(session, out, model_parts(UNEARNED_ROUNDS, PARAMS + 1)), StartTraining)
    assert start.job.round.round == 1 + UNEARNED_ROUNDS


@pytest.mark.parametrize(
    "round", [later(unearned=["b"]), later(2 + UNEARNED_ROUNDS, 1 + UNEARNED_ROUNDS), later(state="done")]
)
def test_what_would_earn_nothing_is_stopped_and_dropped(round):
    session, _ = training()
    assert of(give(session, round), CancelTraining)
    session, _ = reporting()
    assert of(give(session, round), DropUpdate) == [DropUpdate(applied=False)]


def test_a_named_device_finishes_a_round_that_only_evaluated():
    session, job = training(round=make_round(mode="evaluate"))
    assert not of(give(session, later()), CancelTraining)
    scores = UpdateHeader(0, 0, 0.0, 0, 9, 5, 0.5, 0.5).to_bytes()
    assert updates(feed(session, Trained(job, scores)))
    counted = received(TOPICS.inbox("a"), Receipt(1, 1, "counted", folded=1))
    assert of(feed(session, counted), DropUpdate) == [DropUpdate(applied=False)], "an evaluation goes into no model"


def test_an_update_with_a_receipt_is_not_sent_again():
    session, out = reporting()
    sent(session, out)
    feed(session, received(TOPICS.inbox("a"), Receipt(1, 1, "counted")))
    out = give(session, later())
    assert of(out, DropUpdate) == [DropUpdate(applied=True)] and not updates(out)


def test_a_named_device_reports_also_while_no_round_is_open():
    session, job = training()
    assert not of(give(session, later(state="waiting")), CancelTraining)
    out = feed(session, Trained(job, BLOB))
    assert updates(out)
    sent(session, out)
    assert isinstance(session.work, UpdateReport)
    give(session, later(state="waiting", unearned=["b"]))
    assert session.work is None


def test_a_device_that_is_told_that_it_is_late_before_it_knows_is_in_no_trouble_and_begins_nothing_again():
    """Its round is over, and the next one has not been announced."""
    session, out = reporting()
    sent(session, out)
    told = received(TOPICS.inbox("a"), Receipt(1, 1, "rejected", "it came too late to count", folded=2))
    out = feed(session, told, now=5.0)
    assert of(out, DropUpdate) == [DropUpdate(applied=False)] and not of(out, StartTraining)
    assert session.status.trouble is None and not of(give(session, make_round(), now=6.0), StartTraining)
    (start,) = of(serve(session, give(session, later(), now=60.0), model_parts(1, PARAMS + 1)), StartTraining)
    assert start.job.round.round == 2


def test_a_restarted_device_reports_its_late_update():
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, BLOB))
    out = feed(session, Connected()) + give(session, MANIFEST) + give(session, later(50, 49))
    assert updates(out) and not of(out, DropUpdate)


def test_each_round_that_names_it_hurries_a_report_that_was_in_vain():
    """It may have been sent while no round was open, or there was no room. Patience alone would grow to ten minutes."""
    session, out = reporting()
    give(session, later(), now=0.0)
    sent(session, out)
    for _ in range(6):
        sent(session, feed(session, Tick(), now=session.wake_at))
    now = session.wake_at - 300.0
    out = give(session, later(3, 2), now=now)
    assert [p.topic for p in updates(out)] == [TOPICS.update("a", 1, 0)]
    assert session.wake_at <= now + 30.0
    assert isinstance(session.work, UpdateReport)


def test_a_request_for_its_first_part_is_answered():
    session, out = reporting()
    give(session, later(), now=0.0)
    sent(session, out)
    asked = feed(session, received(TOPICS.inbox("a"), Missing(1, [0])), now=1.0)
    assert [p.topic for p in updates(asked)] == [TOPICS.update("a", 1, 0)]


# A round that lasts several deadlines


def test_a_training_that_failed_is_tried_again_after_a_deadline_if_the_round_is_still_open():
    session, job = training()
    out = feed(session, Failed(job, "no data"), now=5.0)
    assert not of(out, StartTraining) and session.wake_at == 65.0
    assert not of(give(session, make_round(), now=30.0), StartTraining), "the round is announced again"
    out = feed(session, Tick(), now=65.0)
    (start,) = of(out, StartTraining)
    assert start.job.round.round == 1
    assert of(out, Publish, STATUS)


def test_an_update_that_was_refused_is_not_made_again():
    session, out = reporting()
    sent(session, out)
    feed(session, received(TOPICS.inbox("a"), Receipt(1, 1, "rejected", "absurd")), now=5.0)
    out = feed(session, Tick(), now=session.wake_at)
    assert of(out, Publish, STATUS) and not of(out, StartTraining)
