"""An owner's limits: never exceeded, spent evenly, kept across restarts, closed while the time of day is not known."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.device.owner.budget import HEAD, RESERVE_BYTES, STEPS, Budget, Limits, Spent
from edgefl.machine import WallClock, WallTime
from edgefl.settings.hours import Hours

BERLIN = ZoneInfo("Europe/Berlin")
MB = 10**6
HOUR, DAY_S = 3600.0, 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


MIDNIGHT = at("2026-06-10T00:00")


def make(unix_s: float | None = MIDNIGHT, spent: Spent | None = None, **limits) -> Budget:
    """A budget of a device whose own clock shows 0 at `unix_s`; None: the time of day is not known."""
    clock = WallClock()
    if unix_s is not None:
        clock.hear(WallTime(unix_s), 0.0)
    return Budget(Limits(**{"per_day": 10 * MB, "zone": BERLIN} | limits), spent, clock)


def test_without_limits_all_is_allowed_and_nothing_is_stored():
    budget = Budget(None, None, WallClock())
    budget.count(10**12)
    assert budget.refusal(10**12, 0.0) is None and budget.to_store() is None and not budget.is_spent


def test_a_limit_is_spent_evenly_over_the_day():
    budget = make()
    assert budget.refusal(1, 0.0) is None
    allowed = [budget.allowed(hour * HOUR) for hour in range(25)][:24]
    share = 10 * MB / (24 + HEAD / 60)
    for hour, found in enumerate(allowed):
        assert found == pytest.approx((hour + HEAD / 60) * share - RESERVE_BYTES, abs=2)
    budget.count(5 * MB)
    assert budget.allowed(6 * HOUR) == 0 and budget.allowed(13 * HOUR) > 0


def test_a_day_that_begins_at_noon_for_this_device_is_no_reason_to_spend_half_of_it_at_once():
    budget = make(at("2026-06-10T12:00"))
    budget.look(0.0)
    assert budget.allowed(0.0) < 10 * MB / 12
    assert budget.allowed(11.99 * HOUR) > 9.9 * MB


def test_a_refusal_says_when_the_device_takes_part_again_and_it_can_then():
    budget = make()
    budget.look(0.0)
    budget.count(4 * MB)
    refusal = budget.refusal(MB, HOUR)
    assert refusal.why.code == "budget" and "11:3" in refusal.why.text
    then = refusal.until - MIDNIGHT
    assert budget.refusal(MB, then) is None and budget.refusal(MB, then - 120) is not None


def test_what_does_not_fit_today_waits_for_tomorrow():
    budget = make()
    budget.look(0.0)
    budget.count(8 * MB)
    assert budget.refusal(3 * MB, HOUR).until == at("2026-06-11T00:00")


def test_a_round_larger_than_a_whole_day_says_so():
    refusal = make().refusal(11 * MB, HOUR)
    assert refusal.why.text == "a round takes 11000000 bytes, its owner's byte budget allows 10000000 a day: raise it"


def test_a_month_gives_each_day_its_share_of_the_rest():
    budget = make(at("2026-06-10T00:00"), per_day=None, per_month=42 * MB)
    budget.look(0.0)
    assert budget.limit == 2 * MB, "21 days are left"
    budget.count(2 * MB)
    assert budget.limit == 2 * MB, "what is spent today changes nothing today"
    budget._clock.hear(WallTime(at("2026-06-20T10:00")), 0.0)
    budget.look(0.0)
    assert budget.limit == 40 * MB // 11, "nine days without a byte are for the others"
    budget._clock.hear(WallTime(at("2026-07-01T00:00")), 0.0)
    budget.look(0.0)
    assert budget.limit == 42 * MB // 31


def test_a_device_that_takes_all_it_may_spends_a_month_and_no_more():
    budget = make(at("2026-06-01T00:00"), per_day=None, per_month=30 * MB)
    by_month = {6: 0, 7: 0}
    for hour in range(24 * 61):
        if budget.refusal(1000, hour * HOUR) is None:
            by_month[6 if hour < 24 * 30 else 7] += budget.allowed(hour * HOUR)
            budget.count(budget.allowed(hour * HOUR))
    assert all(28 * MB < spent <= 30 * MB for spent in by_month.values())


@pytest.mark.parametrize("since, elapsed", [("2026-06-10T00:00", 360), ("2026-06-10T22:00", 60)])
def test_a_limit_is_spent_within_the_owners_hours(since, elapsed):
    budget = make(at(since), hours=Hours(22 * 60, 6 * 60, BERLIN))
    budget.look(0.0)
    whole = 480 if elapsed == 360 else 120
    now = at("2026-06-10T23:00") - at(since)
    elapsed = 420 if elapsed == 360 else 60
    assert budget.allowed(now) == pytest.approx(10 * MB * (elapsed + HEAD) / (whole + HEAD) - RESERVE_BYTES, abs=2)


def test_outside_the_owners_hours_the_device_sits_out_until_they_begin():
    budget = make(at("2026-06-10T12:00"), per_day=None, hours=Hours(22 * 60, 6 * 60, BERLIN))
    refusal = budget.refusal(1, 0.0)
    assert refusal.why.code == "hours" and refusal.until == at("2026-06-10T22:00")
    assert refusal.why.text == "its owner lets it take part from 2026-06-10 22:00 CEST"
    assert budget.refusal(1, 10 * HOUR) is None


@pytest.mark.parametrize("limits", [{}, {"per_day": None, "hours": Hours(0, 60)}])
def test_while_the_time_of_day_is_not_known_everything_stays_closed(limits):
    refusal = make(None, **limits).refusal(1, 0.0)
    assert refusal.why.code == "clock" and refusal.until is None


def test_what_was_spent_before_the_time_was_known_counts_on_that_day():
    budget = make(None, Spent(day=at_day("2026-06-09"), today=9 * MB, this_month=9 * MB))
    budget.count(700)
    assert budget.today == 9 * MB + 700
    budget._clock.hear(WallTime(MIDNIGHT + 5), 100.0)
    budget.look(100.0)
    assert budget.today == 700


@pytest.mark.parametrize("there, back", [("2026-06-10", "2026-06-09"), ("2026-06-01", "2026-05-31")])
def test_a_clock_that_goes_back_a_day_gives_nothing_back_and_neither_does_its_return(there, back):
    budget = make(at(f"{there}T10:00"))
    budget.look(0.0)
    budget.count(9 * MB)
    budget._clock.hear(WallTime(at(f"{back}T10:00")), 1.0)
    budget.look(1.0)
    assert budget.today == 9 * MB
    budget._clock.hear(WallTime(at(f"{there}T10:01")), 2.0)
    budget.look(2.0)
    assert (budget.today, budget._spent.this_month) == (9 * MB, 9 * MB)
    budget._clock.hear(WallTime(at("2026-06-11T00:00")), 3.0)
    budget.look(3.0)
    assert (budget.today, budget._spent.this_month) == (0, 9 * MB)


def at_day(text: str) -> int:
    return datetime.fromisoformat(text).toordinal()


def test_the_stored_ceiling_is_never_below_what_is_spent_and_seldom_written():
    budget, stored, writes = make(), Spent(), 0
    budget.look(0.0)
    for _ in range(9000):
        budget.count(1000)
        if (ceiling := budget.to_store()) is not None:
            stored, writes = ceiling, writes + 1
        assert stored.today >= budget.today and stored.this_month >= budget.today
    assert writes <= STEPS


# Whatever comes: rounds of any size at any time, control messages, restarts, clocks that are lost and found.

STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([60.0, HOUR, 6 * HOUR, DAY_S, 5 * DAY_S])),
    st.tuples(st.just("round"), st.floats(0.5, 1)),
    st.tuples(st.just("rest of the day"), st.just(0)),
    st.tuples(st.just("control"), st.integers(1, 100)),
    st.tuples(st.sampled_from(["power cut", "stop", "lost clock"]), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(STEP, max_size=60), st.integers(20_000, 300_000), st.sampled_from([None, 2 * MB, 100_000]), st.booleans()
)
def test_no_day_and_no_month_is_exceeded_whatever_comes(steps, per_day, per_month, at_night):
    hours = Hours(22 * 60, 6 * 60, BERLIN) if at_night else None
    limits = Limits(per_day, per_month, hours, BERLIN)
    clock, disk, now = WallClock(), Spent(), 0.0
    clock.hear(WallTime(MIDNIGHT), 0.0)
    budget = Budget(limits, disk, clock)
    by_day: dict[object, int] = {}
    by_month: dict[object, int] = {}

    def spend(num_bytes: int) -> None:
        nonlocal disk
        day = datetime.fromtimestamp(MIDNIGHT + now, BERLIN).date()
        by_day[day] = by_day.get(day, 0) + num_bytes
        by_month[day.month] = by_month.get(day.month, 0) + num_bytes
        budget.count(num_bytes)
        disk = budget.to_store() or disk

    for kind, value in steps:
        budget.look(now)
        if kind == "wait":
            now += value
        elif kind == "round":  # as large as it may be
            spend(int(value * budget.allowed(now)) if budget.refusal(1, now) is None else 0)
        elif kind == "rest of the day":  # updates that are sent again
            spend(100 if budget.affords(100) else 0)
            spend(1000 if budget.affords(1000) else 0)
        elif kind == "control":
            for _ in range(value):  # none comes after the session has unsubscribed
                spend(0 if budget.is_spent else RESERVE_BYTES)
        elif kind in ("power cut", "stop"):
            if kind == "stop":
                disk = budget.settle()
            clock = WallClock()
            budget = Budget(limits, disk, clock)
            clock.hear(WallTime(MIDNIGHT + now), now)
        elif kind == "lost clock":
            clock.hear(WallTime(MIDNIGHT + now, trusted=False), now)
            assert budget.refusal(1, now).why.code == "clock"
            clock.hear(WallTime(MIDNIGHT + now), now)
    assert all(found <= per_day for found in by_day.values())
    assert per_month is None or all(found <= per_month for found in by_month.values())
