"""Presence in the coordinator: whom a round waits for when a device has died and no will says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from machines import commit_of, feed, open_round, report, status, update_parts

from edgefl.history import RoundRecord
from edgefl.machine import Tick


def run_round(coordinator, now):
    """Device a reports at once, and the round ends at its deadline if it has not by then; whether it had to."""
    early = commit_of(report(coordinator, "a", now=now, round=coordinator.round, version=coordinator.version))
    return early is None and commit_of(feed(coordinator, Tick(), now=now + 60.0)) is not None


def test_i07_who_died_unheard_is_waited_for_in_two_rounds_only():
    coordinator = open_round("a", "b", min_reports=1, deadline_s=60)
    waits = []
    for now in range(0, 400, 100):
        feed(coordinator, status("b"), now=now)  # the retained one, again: no sign of life
        waits.append(run_round(coordinator, now))
    assert waits == [True, True, False, False]
    assert coordinator.presence.present() == ["a", "b"]


@pytest.mark.parametrize("sign", [status("b", boot=2), status("b", "training"), update_parts("b", round=1)[0]])
def test_who_shows_itself_is_waited_for_again(sign):
    coordinator = open_round("a", "b", min_reports=1, deadline_s=60)
    assert [run_round(coordinator, now) for now in (0, 100, 200)] == [True, True, False]
    feed(coordinator, sign, now=250)
    run_round(coordinator, 300)
    assert [run_round(coordinator, now) for now in (400, 500, 600)] == [True, True, False]


def test_rounds_that_close_at_their_goal_prove_nothing():
    coordinator = open_round("a", "b", min_reports=1, goal=1, deadline_s=60)
    assert [run_round(coordinator, now) for now in (0, 100, 200)] == [False] * 3
    assert "b" in coordinator.tally.waiting


def test_i07_a_device_that_dies_while_the_broker_is_down_does_not_slow_every_round(
    federation: Callable[..., Federation],
) -> None:
    """A real broker, which keeps the dead device's "ready" over its own restart."""
    with Mosquitto(persistence=True) as broker:
        fleet = federation(broker.url)
        aggregator = fleet.aggregator(rounds={"deadline_s": 1.5, "min_reports": 1})
        dead = fleet.agent("dev-b")
        fleet.agent("dev-a")

        def rounds() -> list[RoundRecord]:
            return aggregator.host.history.rounds

        eventually(lambda: rounds() and rounds()[-1].reported == 2, 10.0)
        broker.kill9()
        dead.die()
        broker.start()
        gone = len(rounds())
        eventually(lambda: [r.devices for r in rounds()[gone:] if r.seconds < 1.0].count(["dev-a"]) >= 3, 15.0)
        assert aggregator.host.machine.presence.is_present("dev-b")
        fleet.close()
