"""Rounds that only evaluate, on both machines: nothing is trained, no version is made, a record is kept."""

from __future__ import annotations

import pytest
from machines import (
    INBOX,
    PARAMS,
    STATUS,
    accumulator_of,
    commit_of,
    feed,
    fetching,
    give,
    last,
    make_coordinator,
    make_manifest,
    make_round,
    make_session,
    make_update,
    of,
    receipt,
    report,
    round_in,
    run_out,
    serve,
    status,
    updates,
    word_to,
)

from edgefl.codecs import get
from edgefl.coordinator.updates.sums import ClippedMean
from edgefl.device.events import CancelTraining, DropUpdate, Outbox, SaveUpdate, StartTraining, Trained
from edgefl.errors import UsageError
from edgefl.history import History
from edgefl.machine import Connected, Note, Publish, Subscribe
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader

HOLDOUT = make_manifest(holdout=0.2)


def scores(num_eval, loss, accuracy=None) -> bytes:
    return UpdateHeader(0, 0, 0.0, 0, 100, num_eval, loss, accuracy).to_bytes()


def evaluating(*devices, now=0.0, start=None, **config):
    """A coordinator whose second round, which only evaluates, is open; and what it did to open it."""
    coordinator = make_coordinator(
        manifest=HOLDOUT, start=start or {"round": 2, "version": 1}, evaluate_every=2,
        **{"min_reports": len(devices)} | config,
    )  # fmt: skip
    return coordinator, feed(coordinator, *map(status, devices), Connected(), now=now)


def say(coordinator, device, blob, now=1.0):
    return report(coordinator, device, now, blob=blob, round=2, version=1)


# The coordinator


def test_every_second_round_only_evaluates_and_moves_no_version():
    coordinator = make_coordinator(manifest=HOLDOUT, evaluate_every=2, rounds=4)
    out = feed(coordinator, status("a"), Connected())
    assert round_in(out).mode == "train"
    out = report(coordinator, "a")
    assert (round_in(out).mode, round_in(out).version, coordinator.phase) == ("evaluate", 1, "open")
    params = coordinator.params.tobytes()
    out = say(coordinator, "a", scores(5, 0.25, 0.75))
    record, made = commit_of(out).record, commit_of(out).params
    assert (record.state, record.round, record.version, record.reported, made) == ("evaluated", 2, 1, 1, None)
    assert (record.num_examples, record.train_loss, record.accuracy) == (0, None, None)
    assert (record.device_examples, record.device_loss, record.device_accuracy) == (5, 0.25, 0.75)
    assert coordinator.params.tobytes() == params
    assert [p.topic for p in of(out, Publish) if "/model/" in p.topic] == []
    assert (round_in(out).mode, round_in(out).version, round_in(out).round) == ("train", 1, 3)
    out = report(coordinator, "a", round=3, version=1)
    assert (round_in(out).mode, round_in(out).version) == ("evaluate", 2)


def test_scores_are_weighted_by_the_examples_behind_them():
    coordinator, _ = evaluating("a", "b", "c")
    say(coordinator, "a", scores(30, 1.0, 0.5))
    say(coordinator, "b", scores(10, 2.0, 1.0))
    record = commit_of(say(coordinator, "c", scores(0, None))).record
    assert (record.reported, record.device_examples) == (3, 40)
    assert (record.device_loss, record.device_accuracy) == (1.25, 0.625)


def test_a_round_in_which_nobody_holds_out_anything_has_no_scores():
    coordinator, _ = evaluating("a")
    record = commit_of(say(coordinator, "a", scores(0, None))).record
    assert (record.state, record.device_examples, record.device_loss) == ("evaluated", 0, None)


def test_i04_below_min_reports_it_is_abandoned_at_its_deadline():
    coordinator, _ = evaluating("a", "b")
    assert commit_of(say(coordinator, "a", scores(5, 1.0))) is None
    out = run_out(coordinator)
    record = commit_of(out).record
    assert (record.state, record.version, record.device_examples) == ("abandoned", 1, 5)
    assert record.deadlines == 8
    assert round_in(out).mode == "train"


def test_it_closes_at_its_goal():
    coordinator, _ = evaluating("a", "b", "c", goal=2, min_reports=1)
    assert commit_of(say(coordinator, "a", scores(5, 1.0))) is None
    assert commit_of(say(coordinator, "b", scores(5, 1.0))).record.reported == 2


