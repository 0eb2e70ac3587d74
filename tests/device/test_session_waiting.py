"""Between two rounds that are far apart: the device trains and sends nothing, and keeps what the next round accepts."""

from __future__ import annotations

import pytest
from machines import (
    BLOB,
    MANIFEST,
    feed,
    fetching,
    give,
    last,
    make_round,
    of,
    receipt,
    reporting,
    serve,
    training,
    updates,
)

from edgefl.device.events import CancelTraining, DropUpdate, Outbox, StartTraining, Trained
from edgefl.machine import Connected, Publish, Subscribe, Tick
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader

SCORES = UpdateHeader(0, 0, 0.0, 0, 9, 5, 0.5, 0.5).to_bytes()


def waiting(round=2, version=1, **changes):
    return make_round(round, version, state="waiting", **changes)


def ticks(session, until=90_000.0):
    """Everything that the session does on its own until then."""
    out = []
    while session.wake_at is not None and session.wake_at < until:
        out += feed(session, Tick(), now=session.wake_at)
    return out


def test_a_device_that_comes_while_no_round_is_open_does_nothing():
    session, out = fetching(round=waiting(1, 0))
    assert not of(out, StartTraining) and not [s for s in of(out, Subscribe) if "/model/" in s.topics[0]]
    assert ticks(session) == []
    out = give(session, make_round(1, 0))
    assert of(serve(session, out), StartTraining), "the round has opened"


def test_an_update_that_no_round_accepts_is_dropped_and_its_report_ends():
    session, out = reporting()
    assert updates(out)
    assert of(give(session, waiting()), DropUpdate) == [DropUpdate(applied=False)]
    assert updates(ticks(session)) == []


def test_an_update_that_the_next_round_accepts_waits_without_a_message():
    session, _ = reporting()
    assert not of(give(session, waiting(late_rounds=3)), DropUpdate)
    assert updates(ticks(session)) == []
    assert updates(feed(session, Connected(boot=8), now=95_000.0)) == [], "nor on a new connection"
    out = give(session, make_round(2, 1, late_rounds=3), now=96_000.0)
    assert len(updates(out)) == 10 and updates(out)[0].topic.endswith("/u/1/0")


def test_training_that_the_next_round_accepts_ends_and_its_update_waits():
    session, job = training()
    assert not of(give(session, waiting(late_rounds=3)), CancelTraining)
    out = feed(session, Trained(job, BLOB))
    assert not updates(out) and last(out, Status, session.topics.status("a")).state == "ready"
    assert updates(give(session, make_round(2, 1, late_rounds=3)))


def test_training_that_no_round_accepts_is_stopped():
    session, _ = training()
    assert of(give(session, waiting()), CancelTraining)


@pytest.mark.parametrize("late_rounds", [0, 3])
def test_a_counted_update_is_dropped_as_the_model_has_it(late_rounds):
    session, _ = reporting()
    feed(session, receipt())
    assert of(give(session, waiting(late_rounds=late_rounds)), DropUpdate) == [DropUpdate(applied=True)]


def test_a_restarted_device_keeps_its_update_silently():
    session, out = reporting()
    again, out = fetching(round=waiting(late_rounds=3), outbox=session._saved.outbox)
    assert not updates(out) and not of(out, DropUpdate) and not updates(ticks(again))
    assert [p for p in of(out, Publish) if p.topic.endswith("status")]


def test_i06_a_message_from_before_the_round_opened_ends_nothing():
    """A broker that starts again from an old snapshot sends it; found by simulation, seed 400855."""
    session, _ = reporting()
    out = give(session, waiting(1, 0))
    assert session.dropped == 1 and not of(out, DropUpdate)
    assert session.round.state == "open"


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_i06_a_round_that_will_open_again_keeps_its_update(attempt, mode):
    saved = Outbox(MANIFEST.id, 1, 0, BLOB if mode == "train" else SCORES, attempt=1)
    session, out = fetching(round=waiting(1, 0, attempt=attempt), outbox=saved)
    assert not of(out, DropUpdate) and not updates(out)
    assert updates(give(session, make_round(1, 0, attempt=2, mode=mode)))
