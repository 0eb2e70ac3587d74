"""Asynchronous rounds by hand: buffers that close at their goal, whatever round their updates are of."""

from __future__ import annotations

import numpy as np
import pytest
from machines import (
    P,
    accumulator_of,
    commit_of,
    feed,
    make_coordinator,
    make_update,
    open_round,
    report,
    run_out,
    status,
    word_to,
)

from edgefl.coordinator.events import LateUpdate, ReloadedLate
from edgefl.errors import UsageError
from edgefl.machine import Tick
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.strategies.pre.staleness import stale_weight

ASYNC = {"mode": "async", "goal": 2, "late_rounds": 3, "min_reports": 1, "deadline_s": 60}


def test_async_closes_at_the_goal_whatever_round_updates_are_of():
    coordinator = open_round("a", "b", "c", "d", **ASYNC)
    report(coordinator, "a", blob=make_update(0.0))
    first = commit_of(report(coordinator, "b", blob=make_update(0.0))).record
    report(coordinator, "c", now=2.0)
    second = commit_of(report(coordinator, "a", round=2, version=1, now=3.0)).record
    third = commit_of(
        [*report(coordinator, "d", now=4.0), *report(coordinator, "b", round=2, version=1, now=4.0)]
    ).record
    assert (first.devices, first.folded) == (["a", "b"], [])
    assert (second.devices, second.folded) == (["a"], [("c", 1)])
    assert (third.devices, third.folded, third.version) == ([], [("b", 2), ("d", 1)], 3)


def test_async_weighs_by_versions():
    coordinator = open_round("a", "b", "c", "d", **ASYNC)
    for number in (1, 2):
        for device in "ab":
            report(coordinator, device, blob=make_update(0.0), round=number, version=number - 1)
    before = coordinator.params
    report(coordinator, "c", blob=make_update(1.0, num_examples=300), now=2.0)  # two versions behind
    params = commit_of(report(coordinator, "d", blob=make_update(0.0, num_examples=100), round=3, version=2)).params
    np.testing.assert_allclose(params - before, stale_weight(300, 2) / 400, rtol=1e-5)


def test_async_needs_a_goal():
    with pytest.raises(UsageError, match="goal"):
        make_coordinator(mode="async")


def test_i04_async_below_min_reports_is_abandoned():
    coordinator = open_round("a", "b", "c", **(ASYNC | {"min_reports": 2}))
    report(coordinator, "a")
    assert commit_of(run_out(coordinator)).record.state == "abandoned"
    report(coordinator, "a", now=481.0)
    commit = commit_of(report(coordinator, "b", now=481.0))
    assert (commit.record.state, commit.record.folded) == ("committed", [("a", 1), ("b", 1)])
    assert len(commit.params) == P


# One update of a device in a model


def second_async(*devices, **config):
    """Round 2 is open on version 1; the first two devices were in round 1."""
    coordinator = open_round(*devices, **(ASYNC | config))
    for device in devices[:2]:
        report(coordinator, device, blob=make_update(0.0))
    assert coordinator.round == 2
    return coordinator


def test_i01_async_no_commit_has_two_updates_of_one_device():
    """However many rounds it works on: the second one waits on the device for the next round, which asks for it."""
    coordinator = second_async("a", "b", "c", "d", goal=2)
    assert word_to(report(coordinator, "c", now=2.0), "c").folded == 2
    before = accumulator_of(coordinator)
    out = report(coordinator, "c", round=2, version=1, now=3.0)
    assert (out, accumulator_of(coordinator), coordinator.tally.reports) == ([], before, 1)
    out = report(coordinator, "a", round=2, version=1, now=4.0)
    assert (commit_of(out).record.devices, commit_of(out).record.folded) == (["a"], [("c", 1)])
    assert word_to(out, "c") == Missing(2, [0])
    assert word_to(report(coordinator, "c", round=2, version=1, now=5.0), "c") == Receipt(2, 1, "counted", folded=3)


def test_async_a_device_that_counts_in_time_is_held_back_with_a_late_one():
    coordinator = second_async("a", "b", "c", goal=2)
    report(coordinator, "c", round=2, version=1, now=2.0)
    assert report(coordinator, "c", now=3.0) == []
    out = report(coordinator, "b", round=2, version=1, now=4.0)
    assert word_to(out, "c") == Missing(1, [0])


def test_async_its_receipt_is_given_again_to_a_device_that_was_folded_in():
    coordinator = second_async("a", "b", "c", goal=2)
    report(coordinator, "c", now=2.0)
    assert word_to(report(coordinator, "c", now=3.0), "c") == Receipt(1, 1, "counted", folded=2)


def test_async_with_goal_4_one_busy_device_makes_no_model_alone():
    """It once sent four updates of four rounds, and a commit had them only."""
    coordinator = open_round("a", "b", "c", "d", "e", **(ASYNC | {"goal": 4, "late_rounds": 9}))
    for number in range(1, 5):
        for device in "bcde":
            report(coordinator, device, round=number, version=number - 1, now=float(number))
    assert coordinator.round == 5
    for number in range(1, 6):
        assert commit_of(report(coordinator, "a", round=number, version=number - 1, now=10.0)) is None
    assert (coordinator.tally.reports, list(coordinator.tally.folded)) == (1, [("a", 1)])


def test_async_min_reports_means_devices():
    coordinator = open_round("a", "b", "c", **(ASYNC | {"goal": 3, "min_reports": 2, "late_rounds": 9}))
    report(coordinator, "c", now=1.0)
    feed(coordinator, status("a", "lost"), status("b", "lost"), now=2.0)
    assert commit_of(feed(coordinator, Tick(), now=60.0)).record.state == "abandoned"
    feed(coordinator, status("a", boot=2), now=61.0)
    report(coordinator, "c", now=62.0)
    assert report(coordinator, "c", round=2, version=0, now=63.0) == []
    feed(coordinator, status("a", "lost", 2), now=64.0)
    assert commit_of(feed(coordinator, Tick(), now=130.0)).record.state == "abandoned"


def test_async_a_device_whose_late_update_counts_is_not_waited_for():
    coordinator = second_async("a", "b", "c", "d", goal=2, min_reports=2)
    report(coordinator, "c", now=2.0)
    assert "c" not in coordinator.tally.waiting
    feed(coordinator, status("c", "training"), now=2.5)
    assert "c" not in coordinator.tally.waiting
    record = commit_of(report(coordinator, "a", round=2, version=1, now=3.0)).record
    assert "c" not in record.missed


def test_async_of_two_kept_updates_of_one_device_each_model_takes_one():
    coordinator = second_async("a", "b", "c", "d", goal=2, late_rounds=9)
    kept = [LateUpdate("c", number, number - 1, 1, make_update(0.5)) for number in (1, 2)]
    coordinator.step(ReloadedLate(kept), 2.0)
    assert list(coordinator.tally.folded) == [("c", 1)]
    commit = commit_of(report(coordinator, "a", round=2, version=1, now=3.0))
    assert list(commit.drop) == [("c", 1)]
    coordinator.step(ReloadedLate(kept[1:]), 4.0)
    assert list(coordinator.tally.folded) == [("c", 2)]
