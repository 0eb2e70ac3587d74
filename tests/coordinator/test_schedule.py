"""When rounds open, as far as time decides."""

from __future__ import annotations

import pytest
from machines import feed, make_coordinator, of, report, round_in, status

from edgefl.coordinator.events import Commit
from edgefl.machine import Connected, Tick
from edgefl.simulation.fleet import Fleet
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
