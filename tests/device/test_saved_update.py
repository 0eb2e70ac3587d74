"""What becomes of an update and the residual that it leaves: only one that is in the model hands its residual on."""

from __future__ import annotations

import pytest
from kept import residual, slot
from machines import (
    BLOB,
    MANIFEST,
    PARAMS,
    feed,
    fetching,
    give,
    make_manifest,
    make_round,
    of,
    receipt,
    reporting,
    serve,
    training,
    updates,
)

from edgefl.device.events import DropUpdate, MarkCounted, Outbox, SaveUpdate, StartTraining, Trained
from edgefl.machine import Connected, Disconnected

FEEDBACK = make_manifest(error_feedback=True)
LEFT = b"what the codec took"


def counted(**options):
    """A session whose update of round 1, on version 0, is counted."""
    session, _ = reporting(manifest=FEEDBACK, residual=LEFT, **options)
    return session, feed(session, receipt())


def next_round(session, round=2, version=1, **changes):
    return give(session, make_round(round, version, manifest=FEEDBACK, params=PARAMS + version, **changes))


def test_update_and_residual_are_saved_in_one_action_before_anything_is_sent():
    session, job = training(manifest=FEEDBACK)
    out = feed(session, Trained(job, BLOB, {"residual": LEFT, "control": b"c"}))
    kept = {"residual": slot(LEFT, 1, FEEDBACK.id), "control": slot(b"c", 1, FEEDBACK.run)}
    assert out[0] == SaveUpdate(Outbox(FEEDBACK.id, 1, 0, BLOB, attempt=1), kept)
    assert updates(out)


def test_a_counted_update_is_applied_once_the_model_has_moved():
    session, out = counted()
    assert of(out, MarkCounted) == [MarkCounted(1)]
    assert of(next_round(session), DropUpdate) == [DropUpdate(applied=True)]


def test_the_end_of_all_rounds_settles_too():
    session, _ = counted()
    assert of(next_round(session, state="done"), DropUpdate) == [DropUpdate(applied=True)]


def test_duplicated_receipts_say_nothing_new():
    session, _ = counted()
    assert of(feed(session, receipt(), receipt()), MarkCounted) == []
    next_round(session)
    assert of(feed(session, receipt()), MarkCounted) == []


def test_without_a_receipt_it_is_not_applied():
    session, _ = reporting(manifest=FEEDBACK, residual=LEFT)
    assert of(next_round(session), DropUpdate) == [DropUpdate(applied=False)]


def test_an_abandoned_round_leaves_the_model_and_so_the_former_residual():
    session, _ = counted()
    assert of(next_round(session, 2, 0), DropUpdate) == [DropUpdate(applied=False)]


def test_rejected_is_not_applied():
    session, _ = reporting(manifest=FEEDBACK, residual=LEFT)
    out = feed(session, receipt("rejected"))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert of(next_round(session), DropUpdate) == []


def test_an_aggregator_that_forgot_has_to_count_again():
    session, _ = counted()
    out = give(session, make_round(attempt=2, manifest=FEEDBACK))
    assert of(out, MarkCounted) == [MarkCounted(0)]
    assert updates(out)
    assert of(next_round(session, attempt=2), DropUpdate) == [DropUpdate(applied=False)]
    session, _ = counted()
    give(session, make_round(attempt=2, manifest=FEEDBACK))
    assert of(feed(session, receipt(attempt=2)), MarkCounted) == [MarkCounted(2)]
    assert of(next_round(session, attempt=2), DropUpdate) == [DropUpdate(applied=True)]


def test_a_receipt_of_the_attempt_before_is_no_receipt():
    session, _ = reporting(manifest=FEEDBACK, residual=LEFT)
    give(session, make_round(attempt=2, manifest=FEEDBACK))
    assert of(feed(session, receipt(attempt=1)), MarkCounted) == []
    assert of(next_round(session, attempt=2), DropUpdate) == [DropUpdate(applied=False)]


def test_another_run_has_no_use_for_it_and_replaces_it():
    other = make_manifest(error_feedback=True, run="1" * 16)
    session, _ = counted()
    give(session, other)
    out = serve(session, give(session, make_round(1, 0, manifest=other)))
    assert not of(out, DropUpdate)
    (start,) = of(out, StartTraining)
    expected = SaveUpdate(Outbox(other.id, 1, 0, BLOB, attempt=1), residual(LEFT, 1, other.id))
    assert expected in feed(session, Trained(start.job, BLOB, {"residual": LEFT}))