def test_i01_a_device_is_counted_once():
    coordinator, _ = evaluating("a", "b")
    say(coordinator, "a", scores(5, 1.0))
    assert word_to(say(coordinator, "a", scores(5, 1.0)), "a").outcome == "counted"
    assert commit_of(say(coordinator, "b", scores(5, 3.0))).record.device_loss == 2.0


def test_i03_a_delta_is_taken_by_no_round_that_only_evaluates():
    coordinator, _ = evaluating("a", "b")
    out = say(coordinator, "a", make_update())
    assert "the plan allows 256" in of(out, Note)[0].text
    assert (coordinator.dropped["a"], coordinator.tally.counted) == (2, [])
    assert commit_of(say(coordinator, "b", scores(5, 1.0))) is None


def test_i03_scores_alone_are_no_update_to_a_round_that_trains():
    coordinator = make_coordinator(manifest=HOLDOUT, evaluate_every=2, min_reports=2)
    feed(coordinator, status("a"), status("b"), Connected())
    report(coordinator, "b")
    before = accumulator_of(coordinator)
    out = report(coordinator, "a", blob=scores(5, 1.0))
    assert (word_to(out, "a").outcome, accumulator_of(coordinator)) == ("rejected", before)
    assert "the round is to train" in word_to(out, "a").reason


def test_a_restarted_aggregator_reopens_the_same_kind_of_round():
    first, out = evaluating("a", "b")
    before = round_in(out)
    say(first, "a", scores(5, 1.0))
    _, out = evaluating("a", "b", start={"round": 2, "version": 1, "attempt": 2})
    after = round_in(out)
    assert (after.round, after.mode, after.attempt) == (before.round, "evaluate", before.attempt + 1)
    assert after.same_work(before)


def test_scores_come_with_updates_too():
    coordinator = make_coordinator(manifest=HOLDOUT, min_reports=2)
    feed(coordinator, status("a"), status("b"), Connected())
    delta = get("raw32").encode(PARAMS / 10)
    for device, num_eval, loss in (("a", 1, 4.0), ("b", 3, 8.0)):
        blob = UpdateHeader(5, 1, 0.5, 10, 100, num_eval, loss, 0.5).to_bytes() + delta
        out = report(coordinator, device, blob=blob)
    record = commit_of(out).record
    assert (record.state, record.device_examples, record.device_loss, record.train_loss) == ("committed", 4, 7.0, 0.5)


def test_without_a_share_held_out_such_rounds_are_refused():
    with pytest.raises(UsageError, match="holdout above 0"):
        make_coordinator(evaluate_every=2)


def test_the_newest_scores_are_the_final_ones():
    coordinator, _ = evaluating("a")
    records = [commit_of(say(coordinator, "a", scores(5, 0.25, 0.75))).record]
    records.append(commit_of(report(coordinator, "a", round=3, version=1)).record)
    final = History(PARAMS, records).final
    assert (final.rounds, final.committed, final.evaluated) == (2, 1, 1)
    assert (final.device_loss, final.device_accuracy) == (0.25, 0.75)


# The session

ROUND = make_round(manifest=HOLDOUT, mode="evaluate")
BLOB = scores(5, 0.25, 0.75)


def asked(**options):
    """A session that evaluates round 1's model, and its job."""
    session, out = fetching(HOLDOUT, ROUND, **options)
    (start,) = of(serve(session, out), StartTraining)
    return session, start.job


def test_a_device_evaluates_saves_and_reports_in_one_part():
    session, job = asked()
    assert (job.round.mode, job.params) == ("evaluate", PARAMS.tobytes())
    out = feed(session, Trained(job, BLOB), now=1.0)
    assert out[0] == SaveUpdate(Outbox(HOLDOUT.id, 1, 0, BLOB, attempt=1))
    (part,) = updates(out)
    assert Envelope.from_bytes(part.payload).data == BLOB
    assert last(out, Status, STATUS).state == "ready"
    feed(session, receipt())
    assert session.wake_at is None


def test_i11_a_restarted_device_reports_again_and_evaluates_nothing():
    session = make_session(outbox=Outbox(HOLDOUT.id, 1, 0, BLOB))
    out = feed(session, Connected(boot=8)) + give(session, HOLDOUT) + give(session, ROUND)
    assert len(updates(out)) == 1
    assert not of(out, StartTraining)
    assert [a.topics for a in of(out, Subscribe) if INBOX not in a.topics] == []


