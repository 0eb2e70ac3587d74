"""Late updates that are saved: until a commit has them, whatever becomes of rounds and aggregators."""

from __future__ import annotations

import numpy as np
import pytest
from late import restarted, second_round
from machines import (
    PARAMS,
    accumulator_of,
    commit_of,
    feed,
    make_update,
    of,
    open_round,
    report,
    run_out,
    status,
    word_to,
)

from edgefl.coordinator.events import LateUpdate, ReloadedLate, ReloadLate, SaveLate
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Publish
from edgefl.protocol.inbox import Receipt


def saved(actions) -> list[LateUpdate]:
    return [action.update for action in of(actions, SaveLate)]


def test_i06_a_late_update_is_saved_before_its_receipt():
    coordinator = second_round("a", "b", "c")
    out = report(coordinator, "b", blob=make_update(0.3), now=2.0)
    (late,) = saved(out)
    assert (late.device, late.round, late.version, late.blob) == ("b", 1, 0, make_update(0.3))
    assert [type(action) for action in out[-2:]] == [SaveLate, Publish]
    assert saved(report(coordinator, "b", now=3.0)) == []  # it is there


def test_i06_a_commit_forgets_what_went_into_it_and_an_abandoned_round_nothing():
    coordinator = second_round("a", "b", "c")
    (late,) = saved(report(coordinator, "b", now=2.0))
    out = run_out(coordinator)
    assert (commit_of(out).record.state, commit_of(out).drop) == ("abandoned", [])
    assert of(out, ReloadLate)
    feed(coordinator, ReloadedLate([late]), now=998.0)
    commit = commit_of(report(coordinator, "c", round=3, version=1, now=999.0))
    assert (commit.record.folded, commit.drop) == ([("b", 1)], [("b", 1)])
    assert commit.record.traffic["b"] == (0, 0)  # they are in the record of the abandoned round


def test_i06_a_late_update_outlives_its_aggregator_and_counts_once():
    first = second_round("a", "b", "c")
    (late,) = saved(report(first, "b", blob=make_update(1.0), now=2.0))
    expected = accumulator_of(first)
    coordinator = restarted(first, [RoundRecord(1, "committed", 1, 1, ["a"], 5, 0.5, 0, 0, 0.0)])
    assert of(feed(coordinator, *map(status, "abc"), Connected()), ReloadLate)
    feed(coordinator, ReloadedLate([late]))
    assert accumulator_of(coordinator) == expected
    assert word_to(report(coordinator, "b", blob=make_update(1.0)), "b") == Receipt(1, 2, "counted", folded=2)
    assert accumulator_of(coordinator) == expected


def test_a_buffer_that_is_full_with_what_was_saved_closes():
    coordinator = open_round("a", "b", "c", mode="async", goal=2, min_reports=1, late_rounds=2)
    late = [LateUpdate(device, 0, 0, 1, make_update(0.5)) for device in "bc"]
    commit = commit_of(feed(coordinator, ReloadedLate(late)))
    assert commit.drop == commit.record.folded == [("b", 0), ("c", 0)]


def test_a_saved_update_that_can_not_be_used_is_said_and_forgotten():
    coordinator = second_round("a", "b", "c")
    before = accumulator_of(coordinator)
    (note,) = feed(coordinator, ReloadedLate([LateUpdate("b", 1, 0, 1, make_update()[:-4])]))
    assert note.level == "error" and "late update of b, round 1, is dropped" in note.text
    assert accumulator_of(coordinator) == before
    commit = commit_of(run_out(coordinator))
    assert (commit.record.state, commit.drop) == ("abandoned", [("b", 1)])


@pytest.mark.parametrize(("update", "why"), [
    (LateUpdate("b", 1, 0, 2, make_update()), "codec number 2, the manifest says raw32"),
    (LateUpdate("a", 1, 0, 1, make_update()), "has counted in round 1"),
])  # fmt: skip
def test_i01_i03_what_was_saved_is_of_this_codec_and_has_not_counted(update, why):
    coordinator = second_round("a", "b", "c")
    before = accumulator_of(coordinator)
    (note,) = feed(coordinator, ReloadedLate([update]))
    assert why in note.text and accumulator_of(coordinator) == before
    assert coordinator.tally.spoilt == [(update.device, 1)]


def test_what_makes_a_mean_that_is_not_finite_does_so_once(monkeypatch):
    coordinator = second_round("a", "b", "c")
    monkeypatch.setattr(coordinator.strategy, "finish", lambda: np.full(len(PARAMS), np.inf, np.float32))
    report(coordinator, "b", now=2.0)
    commit = commit_of(report(coordinator, "c", round=2, version=1, now=3.0))
    assert (commit.record.state, commit.drop) == ("abandoned", [("b", 1)])


def test_what_was_saved_waits_for_a_round_that_trains():
    coordinator = second_round("a", "b", "c")
    coordinator.phase = "waiting"
    before = accumulator_of(coordinator)
    assert feed(coordinator, ReloadedLate([LateUpdate("b", 1, 0, 1, make_update())])) == []
    assert accumulator_of(coordinator) == before