def test_i06_an_update_outlives_the_announcement_of_an_earlier_run():
    """Found by simulation: a broker came back with what it had retained before the run began."""
    other = make_manifest(error_feedback=True, run="1" * 16)
    session, _ = counted()
    give(session, other)
    give(session, make_round(9, 9, manifest=other))
    out = give(session, make_round(manifest=FEEDBACK)) + give(session, FEEDBACK)
    assert updates(out)
    assert not of(out, DropUpdate)


def test_i06_a_restarted_device_drops_no_update_for_a_round_before_its_own():
    """Found by simulation: its session, or a broker's old snapshot, still had that round's announcement."""
    outbox = Outbox(FEEDBACK.id, 2, 1, BLOB, attempt=1)
    session, out = fetching(manifest=FEEDBACK, outbox=outbox, round=make_round(1, 0, manifest=FEEDBACK))
    assert (session.dropped, session.round, of(out, DropUpdate)) == (1, None, [])
    assert of(give(session, make_round(2, 0, manifest=FEEDBACK)), DropUpdate) == []  # before its model was damaged
    assert updates(give(session, make_round(2, 1, manifest=FEEDBACK)))


def test_i06_a_restarted_aggregator_that_names_a_later_round_and_waits_has_no_update_dropped():
    """Seed 2003169: it passed over rounds in which those that were there rested. Its next start may open the first."""
    outbox = Outbox(FEEDBACK.id, 2, 0, BLOB, attempt=1)
    waiting = make_round(5, 0, attempt=2, state="waiting", manifest=FEEDBACK)
    session, out = fetching(manifest=FEEDBACK, outbox=outbox, round=waiting)
    assert not of(out, DropUpdate)
    assert updates(give(session, make_round(2, 0, attempt=3, manifest=FEEDBACK)))
    session, out = fetching(manifest=FEEDBACK, outbox=outbox, round=waiting)
    assert of(give(session, make_round(5, 0, attempt=2, manifest=FEEDBACK)), DropUpdate)


def test_i07_an_aggregator_that_went_back_to_a_backup_is_followed():
    """Of its state, with --take-over: its attempt is higher, its rounds are earlier."""
    outbox = Outbox(FEEDBACK.id, 50, 49, BLOB, attempt=3)
    session, out = fetching(manifest=FEEDBACK, outbox=outbox, round=make_round(10, 9, attempt=4, manifest=FEEDBACK))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert (session.round.round, session.dropped) == (10, 0)


@pytest.mark.parametrize(("saved", "applied"), [(1, True), (0, False)])
def test_a_restarted_device_knows_what_was_counted(saved, applied):
    now = make_round(2, 1, manifest=FEEDBACK)
    out = fetching(manifest=FEEDBACK, outbox=Outbox(FEEDBACK.id, 1, 0, BLOB, saved), round=now)[1]
    assert of(out, DropUpdate) == [DropUpdate(applied)]
    same = fetching(manifest=FEEDBACK, outbox=Outbox(FEEDBACK.id, 1, 0, BLOB, saved))[1]
    assert updates(same)
    assert not of(same, DropUpdate)


def test_a_restart_in_a_round_that_was_reopened_meanwhile_takes_the_receipt_back():
    outbox = Outbox(FEEDBACK.id, 1, 0, BLOB, counted=1)
    _, out = fetching(manifest=FEEDBACK, outbox=outbox, round=make_round(attempt=2, manifest=FEEDBACK))
    assert of(out, MarkCounted) == [MarkCounted(0)]


def test_a_round_that_came_back_with_another_model_has_not_applied_it():
    """An aggregator that found its newest model damaged gives the one before a version of its own."""
    session, _ = counted()
    assert of(next_round(session, 1, 1, attempt=2), DropUpdate) == [DropUpdate(applied=False)]


def test_a_device_that_missed_rounds_believes_its_receipt():
    session, _ = counted()
    feed(session, Disconnected(), Connected(boot=8))
    assert of(next_round(session, 9, 3), DropUpdate) == [DropUpdate(applied=True)]


def test_without_feedback_a_receipt_costs_no_write():
    session, _ = reporting()
    assert of(feed(session, receipt()), MarkCounted) == []
    assert MANIFEST.error_feedback is False