def test_the_model_is_at_hand_for_the_round_that_trains_next():
    session, job = asked()
    feed(session, Trained(job, BLOB))
    feed(session, receipt())
    out = give(session, make_round(2, manifest=HOLDOUT))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert of(out, StartTraining)[0].job.round.mode == "train"
    assert not of(out, Subscribe)


def test_a_mere_evaluation_leaves_the_residual_even_if_rounds_were_missed():
    session, job = asked()
    feed(session, Trained(job, BLOB))
    feed(session, receipt())
    out = give(session, make_round(3, version=1, manifest=HOLDOUT))  # round 2 was committed without this device
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_a_round_reopened_as_the_other_kind_is_done_anew(mode):
    other = "evaluate" if mode == "train" else "train"
    saved = BLOB if mode == "evaluate" else make_update()
    session = make_session(outbox=Outbox(HOLDOUT.id, 1, 0, saved))
    out = feed(session, Connected(boot=8)) + give(session, HOLDOUT)
    out += give(session, make_round(manifest=HOLDOUT, attempt=2, mode=other))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert not updates(out)
    (start,) = of(serve(session, out), StartTraining)
    assert start.job.round.mode == other


# Late updates and asynchronous rounds


def test_a_round_that_only_evaluates_takes_no_late_update():
    config = {"late": "fold", "late_rounds": 2, "evaluate_every": 2, "min_reports": 1, "goal": 1}
    coordinator = make_coordinator(manifest=HOLDOUT, **config)
    feed(coordinator, status("a"), status("b"), Connected())
    out = report(coordinator, "a")
    assert (round_in(out).mode, round_in(out).late_rounds) == ("evaluate", 0)
    assert word_to(report(coordinator, "b"), "b") is None
    assert coordinator.tally.folded == {}
    out = say(coordinator, "b", scores(5, 1.0))
    assert (commit_of(out).record.folded, round_in(out).late_rounds) == ([], 2)


def test_i03_late_scores_are_folded_into_no_round():
    config = {"late": "fold", "late_rounds": 2, "evaluate_every": 2, "min_reports": 1, "goal": 1}
    coordinator = make_coordinator(manifest=HOLDOUT, start={"round": 2, "version": 1}, **config)
    feed(coordinator, status("a"), status("b"), Connected())
    say(coordinator, "a", scores(5, 1.0))
    before = accumulator_of(coordinator)
    out = say(coordinator, "b", scores(5, 1.0))
    assert (word_to(out, "b"), coordinator.tally.folded) == (None, {})
    assert (coordinator.late, coordinator.dropped["b"]) == (1, 0)  # b has done nothing wrong
    assert accumulator_of(coordinator) == before


def test_a_device_brings_no_scores_late():
    late = make_round(2, manifest=HOLDOUT, late_rounds=2)
    session, job = asked()
    out = give(session, late)
    assert of(out, CancelTraining) and of(out, StartTraining)[0].job.round == late
    session, job = asked()
    feed(session, Trained(job, BLOB))
    out = give(session, late)
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert of(out, StartTraining) and not updates(out)


def test_scores_of_late_updates_are_of_an_older_model_and_left_out():
    coordinator = make_coordinator(manifest=HOLDOUT, late="fold", late_rounds=2, min_reports=1, goal=1)
    feed(coordinator, status("a"), status("b"), Connected())
    delta = get("raw32").encode(PARAMS / 10)

    def blob(loss):
        return UpdateHeader(5, 1, 0.5, 10, 100, 5, loss).to_bytes() + delta

    report(coordinator, "a", blob=blob(8.0))
    assert commit_of(report(coordinator, "b", blob=blob(8.0))) is None
    record = commit_of(report(coordinator, "a", blob=blob(2.0), round=2, version=1)).record
    assert (record.folded, record.device_examples, record.device_loss) == ([("b", 1)], 5, 2.0)


def test_asynchronous_rounds_never_stop_to_evaluate():
    with pytest.raises(UsageError, match="leave evaluate_every out"):
        make_coordinator(manifest=HOLDOUT, mode="async", goal=2, evaluate_every=2)


def test_where_most_accuracies_are_0_the_others_count_too():
    """In the first rounds of a pathological split most devices have labels that the model does not say yet."""
    accuracies = ClippedMean(bounded=True)
    for value in (0.0, 0.0, 0.0, 0.9):
        accuracies.add(value, 10)
    assert accuracies.value == pytest.approx(0.225)
    accuracies.add(1.0, 10_000)
    assert accuracies.value == pytest.approx((9.0 + 100.0) / 140)  # a weight of ten medians at most
