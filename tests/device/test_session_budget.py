"""A device with its owner's limits: it sits rounds out, shortens its updates, and says so."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from machines import (
    BLOB,
    INBOX,
    MANIFEST,
    PARAMS,
    STATUS,
    TOPICS,
    P,
    feed,
    give,
    last,
    make_manifest,
    make_round,
    make_session,
    of,
    received,
    serve,
    updates,
)

from edgefl import codecs
from edgefl.codecs import feedback
from edgefl.codecs.feedback import unpack
from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Trainer
from edgefl.device.events import CancelTraining, Failed, SaveSpent, StartTraining, Trained, TrainJob
from edgefl.device.owner.budget import Limits, Spent
from edgefl.device.report.update_report import UpdateReport
from edgefl.device.training import train_update
from edgefl.machine import Connected, Disconnected, Publish, Stop, Subscribe, Tick, Unsubscribe, WallTime
from edgefl.protocol.inbox import Judge
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings.hours import Hours

UTC = timezone.utc
NOON = datetime(2026, 6, 10, 12, tzinfo=UTC).timestamp()
CONTROL = (TOPICS.manifest, TOPICS.round, INBOX)


def begin(*, spent=None, clock=None, manifest=MANIFEST, round=None, **limits):
    """A session with limits that has been told of a round at noon, and what it did."""
    limits = Limits(**{"zone": UTC} | limits)
    session = make_session(limits=limits, spent=spent)
    out = feed(session, clock or WallTime(NOON), Connected(boot=7)) + give(session, manifest)
    return session, out + give(session, round or make_round(manifest=manifest))


def model_asked(actions):
    return [s for s in of(actions, Subscribe) if "/model/" in s.topics[0]]


def told(actions) -> Status:
    return last(actions, Status, STATUS)


def test_a_device_whose_budget_allows_all_takes_part_as_ever():
    session, out = begin(per_day=10**9)
    assert model_asked(out) and told(serve(session, out)).max_bytes == 0


def test_a_device_whose_budget_is_too_small_now_sits_out_and_says_until_when():
    session, out = begin(per_day=30_000)
    status = told(out)
    assert (status.state, status.code) == ("trouble", "budget") and not model_asked(out)
    assert "2026-06-10 20:" in status.reason and status.reason.endswith("UTC")
    assert session.wake_at is not None
    assert of(give(session, make_round(2), now=60.0), Publish) == [], "it does not say so in every round"
    out = feed(session, Tick(), now=session.wake_at)
    assert model_asked(out) and told(out).state == "ready", "it is time, and round 2 is open"


def test_what_a_round_takes_beyond_the_whole_day_is_told_as_such():
    _, out = begin(per_day=6_000)
    assert told(out).code == "budget" and told(out).reason.endswith("allows 6000 a day: raise it")


def test_hours_and_an_unknown_time_have_codes_of_their_own():
    session, out = begin(hours=Hours(22 * 60, 6 * 60, UTC))
    assert told(out).code == "hours" and session.wake_at == 10 * 3600.0 and not model_asked(out)
    assert model_asked(feed(session, Tick(), now=10 * 3600.0))
    session, out = begin(per_day=10**9, clock=WallTime(0.0, trusted=False))
    assert told(out).code == "clock" and not model_asked(out)
    assert of(feed(session, WallTime(60.0, trusted=False), now=60.0), Publish) == []
    out = feed(session, WallTime(NOON), now=120.0)
    assert model_asked(out) and told(out).state == "ready"


def test_training_and_a_fetch_end_with_the_owners_hours_and_a_report_does_not():
    at_two = {"hours": Hours(11 * 60, 14 * 60, UTC)}
    for served in (False, True):
        session, out = begin(**at_two)
        out = serve(session, out) if served else out
        assert bool(of(out, StartTraining)) == served
        assert not of(feed(session, WallTime(NOON + 7199), now=7199.0), CancelTraining) and session.work is not None
        out = feed(session, WallTime(NOON + 7200), now=7200.0)
        assert session.work is None and told(out).code == "hours" and bool(of(out, CancelTraining)) == served
        assert session.wake_at == 23 * 3600.0
    session, out = begin(**at_two)
    (start,) = of(serve(session, out), StartTraining)
    feed(session, Trained(start.job, BLOB), now=7199.0)
    judge = received(INBOX, Judge(make_round(mode="evaluate")))
    out = feed(session, judge, now=7199.0)
    assert of(out, StartTraining), "a canary's verdict is asked for"
    out = feed(session, WallTime(NOON + 7200), now=7200.0)
    assert isinstance(session.work, UpdateReport) and of(out, CancelTraining)
    assert not of(feed(session, judge, now=7201.0), StartTraining)


def started(per_day, **options):
    """The job that a budget of so many bytes a day lets a device begin at noon, and its status; None if it sits out."""
    session, out = begin(per_day=per_day, **options)
    out = serve(session, out)
    jobs = [start.job for start in of(out, StartTraining)]
    return (jobs[0] if jobs else None), told(out)


def test_a_lossy_update_is_told_what_it_may_take_and_the_status_says_so():
    manifest = make_manifest(codec="ecq", error_feedback=True)
    bounds = []
    for per_day in range(100_000, 400_000, 5_000):
        job, status = started(per_day, manifest=manifest)
        if job is not None:
            assert status.max_bytes == job.max_bytes and status.state == "training"
            bounds.append(job.max_bytes)
    assert sorted(bounds[:-1]) == bounds[:-1] or bounds[-1] == 0
    shortened = [bound for bound in bounds if bound]
    assert shortened == sorted(shortened) and 0 < shortened[0] < 1000 and bounds[-1] == 0, "more, then no limit"


def test_an_update_that_the_codec_can_not_make_so_short_is_the_budgets_fault_and_not_tried_again():
    manifest = make_manifest(codec="ecq")
    per_day = next(n for n in range(100_000, 400_000, 5_000) if started(n, manifest=manifest)[0])
    session, out = begin(per_day=per_day, manifest=manifest)
    (start,) = of(serve(session, out), StartTraining)
    out = feed(session, Failed(start.job, "ecq needs 400 bytes", "codec"), now=10.0)
    assert told(out).code == "budget" and "too few for this codec" in told(out).reason
    other = make_round(2, 1, params=2 * PARAMS, manifest=manifest)
    out = give(session, other, now=20.0) + feed(session, Tick(), now=session.wake_at)
    assert told(out).code == "budget" and not model_asked(out), "until the budget allows more"


def test_a_codec_that_can_not_be_coarser_is_not_asked_to_be():
    """raw32: the device sits out where the update does not fit whole."""
    jobs = [started(per_day)[0] for per_day in range(100_000, 400_000, 5_000)]
    assert jobs[0] is None and jobs[-1] is not None
    assert all(job is None or job.max_bytes == 0 or job.max_bytes >= 4 * P for job in jobs)


def test_a_round_that_only_evaluates_needs_no_update():
    both = [(started(n)[0], started(n, round=make_round(mode="evaluate"))[0]) for n in range(100_000, 400_000, 5_000)]
    assert any(train is None and evaluate is not None for train, evaluate in both)
    assert all(evaluate is None or evaluate.max_bytes == 0 for _, evaluate in both)


def test_what_is_spent_is_stored_before_it_is_sent_and_exactly_at_the_end():
    session, out = begin(per_day=10**6)
    assert isinstance(out[0], SaveSpent), "before the first message"
    ceilings = [action.spent.today for action in of(serve(session, out), SaveSpent)]
    assert ceilings == sorted(ceilings) and len(ceilings) <= 1 + 20_000 // (10**6 // 64) + 1
    (spent,) = of(feed(session, Stop()), SaveSpent)
    assert spent.spent.today < ceilings[-1] and spent.spent.today > 4 * P


def test_a_restarted_device_goes_on_where_it_was():
    session, out = begin(per_day=200_000)
    first = of(serve(session, out) + feed(session, Stop()), SaveSpent)[-1].spent
    again, out = begin(per_day=200_000, spent=first)
    assert of(feed(again, Stop()), SaveSpent)[-1].spent.today > first.today


def test_a_device_that_has_spent_its_day_hears_nothing_until_tomorrow():
    today = datetime.fromtimestamp(NOON, UTC).toordinal()
    session, out = begin(per_day=100_000, spent=Spent(today, int(NOON) - 43_200, 97_000, 97_000))
    out += give(session, make_round(2))
    assert Unsubscribe(CONTROL) in out or CONTROL not in [s.topics for s in of(out, Subscribe)]
    assert CONTROL not in [s.topics for s in of(feed(session, Connected(boot=8)), Subscribe)]
    out = feed(session, WallTime(NOON + 43_260), now=43_260.0)
    assert Subscribe(CONTROL) in out


def test_a_day_that_control_messages_have_spent_is_told_before_the_device_falls_silent():
    session, out = begin(per_day=10**6, round=make_round(cohort=["b"]))
    assert told(out).state == "ready"
    for number in range(2, 5000):
        out = give(session, make_round(number, cohort=["b"]), now=1.0)
        if Unsubscribe(CONTROL) in out:
            break
    assert (told(out).state, told(out).code) == ("trouble", "budget") and "2026-06-11 00:00" in told(out).reason
    assert session.wake_at == 43_200.0
    out = feed(session, Tick(), now=43_200.0)
    assert Subscribe(CONTROL) in out and told(out).state == "ready"


def test_a_link_that_comes_and_goes_does_not_exceed_a_day_that_is_spent():
    today = datetime.fromtimestamp(NOON, UTC).toordinal()
    session, _ = begin(per_day=100_000, spent=Spent(today, int(NOON) - 43_200, 97_500, 97_500))
    sent = []
    for boot in range(8, 200):
        sent += feed(session, Disconnected(), Connected(boot=boot), now=float(boot))
    assert of(sent, Publish) and of(feed(session, Stop(), now=300.0), SaveSpent)[-1].spent.today <= 100_000


def test_an_update_is_not_sent_again_and_again_beyond_the_day():
    session = make_session(limits=Limits(per_day=60_000, zone=UTC))
    feed(session, WallTime(NOON), Connected(boot=7))
    out = give(session, MANIFEST) + give(session, make_round())
    begins_at = session.wake_at
    out += serve(session, feed(session, Tick(), now=begins_at), now=begins_at)
    (start,) = of(out, StartTraining)
    actions = feed(session, Trained(start.job, BLOB), now=begins_at + 10)
    while session.wake_at < 43_200.0:
        actions += feed(session, Tick(), now=session.wake_at)
    assert updates(actions) and session.status.trouble.code == "budget"
    assert of(feed(session, Stop(), now=43_199.0), SaveSpent)[-1].spent.today <= 60_000


# Training under a bound


def trained(max_bytes, feedback):
    """The payload and the residual of an update by ecq."""
    manifest = make_manifest(codec="ecq", error_feedback=feedback, part_bytes=2048)
    job = TrainJob(manifest, make_round(manifest=manifest), params_to_bytes(PARAMS), 0, max_bytes)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 99)).astype(np.float32), rng.integers(0, 10, 40)
    blob, left, *_ = train_update(Trainer(manifest.plan), job, "a", x, y)
    return manifest.update_codec, blob[UpdateHeader.from_bytes(blob).size :], left.get("residual")


@pytest.mark.parametrize("feedback", [False, True])
def test_an_update_under_a_bound_is_coarser_and_its_residual_has_the_rest(feedback):
    codec, free, left = trained(0, feedback)
    assert trained(len(free), feedback)[1] == free, "a bound that is not reached changes nothing"
    _, bound, more = trained(len(free) - 5, feedback)
    assert len(bound) <= len(free) - 5
    if feedback:
        rests = [unpack(rest, P) for rest in (left, more)]
        sums = [codec.decode(payload, P) + rest for payload, rest in zip((free, bound), rests, strict=True)]
        np.testing.assert_allclose(*sums, atol=2**-11 * max(np.abs(rest).max() for rest in rests))  # of half floats


def test_the_bound_is_no_word_of_the_manifest_and_any_decoder_reads_the_update():
    delta = np.random.default_rng(1).normal(size=P).astype(np.float32)
    payload = codecs.get("ecq").within(200).encode(delta)
    assert len(payload) <= 200
    assert codecs.get("ecq").decode(payload, P).shape == (P,)


def test_updates_under_a_bound_converge_under_error_feedback():
    """Each round sends a third of the bytes; the sum of what was sent follows the sum of the deltas."""
    rng, size = np.random.default_rng(2), 20_000
    drift = rng.normal(size=size).astype(np.float32)
    codec = codecs.get("ecq", step=2.0)
    most = len(codec.encode(drift)) // 3
    residual, sent, wanted, errors = None, np.zeros(size), np.zeros(size), []
    for _ in range(60):
        delta = drift + rng.normal(size=size).astype(np.float32)
        payload, left = feedback.encode(codec.within(most), delta, residual)
        assert len(payload) <= most
        residual = unpack(left, size)
        sent, wanted = sent + codec.decode(payload, size), wanted + delta
        errors.append(np.linalg.norm(sent - wanted) / np.linalg.norm(wanted))
    assert errors[-1] < 0.2 and errors[-1] < errors[5] / 3
