"""DeviceSession where late updates count: a device finishes what it has begun, reports it, and goes on."""

from __future__ import annotations

import pytest
from machines import (
    BLOB,
    MANIFEST,
    PARAMS,
    TOPICS,
    blob_of,
    feed,
    fetching,
    give,
    make_round,
    make_session,
    model_parts,
    of,
    receipt,
    received,
    reporting,
    serve,
    training,
    updates,
)

from edgefl.device.events import CancelTraining, DropUpdate, Failed, Outbox, Pause, SaveUpdate, StartTraining, Trained
from edgefl.device.model.fetch import ModelFetch
from edgefl.machine import Connected, Sent
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.inbox import Receipt

NEXT = {"params": PARAMS + 1, "late_rounds": 2}


def later(round=2, version=1, **changes):
    return make_round(round, version, **(NEXT | changes))


def folded(round=1, into=2, attempt=1):
    return received(TOPICS.inbox("a"), Receipt(round, attempt, "counted", folded=into))


def late_training():
    """A session that still trains round 1 while round 2 is open."""
    session, job = training()
    assert not of(give(session, later()), CancelTraining)
    return session, job


def late_reporting():
    """A session that has reported to round 1 while round 2 is open, and what it sent."""
    session, job = late_training()
    out = feed(session, Trained(job, BLOB))
    for _ in range(3):
        out += feed(session, *(Sent(p.token, True) for p in updates(out)))
    return session, out


def test_a_training_that_its_round_did_not_wait_for_is_finished_and_reported():
    _, out = late_reporting()
    assert of(out, SaveUpdate) == [SaveUpdate(Outbox(MANIFEST.id, 1, 0, BLOB, attempt=1))]
    assert blob_of(updates(out)) == BLOB
    assert updates(out)[0].topic == TOPICS.update("a", 1, 0)
    envelope = Envelope.from_bytes(updates(out)[0].payload)
    assert (envelope.round, envelope.version) == (1, 0)


def test_i06_a_late_update_is_kept_until_its_receipt_and_then_the_open_round_begins():
    session, _ = late_reporting()
    out = feed(session, folded(), now=1.0)
    assert of(out, DropUpdate) == [DropUpdate(applied=True)]
    (start,) = of(serve(session, out, model_parts(1, PARAMS + 1)), StartTraining)
    assert (start.job.round.round, start.job.params) == (2, (PARAMS + 1).tobytes())


@pytest.mark.parametrize("round", [later(late_rounds=0), later(4, 3), later(2, 1, state="done")])
def test_what_would_not_count_any_more_is_stopped_and_dropped(round):
    session, _ = training()
    assert of(give(session, round), CancelTraining)
    session, _ = reporting()
    assert of(give(session, round), DropUpdate) == [DropUpdate(applied=False)]


def test_a_report_without_receipt_goes_on_in_the_next_round():
    session, out = reporting()
    for _ in range(3):
        out += feed(session, *(Sent(p.token, True) for p in updates(out)))
    out = give(session, later())
    assert not of(out, DropUpdate) and not updates(out)  # the receipt may be on its way
    (probe,) = updates(give(session, later()))  # the broker or the aggregator has lost something
    assert probe.topic.startswith(f"{TOPICS.base}/d/a/u/1/")
    give(session, later(3, 2))
    assert session.work.number == 1
    assert isinstance(folded_into(session, 3).work, ModelFetch)


def folded_into(session, round):
    feed(session, folded(into=round))
    return session


def test_i11_a_restarted_device_reports_its_late_update_and_does_not_train_first():
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, BLOB))
    out = feed(session, Connected()) + give(session, MANIFEST) + give(session, later())
    assert updates(out) and not of(out, DropUpdate)
    assert of(serve(session, feed(session, folded()), model_parts(1, PARAMS + 1)), StartTraining)


def test_an_update_that_is_in_the_model_is_not_sent_again():
    session, _ = reporting()
    feed(session, receipt())
    out = give(session, later())
    assert of(out, DropUpdate) == [DropUpdate(applied=True)]
    assert not updates(out)


def test_an_update_whose_round_was_abandoned_is_sent_again():
    session, _ = reporting()
    feed(session, receipt())
    out = give(session, later(2, 0, params=PARAMS))
    assert not of(out, DropUpdate)
    assert updates(out)[0].topic == TOPICS.update("a", 1, 0)
    assert session.wake_at is not None
    assert of(feed(session, folded()), StartTraining)


def test_i06_a_receipt_from_before_its_round_was_abandoned_settles_nothing():
    """Found by simulation: it came after the next round, and was taken for the late update's."""
    session, out = reporting()
    for _ in range(3):
        out += feed(session, *(Sent(p.token, True) for p in updates(out)))
    give(session, later(2, 0, params=PARAMS))
    out = feed(session, receipt())
    assert not of(out, DropUpdate)
    assert updates(out)  # asked again: in the model, or not?
    assert of(feed(session, folded(into=1)), DropUpdate) == [DropUpdate(applied=True)]


def test_i06_a_receipt_of_an_aggregator_that_restarted_settles_nothing():
    """Found by simulation: the round was reopened and committed while the device was away."""
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, BLOB, counted=1))
    out = feed(session, Connected()) + give(session, MANIFEST) + give(session, later(attempt=2))
    assert updates(out) and not of(out, DropUpdate)


def test_an_aggregator_that_starts_again_is_sent_the_late_update_whole():
    session, _ = late_reporting()
    out = give(session, later(attempt=2))
    assert updates(out)[0].topic == TOPICS.update("a", 1, 0)
    assert not of(feed(session, folded(attempt=1)), DropUpdate)  # an aggregator's that is no more
    assert of(feed(session, folded(attempt=2)), DropUpdate)


def test_a_device_that_is_not_asked_reports_its_late_update_and_rests():
    session, _ = reporting()
    out = give(session, later(cohort=["b"]))
    assert not of(out, DropUpdate)
    out = feed(session, folded())
    assert of(out, DropUpdate) and session.work is None


def test_a_rejected_late_update_is_dropped():
    session, _ = late_reporting()
    out = feed(session, receipt("rejected", reason="NaN"))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert of(serve(session, give(session, later(3, 2)), model_parts(2, PARAMS + 1)), StartTraining)


def test_a_late_training_that_fails_makes_way_for_the_open_round():
    session, job = late_training()
    out = feed(session, Failed(job, "no memory"))
    assert of(serve(session, out, model_parts(1, PARAMS + 1)), StartTraining)


def test_a_model_that_is_still_being_fetched_makes_way_for_the_newer_one():
    session, _ = fetching()
    (start,) = of(serve(session, give(session, later()), model_parts(1, PARAMS + 1)), StartTraining)
    assert start.job.round.round == 2


def test_a_paused_device_keeps_its_late_update():
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, BLOB))
    feed(session, Pause("on battery"), Connected())
    out = give(session, MANIFEST) + give(session, later())
    assert not of(out, DropUpdate) and not updates(out)
    assert updates(feed(session, Pause("")))


def test_a_late_update_that_is_refused_costs_the_device_no_round():
    """Its round was reopened while it was away, and asked others."""
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, BLOB, attempt=1))
    assert updates(feed(session, Connected()) + give(session, MANIFEST) + give(session, later(attempt=2)))
    out = feed(session, receipt("rejected", attempt=2, reason="not asked in round 1"))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert of(serve(session, out, model_parts(1, PARAMS + 1)), StartTraining)
