"""Pace: reports are spread over as long as the aggregator takes for them."""

from __future__ import annotations

import random

import pytest
from machines import (
    BLOB,
    INBOX,
    MANIFEST,
    commit_of,
    feed,
    fetching,
    give,
    make_coordinator,
    make_round,
    make_session,
    receipt,
    received,
    reporting,
    round_in,
    status,
    update_parts,
    updates,
)

from edgefl.coordinator.events import Evaluate, Evaluated
from edgefl.coordinator.updates.pace import Pace
from edgefl.device.events import Outbox
from edgefl.machine import Connected, Sent, Tick
from edgefl.protocol.inbox import Missing


def test_the_spread_is_what_the_updates_take_twice():
    pace = Pace(0.002, None)
    assert pace.spread_s(1000, 3600.0) == pytest.approx(4.0)
    assert pace.spread_s(10_000, 100.0) == 25.0, "never more than a quarter of the deadline"
    assert pace.spread_s(3, 3600.0) == 0.0
    pace.learn(0.001)
    assert pace.spread_s(1000, 3600.0) == pytest.approx(3.0)


def test_nothing_is_spread_before_anything_is_known():
    pace = Pace(0.0, None)
    assert pace.spread_s(10**6, 3600.0) == 0.0
    pace.learn(0.001)
    assert pace.update_s == 0.001


def test_a_configured_rate_overrules_what_is_measured():
    pace = Pace(0.5, 100.0)
    pace.learn(0.5)
    assert pace.spread_s(1000, 3600.0) == 10.0


def test_all_together_send_no_more_unasked_than_the_window():
    pace = Pace(0.0, None)
    assert [pace.unasked(n) for n in (0, 1, 10, 500, 501, 10_000)] == [500, 500, 50, 1, 1, 1]


def test_the_round_announces_the_pace_that_was_learnt():
    coordinator = make_coordinator(min_reports=50, updates_per_s=None, deadline_s=60.0)
    devices = [f"d{i}" for i in range(50)]
    first = round_in(feed(coordinator, *map(status, devices), Connected()))
    assert (first.spread_s, first.unasked) == (0.0, 10)
    parts = [part for device in devices for part in update_parts(device)]
    out = [action for part in parts for action in coordinator.step(part, 1.0)]
    assert isinstance(out[-1], Evaluate)
    done = coordinator.step(Evaluated(update_s=0.01), 2.0)
    assert commit_of(done).record.reported == 50
    assert round_in(done).spread_s == pytest.approx(1.0)


def reporting_session(seed=0, **terms):
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, BLOB), rng=random.Random(seed))
    feed(session, Connected(boot=1))
    give(session, MANIFEST)
    return session, give(session, make_round(**terms), now=100.0)


def test_a_device_reports_at_a_moment_of_its_own_within_the_spread():
    moments = []
    for seed in range(20):
        session, out = reporting_session(seed, spread_s=40.0)
        assert updates(out) == []
        moments.append(session.wake_at)
        assert updates(feed(session, Tick(), now=session.wake_at - 0.01)) == []
        assert len(updates(feed(session, Tick(), now=session.wake_at))) == 10
    assert 100.0 <= min(moments) < 110.0 < 130.0 < max(moments) <= 140.0


def test_a_round_announced_anew_is_answered_at_another_moment_of_the_spread():
    session, _ = reporting_session(spread_s=40.0, unasked=1)
    (part,) = updates(feed(session, Tick(), now=session.wake_at))
    feed(session, Sent(part.token, True))
    assert updates(give(session, make_round(spread_s=40.0, unasked=1), now=200.0)) == []
    assert 200.0 < session.wake_at <= 240.0
    (again,) = updates(feed(session, Tick(), now=session.wake_at))
    assert again.payload == part.payload


def test_only_as_many_parts_go_unasked_as_the_round_says():
    session, out = reporting_session(unasked=3)
    assert [p.topic.rsplit("/", 1)[1] for p in updates(out)] == ["0", "1", "2"]
    more = updates(feed(session, received(INBOX, Missing(1, [3, 4, 5])), now=101.0))
    assert [p.topic.rsplit("/", 1)[1] for p in more] == ["3", "4", "5"]
    again = updates(feed(session, Tick(), now=session.wake_at))
    assert [p.topic.rsplit("/", 1)[1] for p in again] == ["0", "1", "2"]


def test_who_is_asked_does_not_wait_for_its_moment():
    session, _ = reporting_session(spread_s=40.0)
    assert len(updates(feed(session, received(INBOX, Missing(1, [5])), now=100.0))) > 0


# When to come back


def test_a_fleet_comes_back_no_faster_than_a_broker_takes_connections():
    pace = Pace(0.0, None)
    assert [pace.back_s(n, 3600.0) for n in (10, 49, 100, 10_000)] == [0.0, 0.0, 2.0, 200.0]
    assert pace.back_s(10_000, 100.0) == 25.0, "never more than a quarter of the deadline"


def test_the_round_says_when_to_come_back():
    coordinator = make_coordinator(min_reports=100, deadline_s=60.0)
    feed(coordinator, *(status(f"d{i}") for i in range(100)))
    assert round_in(feed(coordinator, Connected())).back_s == 2.0


def test_who_owes_a_report_hurries_and_who_does_not_takes_the_time():
    session, _ = reporting(round=make_round(back_s=40.0))
    assert session.calm_s == 0.0
    feed(session, receipt())
    assert session.calm_s == 40.0
    assert make_session().calm_s == 0.0
    session, _ = fetching(round=make_round(back_s=40.0, cohort=["b"]))
    assert session.calm_s == 40.0


def test_devices_that_were_rejected_come_back_one_after_the_other():
    times = set()
    for seed in range(5):
        session, _ = reporting(round=make_round(back_s=40.0))
        session._part._rng.seed(seed)
        feed(session, receipt("rejected"), now=10.0)
        assert 70.0 <= session.wake_at <= 110.0
        times.add(session.wake_at)
    assert len(times) == 5
