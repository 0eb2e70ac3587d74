"""DeviceSession by hand: one device, every message and mishap in turn."""

from __future__ import annotations

import pytest
from machines import (
    BLOB,
    INBOX,
    MANIFEST,
    PARAMS,
    STATUS,
    TOPICS,
    P,
    blob_of,
    feed,
    fetching,
    give,
    last,
    make_manifest,
    make_model,
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

from edgefl.device.events import CancelTraining, DropUpdate, Failed, Outbox, SaveUpdate, StartTraining, Trained
from edgefl.machine import Connected, Disconnected, Note, Publish, Sent, Stop, Subscribe, Tick, Unsubscribe
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.protocol.messages import Status, decode, encode
from edgefl.protocol.round import Frame


def test_happy_path():
    session = make_session()
    out = feed(session, Connected(boot=7))
    assert out[0] == Subscribe((TOPICS.manifest, TOPICS.round, INBOX))
    assert last(out, Status, STATUS) == Status("ready", 7, 5)
    assert of(out, Publish)[0].retain
    give(session, MANIFEST)
    asked = give(session, make_round())
    assert asked[-1] == Subscribe(tuple(TOPICS.model(0, i) for i in range(4)))
    out = serve(session, asked)
    (start,) = of(out, StartTraining)
    assert start.job.params == PARAMS.tobytes()
    assert last(out, Status, STATUS).state == "training"
    out = feed(session, Trained(start.job, BLOB), now=1.0)
    assert out[0] == SaveUpdate(Outbox(MANIFEST.id, 1, 0, BLOB, attempt=1))
    assert last(out, Status, STATUS).state == "ready"
    for _ in range(3):
        out += feed(session, *(Sent(p.token, True) for p in updates(out)), now=2.0)
    assert blob_of(updates(out)) == BLOB
    assert all(p.payload[4:8] == bytes([1, Kind.UPDATE, 1, 0]) for p in updates(out))
    feed(session, receipt(), now=3.0)
    assert (session.wake_at, session.dropped) == (None, 0)


def test_every_model_part_is_unsubscribed_and_few_are_asked_at_once():
    session, out = fetching()
    out = serve(session, out)
    asked = [t for a in of(out, Subscribe) for t in a.topics if "/model/" in t]
    left = [t for a in of(out, Unsubscribe) for t in a.topics]
    assert sorted(asked) == sorted(left) == sorted(p.topic for p in model_parts())


def test_next_round_drops_the_update_and_fetches_the_next_model():
    session, _ = reporting()
    out = give(session, make_round(2, 1, params=PARAMS + 1))
    assert of(out, DropUpdate)
    (start,) = of(serve(session, out, model_parts(1, PARAMS + 1)), StartTraining)
    assert (start.job.round.round, start.job.params) == (2, (PARAMS + 1).tobytes())


def test_a_model_that_is_already_there_is_not_fetched_again():
    session, _ = reporting()
    out = give(session, make_round(2, 0))  # round 1 was abandoned
    assert of(out, StartTraining)
    assert not of(out, Subscribe)


def test_bytes_down_are_told_until_an_update_that_tells_them_is_counted():
    session, job = training()
    assert job.bytes_down > 4 * P
    feed(session, Trained(job, BLOB))
    (start,) = of(give(session, make_round(2, 0)), StartTraining)
    more = len(encode(make_round(2, 0)))
    assert start.job.bytes_down == job.bytes_down + more
    feed(session, Trained(start.job, BLOB))
    received = [receipt(round=2), receipt(round=2)]
    feed(session, *received)
    (start,) = of(give(session, make_round(3, 1, params=PARAMS)), StartTraining)
    assert start.job.bytes_down == sum(len(r.payload) for r in received) + len(encode(make_round(3, 1)))


# Once a round


def test_i11_a_restarted_device_sends_its_saved_update_and_does_not_train():
    session, out = fetching(outbox=Outbox(MANIFEST.id, 1, 0, BLOB))
    assert not of(out, StartTraining)
    for _ in range(3):
        out += feed(session, *(Sent(p.token, True) for p in updates(out)))
    assert blob_of(updates(out)) == BLOB


def test_a_saved_update_of_another_round_is_dropped():
    session, out = fetching(outbox=Outbox(MANIFEST.id, 0, 0, BLOB))
    assert of(out, DropUpdate)
    assert of(serve(session, out), StartTraining)


def test_i11_a_round_is_trained_once_however_often_it_is_announced():
    session, job = training()
    assert not of(give(session, make_round()) + give(session, make_round(attempt=2)), StartTraining)
    out = feed(session, Trained(job, BLOB))
    out += give(session, make_round(attempt=2)) + feed(session, receipt(attempt=2)) + give(session, make_round())
    assert not of(out, StartTraining)


def test_a_new_attempt_is_reported_to_again_after_the_receipt():
    session, _ = reporting()
    feed(session, receipt())
    assert not updates(give(session, make_round(attempt=1)))
    assert updates(give(session, make_round(attempt=2)))
    feed(session, receipt(attempt=1))
    assert session.wake_at is not None  # a receipt of the attempt before says nothing


def test_older_rounds_are_dropped():
    session, _ = reporting()
    give(session, make_round(2, 0, attempt=2))
    for stale in (make_round(1), make_round(2, 0, attempt=1)):
        (note,) = give(session, stale)
        assert "older" in note.text
    assert (session.round.round, session.round.attempt, session.dropped) == (2, 2, 2)


def test_rounds_start_over_with_another_run():
    session, _ = reporting()
    give(session, make_round(9, 0))
    other = make_manifest(run="1" * 16)
    assert of(give(session, other), CancelTraining)
    assert of(give(session, make_round(1, 0, manifest=other)), StartTraining)


def test_i03_work_for_one_run_is_never_reported_to_another():
    other = make_manifest(run="1" * 16)
    session, job = training()
    assert of(give(session, make_round(4, 0, manifest=other)), CancelTraining)  # before its manifest
    assert feed(session, Trained(job, BLOB)) == []
    session, _ = reporting()
    give(session, make_round(4, 0, manifest=other))
    assert not updates(feed(session, Tick(), now=1e6) + feed(session, received(INBOX, Missing(4, [0]))))


def test_a_round_whose_model_does_not_fit_the_plan_stops_all_work():
    session, job = training()
    out = give(session, make_round(2, 0, frames=[Frame(0, make_model().sha256[:16], 4 * P + 4, 0)]))
    assert of(out, CancelTraining)
    assert "longer than the plan allows" in of(out, Note)[0].text
    assert feed(session, Trained(job, BLOB)) == []


@pytest.mark.parametrize("round", [make_round(cohort=["b"]), make_round(state="done"), make_round(cohort=[])])
def test_who_is_not_asked_does_nothing(round):
    session = make_session()
    feed(session, Connected())
    out = give(session, MANIFEST) + give(session, round)
    assert not of(out, Subscribe)
    assert session.work is None


def test_i07_a_device_that_lists_leave_out_says_again_now_and_then_that_it_is_there():
    """The aggregator may have an older status of it. A round that comes twice, or waits, counts for nothing."""
    session = make_session()
    feed(session, Connected(boot=7))
    give(session, MANIFEST)
    told = []
    for number in range(1, 10):
        out = give(session, make_round(number, 0, cohort=["b"])) + give(session, make_round(number, 0, cohort=["b"]))
        out += give(session, make_round(number + 1, 0, state="waiting"))
        told += [(number, decode(Status, one.payload).state) for one in of(out, Publish, STATUS)]
    assert told == [(2, "ready"), (4, "ready"), (8, "ready")]
    assert of(give(session, make_round(10, 0)), Subscribe), "it is asked"
    assert not of(give(session, make_round(11, 0, cohort=["b"])), Publish, STATUS)
    assert of(give(session, make_round(12, 0, cohort=["b"])), Publish, STATUS)


def test_round_before_manifest():
    session = make_session()
    feed(session, Connected())
    assert give(session, make_round()) == [Subscribe((TOPICS.manifest,))]
    assert of(give(session, MANIFEST), Subscribe)


# Receipts and patience


def test_i06_without_a_receipt_everything_is_sent_again_ever_more_patiently():
    session, out = reporting()
    first, waits, now = updates(out), [], 0.0
    for _ in range(6):
        waits.append(session.wake_at - now)
        assert feed(session, Tick(), now=session.wake_at - 0.01) == []
        now = session.wake_at
        again = updates(feed(session, Tick(), now=now))
        assert [p.payload for p in again] == [p.payload for p in first]
    assert all(15 * 2**i <= wait <= 30 * 2**i for i, wait in enumerate(waits[:5]))
    assert waits[5] <= 600


def test_i06_a_connection_that_comes_and_goes_does_not_put_the_next_try_off():
    session, out = reporting(now=0.0)
    feed(session, *(Sent(p.token, True) for p in updates(out)), now=0.0)
    feed(session, *(Sent(p.token, True) for p in updates(out)), now=0.0)
    for now in range(5, 60, 5):
        out = feed(session, *[Sent(i, True) for i in range(40)], Disconnected(), Connected(), now=now)
    assert session.wake_at <= 30


def test_rejected_update_is_dropped_and_the_device_is_back_after_the_round():
    session, _ = reporting()
    out = feed(session, receipt("rejected", reason="NaN"), now=10.0)
    assert of(out, DropUpdate)
    assert last(out, Status, STATUS) == Status("trouble", 7, 5, "round 1: rejected: NaN", "rejected")
    assert not of(give(session, make_round(attempt=2), now=11.0), StartTraining)
    assert session.wake_at == 70.0
    assert last(feed(session, Tick(), now=70.0), Status, STATUS) == Status("ready", 7, 5)
    assert session.wake_at is None
    assert not of(give(session, make_round(attempt=2), now=71.0), StartTraining)
    assert of(give(session, make_round(2, 0, attempt=2), now=72.0), StartTraining)


@pytest.mark.parametrize(("version", "kept"), [(0, False), (None, False), (5, True)])
def test_i06_a_receipt_for_an_update_from_another_model_drops_no_other(version, kept):
    """Found by simulation, seeds 21323 and 21444: a round was opened again with another model, and a part of the first
    update arrived after the device had made another one."""
    session, _ = reporting()
    feed(session, received(INBOX, Receipt(1, 1, "rejected", "from another model", version=version)))
    assert (session._saved.outbox is not None) is kept


def test_failed_training_is_shown_and_the_next_round_is_tried():
    session, job = training()
    out = feed(session, Failed(job, "no data", "data"))
    note = Note("error", "round 1: no data", "round failed: data", round=1)
    assert of(out, Note) == [note], "one line a minute of this kind"
    assert last(out, Status, STATUS) == Status("trouble", 7, 5, "no data", "data")
    assert not of(give(session, make_round()), StartTraining)
    out = give(session, make_round(2, 0))
    assert of(out, StartTraining)
    assert last(out, Status, STATUS) == Status("training", 7, 5)


def test_why_a_device_failed_stays_to_be_read_when_all_rounds_are_done():
    session, job = training()
    feed(session, Failed(job, "no data"))
    assert not of(give(session, make_round(2, 0, state="done")), Publish)
    assert last(give(session, make_round(3, 0)), Status, STATUS).state == "training"


def test_missing_parts_are_sent_and_only_those():
    session, out = reporting()
    feed(session, *(Sent(p.token, True) for p in updates(out)))
    feed(session, *(Sent(i, True) for i in range(40)))
    again = updates(feed(session, received(INBOX, Missing(1, [3, 0, 999])), now=1.0))
    assert [p.topic for p in again] == [TOPICS.update("a", 1, 3), TOPICS.update("a", 1, 0)]
    under_way = feed(session, received(INBOX, Missing(1, [3, 0])), now=2.0)
    assert updates(under_way) == []
    assert feed(session, received(INBOX, Missing(2, [1]))) == []


def test_i10_a_round_announced_anew_is_sent_the_first_part_until_the_receipt():
    """Broker or aggregator may have lost what was acknowledged; waiting for patience would cost the round."""
    session, _ = reporting()
    assert updates(give(session, make_round())) == []  # still under way
    feed(session, *(Sent(i, True) for i in range(1, 40)))
    (probe,) = updates(give(session, make_round()))
    assert probe.topic == TOPICS.update("a", 1, 0)
    assert updates(give(session, make_round())) == []  # the probe is under way
    feed(session, *(Sent(i, True) for i in range(1, 60)), received(INBOX, Receipt(1, 1, "counted")))
    assert updates(give(session, make_round())) == []


def test_part_window():
    session, out = reporting()
    first = updates(out)
    assert len(first) == 10
    (next_part,) = updates(feed(session, Sent(first[3].token, True)))
    assert next_part.topic == TOPICS.update("a", 1, 10)
    assert feed(session, Sent(first[3].token, True)) == []
    assert feed(session, Sent(first[4].token, False)) == []  # refused: not again at once


def test_parts_are_lowered_to_what_the_broker_takes():
    _, out = reporting(connected=Connected(max_packet_bytes=1024 + 48 + 200))
    assert part_bytes_of(out) == 256  # never below the protocol's smallest
    big = make_manifest(part_bytes=4096)
    session = make_session(outbox=Outbox(big.id, 1, 0, BLOB))
    feed(session, Connected(max_packet_bytes=2048))
    out = give(session, big) + give(session, make_round(manifest=big))
    assert part_bytes_of(out) == 2048 - 1024 - 48
    assert max(len(p.payload) for p in updates(out)) <= 1024


def part_bytes_of(actions) -> int:
    return Envelope.from_bytes(updates(actions)[0].payload).part_bytes


def test_a_stopped_device_never_shows_itself_again():
    session = make_session()
    out = feed(session, Connected(boot=7)) + give(session, MANIFEST)
    out += feed(session, Stop())
    assert last(out, Status, STATUS).state == "disconnected"
    assert give(session, make_round()) == [] and feed(session, Connected(boot=8)) == []


@pytest.mark.parametrize(("allowed", "state"), [(4 * P, "ready"), (4 * P - 1, "trouble")])
def test_every_manifest_is_answered_with_the_status_once(allowed, state):
    """RabbitMQ gives an aggregator that subscribes to all statuses no retained one: the manifest asks for them."""
    session = make_session(max_model_bytes=allowed)
    feed(session, Connected(boot=7))
    for manifest in (MANIFEST, MANIFEST, make_manifest(span=2), make_manifest(span=2)):
        out = give(session, manifest)
        assert [decode(Status, p.payload).state for p in of(out, Publish, STATUS)] == [state]
    feed(session, Disconnected())
    assert not of(give(session, MANIFEST), Publish)
