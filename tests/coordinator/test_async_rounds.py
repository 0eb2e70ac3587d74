"""Asynchronous rounds by hand: buffers that close at their goal, whatever round their updates are of."""

from __future__ import annotations

import numpy as np
import pytest
from machines import P, commit_of, make_coordinator, make_update, open_round, report, run_out

from edgefl.errors import UsageError
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
