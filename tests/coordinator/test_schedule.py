"""When rounds open, as far as time decides."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from machines import TOPICS, feed, make_coordinator, of, report, round_in, status, update_parts

from edgefl.coordinator.events import Commit
from edgefl.errors import UsageError
from edgefl.machine import Connected, Disconnected, Note, Publish, Tick, WallTime
from edgefl.protocol.messages import decode
from edgefl.protocol.round import Round
from edgefl.simulation.hosts.fleet import Fleet
from edgefl.simulation.simulate import simulate


def waiting_after_a_round(interval_s, *, took_s=1.0):
    """A coordinator whose first round opened at 0 and ended at `took_s`, and what it did then."""
    coordinator = make_coordinator(interval_s=interval_s)
    feed(coordinator, status("a"), Connected(), now=0.0)
    return coordinator, report(coordinator, "a", now=took_s)


@pytest.mark.parametrize("interval_s", [0.0, None])
def test_without_an_interval_a_round_opens_as_soon_as_the_one_before_is_committed(interval_s):
    coordinator, out = waiting_after_a_round(interval_s)
    assert round_in(out).round == 2 and coordinator.snapshot().phase == "open"


def test_the_next_round_opens_an_interval_after_the_opening_of_the_last():
    coordinator, out = waiting_after_a_round(60.0)
    assert of(out, Commit) and round_in(out) is None, "the model is committed at once"
    assert coordinator.wake_at == coordinator.snapshot().opens_at == 60.0
    assert round_in(feed(coordinator, Tick(), status("b"), now=59.9)) is None
    opened = round_in(feed(coordinator, Tick(), now=60.0))
    assert opened.round == 2 and coordinator.snapshot().opens_at is None


def test_a_round_longer_than_the_interval_is_followed_at_once():
    _, out = waiting_after_a_round(10.0, took_s=11.0)
    assert round_in(out).round == 2


def test_an_interval_does_not_wake_the_coordinator_once_it_is_over_and_devices_are_missing():
    coordinator, _ = waiting_after_a_round(60.0)
    feed(coordinator, status("a", "lost"), now=10.0)
    feed(coordinator, Tick(), now=61.0)
    assert coordinator.snapshot().phase == "waiting" and coordinator.wake_at > 61.0
    assert round_in(feed(coordinator, status("a", boot=2), now=70.0)).round == 2


def test_a_simulation_keeps_the_interval_that_its_settings_name(monkeypatch):
    """In virtual seconds: the rounds themselves take less than one."""
    ends = []
    run = Fleet.run
    monkeypatch.setattr(
        Fleet, "run", lambda fleet, *args, **kw: (run(fleet, *args, **kw), ends.append(fleet.clock.now))
    )
    for interval_s in (None, 1000.0):
        simulate("mlp:64-10", "digits", devices=2, rounds=3, interval_s=interval_s)
    assert ends[0] < 10.0 and 2000.0 < ends[1] < 2010.0


# A window: 01:00 to 05:00 in Berlin. The machine's clock shows seconds since noon, local time.

NOON = datetime(2026, 6, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
AT_ONE, AT_FIVE = 13 * 3600.0, 17 * 3600.0
WINDOW = {"window": "01:00-05:00", "timezone": "Europe/Berlin", "interval_s": 60.0}


def at_noon(*, trusted=True, **options):
    """A coordinator with a window and a device present, and what it did."""
    coordinator = make_coordinator(**WINDOW | options)
    return coordinator, feed(coordinator, WallTime(NOON, trusted), status("a"), Connected(), now=0.0)


def test_no_round_opens_outside_the_window_and_the_log_says_once_when_it_will():
    coordinator, out = at_noon()
    (note,) = of(out, Note)
    assert note.text == ("outside the window 01:00-05:00 Europe/Berlin: the next round opens at 2026-06-02 01:00 CEST")
    assert round_in(out).state == "waiting"
    assert coordinator.wake_at == coordinator.snapshot().opens_at == AT_ONE
    for minute in range(1, 780):
        assert feed(coordinator, Tick(), WallTime(NOON + 60 * minute), now=60.0 * minute) == []
    assert feed(coordinator, Tick(), now=AT_ONE - 1) == []
    assert round_in(feed(coordinator, Tick(), now=AT_ONE)).state == "open"


def test_an_open_round_goes_on_to_its_end_and_none_opens_after_it():
    coordinator, _ = at_noon()
    feed(coordinator, Tick(), now=AT_ONE)
    feed(coordinator, *update_parts("a"), now=AT_ONE + 1)
    feed(coordinator, Tick(), now=AT_FIVE - 10)
    assert coordinator.snapshot().phase == "open" and coordinator.round == 2
    out = report(coordinator, "a", round=2, version=1, now=AT_FIVE + 30)
    assert of(out, Commit)[0].record.closed_at == NOON + AT_FIVE + 30
    assert coordinator.snapshot().phase == "waiting" and coordinator.wake_at == AT_ONE + 86400
    assert "2026-06-03 01:00" in of(out, Note)[-1].text


def test_within_the_window_the_interval_counts():
    coordinator, _ = at_noon()
    feed(coordinator, Tick(), now=AT_ONE)
    out = report(coordinator, "a", now=AT_ONE + 1)
    assert coordinator.wake_at == AT_ONE + 60.0 and not any("window" in note.text for note in of(out, Note))


def test_an_interval_that_ends_after_the_window_waits_for_the_next_one():
    coordinator, _ = at_noon(interval_s=7200.0)
    feed(coordinator, Tick(), now=AT_FIVE - 3600)
    report(coordinator, "a", now=AT_FIVE - 3500)
    assert coordinator.wake_at == AT_ONE + 86400


def test_without_a_trusted_clock_the_window_stays_closed_and_the_log_says_so():
    coordinator, out = at_noon(trusted=False)
    (note,) = of(out, Note)
    assert "clock is not synchronised" in note.text and note.level == "warning" and coordinator.wake_at is None
    assert of(feed(coordinator, WallTime(NOON + AT_ONE, False), Tick(), now=AT_ONE), Note) == []
    out = feed(coordinator, WallTime(NOON + AT_ONE + 60), now=AT_ONE + 60)
    assert round_in(out).state == "open", "it has been synchronised, and it is time"


def test_a_clock_that_is_set_changes_when_the_next_round_opens():
    coordinator, _ = at_noon()
    out = feed(coordinator, WallTime(NOON + 3600), now=60.0)
    assert coordinator.wake_at == 60.0 + AT_ONE - 3600 and of(out, Note) == [], "it opens at the same time of day"
    assert round_in(feed(coordinator, WallTime(NOON + AT_ONE + 5), now=61.0)).state == "open"


@pytest.mark.parametrize("key, bad", [("window", "1-5"), ("timezone", "Europe/Berlim")])
def test_a_wrong_window_or_time_zone_is_refused_by_name(key, bad):
    with pytest.raises(UsageError, match=f"rounds.{key} is '{bad}'"):
        make_coordinator(**WINDOW | {key: bad})


def test_a_simulation_runs_in_the_window_of_its_virtual_days():
    daily = {"window": "22:00-22:01", "timezone": "UTC", "interval_s": 100.0}
    history = simulate("mlp:64-10", "digits", devices=2, rounds=3, deadline_s=200.0, **daily)
    closed = [datetime.fromtimestamp(record.closed_at, ZoneInfo("UTC")) for record in history.rounds]
    assert [moment.day for moment in closed] == [1, 2, 3] and {moment.hour for moment in closed} == {22}


def rounds_of(actions):
    return [decode(Round, p.payload, 2**16) for p in of(actions, Publish, TOPICS.round)]


def test_a_long_wait_is_announced_once_with_the_model_that_has_been_committed():
    coordinator, out = waiting_after_a_round(3600.0)
    (message,) = rounds_of(out)
    assert (message.state, message.round, message.version, message.cohort) == ("waiting", 2, 1, None)
    assert [type(a) for a in out].index(Commit) < out.index(of(out, Publish, TOPICS.round)[0])
    assert rounds_of(feed(coordinator, Tick(), status("b"), WallTime(NOON), now=60.0)) == []


def test_an_aggregator_that_starts_while_the_window_is_closed_says_that_no_round_is_open():
    """The one before it may have died between its commit and that message."""
    _, out = at_noon(start={"round": 5, "version": 4, "attempt": 3})
    (message,) = rounds_of(out)
    assert (message.state, message.round, message.attempt) == ("waiting", 5, 3)


def test_a_broker_that_comes_back_is_told_again():
    coordinator, _ = at_noon()
    assert [m.state for m in rounds_of(feed(coordinator, Disconnected(), Connected(), now=50.0))] == ["waiting"]


def test_a_short_wait_is_not_worth_a_message_to_every_device():
    coordinator, out = waiting_after_a_round(119.0)
    assert rounds_of(out) == [] and coordinator.snapshot().phase == "waiting"
