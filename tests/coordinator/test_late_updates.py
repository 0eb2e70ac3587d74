"""RoundCoordinator and updates that come after their round: dropped or folded in, once, with less weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from late import FOLD, restarted, second_round
from machines import (
    HASH,
    PARAMS,
    accumulator_of,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    make_update,
    open_round,
    report,
    round_in,
    run_out,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.events import ReloadedLate, SaveLate
from edgefl.coordinator.updates import reception
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Publish, Tick
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.protocol.update_header import UpdateHeader
from edgefl.strategies.local import LocalRule
from edgefl.strategies.pre.staleness import stale_weight

# The weight


def test_stale_weight_is_the_polynomial_to_the_nearest_integer():
    for n in (1, 2, 3, 10, 600, 12345, 2**24):
        for s in range(20):
            assert stale_weight(n, s) == max(1, math.floor(n / math.sqrt(1 + s) + 0.5)), (n, s)
        assert stale_weight(n, 0) == n
    assert stale_weight(0, 3) == 0  # which no accumulator takes


def test_a_late_update_moves_the_model_by_its_share():
    coordinator = open_round("a", "b", "c", **FOLD)
    report(coordinator, "a", blob=make_update(0.0))
    commit_of(feed(coordinator, Tick(), now=60.0))
    report(coordinator, "b", blob=make_update(1.0, num_examples=400), now=61.0)  # of round 1, one version behind
    report(coordinator, "a", blob=make_update(0.5, num_examples=600), round=2, version=1, now=62.0)
    out = feed(coordinator, Tick(), now=120.0)
    stale = stale_weight(400, 1)  # 283: as if the other 117 examples had reported no change
    moved = (600 * 0.5 + stale * 1.0) / 1000
    np.testing.assert_allclose(commit_of(out).params - PARAMS, moved, rtol=1e-6, atol=1e-7)


# Folding


def test_without_a_policy_nothing_late_counts():
    coordinator = open_round("a", "b", goal=1, min_reports=1)
    assert round_in(report(coordinator, "a")).late_rounds == 0
    before = accumulator_of(coordinator)
    assert report(coordinator, "b") == []
    assert (accumulator_of(coordinator), coordinator.late) == (before, 2)


def test_a_late_update_is_folded_in_and_the_receipt_and_the_record_say_so():
    coordinator = second_round("a", "b", "c")
    out = report(coordinator, "b", blob=make_update(1.0, num_examples=100), now=2.0)
    assert word_to(out, "b") == Receipt(1, 1, "counted", folded=2)
    assert commit_of(out) is None  # it is no report of this round: neither goal nor minimum
    record = commit_of(report(coordinator, "c", round=2, version=1, now=3.0)).record
    assert (record.reported, record.devices, record.folded) == (2, ["c"], [("b", 1)])
    assert (record.num_examples, record.bytes_down) == (105, 200)
    assert record.traffic.keys() == {"b", "c"}


def test_the_round_tells_devices_how_long_an_update_counts():
    assert round_in(feed(make_coordinator(**FOLD), status("a"), Connected())).late_rounds == 2


def test_i01_a_late_update_counts_once_however_often_it_comes():
    coordinator = second_round("a", "b", "c")
    report(coordinator, "b", now=2.0)
    before = accumulator_of(coordinator)
    out = report(coordinator, "b", blob=make_update(9.0), now=3.0)
    assert (accumulator_of(coordinator), word_to(out, "b")) == (before, Receipt(1, 1, "counted", folded=2))
    commit_of(report(coordinator, "c", round=2, version=1, now=4.0))
    before = accumulator_of(coordinator)  # of round 3
    out = report(coordinator, "b", now=5.0)
    assert (accumulator_of(coordinator), word_to(out, "b")) == (before, Receipt(1, 1, "counted", folded=2))


def test_i01_an_update_that_counted_in_time_never_counts_again():
    coordinator = second_round("a", "b")
    before = accumulator_of(coordinator)
    out = report(coordinator, "a", blob=make_update(5.0), now=2.0)  # the receipt was lost
    assert (accumulator_of(coordinator), word_to(out, "a")) == (before, Receipt(1, 1, "counted", folded=1))


def test_a_device_may_report_late_and_in_time():
    coordinator = second_round("a", "b")
    report(coordinator, "b", now=2.0)
    record = commit_of(report(coordinator, "b", round=2, version=1, now=3.0)).record
    assert (record.devices, record.folded, record.reported) == (["b"], [("b", 1)], 2)


def test_i02_late_or_in_time_the_order_does_not_matter():
    sums = []
    for order in ([0, 1], [1, 0]):
        coordinator = second_round("a", "b", "c")
        coordinator.tally.goal = None
        updates = [("b", {"blob": make_update(0.3)}), ("c", {"blob": make_update(-2.0), "round": 2, "version": 1})]
        for device, update in (updates[i] for i in order):
            report(coordinator, device, now=2.0, **update)
        sums.append(accumulator_of(coordinator))
    assert sums[0] == sums[1]


# What is refused


def test_i03_what_is_too_old_changes_nothing():
    coordinator = second_round("a", "b", "c")
    for number in (2, 3):
        commit_of(report(coordinator, "a", round=number, version=number - 1, now=float(number)))
    before = accumulator_of(coordinator)
    assert report(coordinator, "b", now=9.0) == []  # round 1, and round 4 is open
    assert (accumulator_of(coordinator), coordinator.late) == (before, 2)
    assert word_to(report(coordinator, "b", round=2, version=1, now=9.0), "b").folded == 4


@pytest.mark.parametrize("foreign", [{"version": 1}, {"federation": HASH ^ 1}, {"codec": 2}])
def test_i03_a_late_update_of_another_model_changes_nothing(foreign):
    coordinator = second_round("a", "b", "c")
    before = accumulator_of(coordinator)
    report(coordinator, "b", now=2.0, **foreign)
    assert (accumulator_of(coordinator), coordinator.dropped["b"]) == (before, 2)


def test_i03_a_late_update_of_a_device_that_was_not_asked_changes_nothing():
    coordinator = make_coordinator(**(FOLD | {"fraction": 0.5, "goal": 1}))
    feed(coordinator, *map(status, "abcd"))
    first, second = round_in(feed(coordinator, Connected())).cohort
    commit_of(report(coordinator, first))
    before = accumulator_of(coordinator)
    outsider = next(d for d in "abcd" if d not in (first, second))
    out = report(coordinator, outsider, now=2.0)
    assert word_to(out, outsider).outcome == "rejected" and "not asked in round 1" in out[0].text
    assert accumulator_of(coordinator) == before
    assert word_to(report(coordinator, second, now=2.0), second).folded == 2


def test_i07_a_late_update_of_a_round_that_was_opened_again_with_another_model_has_a_receipt():
    coordinator = second_round("a", "b", "c")
    before = accumulator_of(coordinator)
    out = feed(coordinator, *update_parts("b", round=1, version=7), now=2.0)
    word = word_to(out, "b")
    assert (word.round, word.outcome, word.version) == (1, "rejected", 7) and "another model" in word.reason
    assert accumulator_of(coordinator) == before
    out = report(coordinator, "b", now=3.0)  # the device has trained again
    assert word_to(out, "b") == Receipt(1, 1, "counted", folded=2)
    out = feed(coordinator, *update_parts("b", round=1, version=7), now=4.0)  # a broker has repeated the first
    assert word_to(out, "b") == Receipt(1, 1, "counted", folded=2)


def test_i07_an_old_part_does_not_end_an_update_that_is_under_way():
    coordinator = second_round("a", "b", "c")
    feed(coordinator, update_parts("b")[0], now=2.0)
    assert word_to(feed(coordinator, update_parts("b", version=7)[0], now=2.1), "b") is None
    assert word_to(feed(coordinator, update_parts("b")[1], now=2.2), "b").outcome == "counted"


def test_updates_of_a_round_whose_mean_is_not_finite_are_in_no_model(monkeypatch):
    coordinator = open_round("a", "b", **FOLD)
    monkeypatch.setattr(coordinator.strategy, "finish", lambda: np.full(len(PARAMS), np.inf, np.float32))
    report(coordinator, "a")
    record = commit_of(report(coordinator, "b")).record
    assert (record.state, record.version) == ("abandoned", 0)
    assert word_to(report(coordinator, "a", now=2.0), "a").folded == 2  # counted now, not then


def test_i16_a_bad_late_update_is_rejected_and_its_device_is_still_waited_for():
    coordinator = second_round("a", "b")
    before = accumulator_of(coordinator)
    out = report(coordinator, "b", blob=make_update()[:-4], now=2.0)
    assert word_to(out, "b").outcome == "rejected"
    assert accumulator_of(coordinator) == before
    assert "b" in coordinator.tally.waiting


def between_rounds():
    """Round 1 was closed by a, and round 2 opens at 100 s."""
    coordinator = open_round("a", "b", goal=1, interval_s=100.0, **FOLD)
    report(coordinator, "a", now=1.0)
    assert (coordinator.phase, coordinator.round) == ("waiting", 2)
    return coordinator


def test_a_late_update_that_comes_while_no_round_is_open_is_kept_for_the_next_one():
    """Rounds may be so short, and so far apart, that an update over a slow link never comes while one is open."""
    coordinator = between_rounds()
    first, second = update_parts("b")
    feed(coordinator, first, now=2.0)
    asked = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert word_to(asked, "b") == Missing(1, [1]), "a part that got lost is asked for"
    out = feed(coordinator, second, now=30.0)
    (saved,) = [action for action in out if isinstance(action, SaveLate)]
    assert word_to(out, "b") == Receipt(1, 1, "counted", folded=2)
    assert isinstance(out[-1], Publish) and out.index(saved) < len(out) - 1, "it is saved before its receipt"
    assert word_to(report(coordinator, "b", now=31.0), "b") == Receipt(1, 1, "counted", folded=2), "and again"
    feed(coordinator, Tick(), now=100.0)
    feed(coordinator, ReloadedLate([saved.update]), now=100.0)
    assert list(coordinator.tally.folded) == [("b", 1)]
    assert word_to(report(coordinator, "b", now=101.0), "b") == Receipt(1, 1, "counted", folded=2)


@pytest.mark.parametrize("blob", [b"x" * 100, make_update()[:-1]])
def test_i16_a_late_update_between_rounds_that_is_not_valid_is_rejected_and_not_kept(blob):
    out = report(between_rounds(), "b", blob=blob, now=2.0)
    assert word_to(out, "b").outcome == "rejected"
    assert not any(isinstance(action, SaveLate) for action in out)


# Parts


def test_parts_that_came_in_time_are_not_lost_when_the_round_closes():
    coordinator = open_round("a", "b", goal=1, **FOLD)
    parts = update_parts("b", part_bytes=1024)
    feed(coordinator, *parts[:2], now=1.0)
    commit_of(report(coordinator, "a", now=2.0))
    assert coordinator.wake_at == 6.0
    assert word_to(feed(coordinator, Tick(), now=6.0), "b") == Missing(1, [2, 3])
    assert word_to(feed(coordinator, *parts[2:], now=7.0), "b").folded == 2


def test_i13_parts_of_late_updates_make_room(monkeypatch):
    monkeypatch.setattr(reception, "BUDGET_BYTES", 5000)
    coordinator = second_round("a", "b", "c")
    late, fresh = update_parts("b", part_bytes=1024), update_parts("c", round=2, version=1, part_bytes=1024)
    feed(coordinator, *late[:3], now=2.0)
    feed(coordinator, *fresh[:3], now=2.0)
    assert coordinator.reception.closed.get(1).intake.buffered == 0
    assert commit_of(feed(coordinator, fresh[3], now=3.0))


def test_a_device_that_goes_on_to_a_newer_round_is_not_asked_for_the_older_ones_parts():
    coordinator = second_round("a", "b", "c")
    feed(coordinator, update_parts("b", part_bytes=1024)[0], now=2.0)
    feed(coordinator, update_parts("b", round=2, version=1, part_bytes=1024)[0], now=3.0)
    assert word_to(feed(coordinator, Tick(), now=8.0), "b") == Missing(2, [1, 2, 3])


# Abandoned rounds, restarts


def abandoned_round():
    """Round 2 after round 1 had one report of two."""
    coordinator = open_round("a", "b", **(FOLD | {"min_reports": 2}))
    report(coordinator, "a", blob=make_update(1.0))
    record = commit_of(run_out(coordinator)).record
    assert record.state == "abandoned"
    return coordinator, record


def test_an_update_of_an_abandoned_round_comes_again_and_counts_in_full():
    coordinator, _ = abandoned_round()
    out = report(coordinator, "a", blob=make_update(1.0), now=61.0)
    assert word_to(out, "a") == Receipt(1, 1, "counted", folded=2)
    assert coordinator.strategy.combine.accumulator.weight == 5
    np.testing.assert_allclose(coordinator.strategy.combine.accumulator.mean(), 1.0)  # the model has not moved since
    report(coordinator, "b", blob=make_update(1.0), round=2, now=62.0)
    commit = commit_of(report(coordinator, "a", blob=make_update(1.0), round=2, now=62.0))
    assert (commit.record.folded, commit.record.reported) == ([("a", 1)], 3)


def test_i01_what_was_folded_into_an_abandoned_round_may_be_folded_again():
    coordinator, _ = abandoned_round()
    report(coordinator, "a", now=481.0)
    run_out(coordinator)
    assert (coordinator.round, coordinator.version) == (3, 0)
    assert word_to(report(coordinator, "a", now=999.0), "a").folded == 3


def test_i01_i19_a_restart_forgets_nobody_who_counted():
    first = second_round("a", "b", "c")
    records = [RoundRecord(1, "committed", 1, 1, ["a"], 5, 0.5, 0, 0, 0.0)]
    report(first, "b", now=2.0)
    records.append(commit_of(report(first, "c", round=2, version=1, now=3.0)).record)
    coordinator = restarted(first, records)
    feed(coordinator, *map(status, "abc"), Connected())
    before = accumulator_of(coordinator)
    assert word_to(report(coordinator, "b"), "b") == Receipt(1, 2, "counted", folded=2)
    assert word_to(report(coordinator, "a"), "a") == Receipt(1, 2, "counted", folded=1)
    assert word_to(report(coordinator, "c", round=2, version=1), "c") == Receipt(2, 2, "counted", folded=2)
    assert accumulator_of(coordinator) == before
    assert word_to(report(coordinator, "a", round=2, version=1), "a") == Receipt(2, 2, "counted", folded=3)


def test_i01_what_was_folded_but_not_committed_may_come_again():
    first = second_round("a", "b", "c")
    report(first, "b", now=2.0)
    coordinator = restarted(first, [RoundRecord(1, "committed", 1, 1, ["a"], 5, 0.5, 0, 0, 0.0)])
    feed(coordinator, *map(status, "abc"), Connected())
    assert word_to(report(coordinator, "b"), "b") == Receipt(1, 2, "counted", folded=2)
    assert (coordinator.tally.reports, len(coordinator.tally.folded)) == (0, 1)


@pytest.mark.parametrize("rule", ["list", "draw"])
def test_i03_a_restart_knows_whom_earlier_rounds_asked(rule):
    config = FOLD | {"fraction": 0.5, "goal": 1, "min_reports": 1, "cohort": rule}
    devices = [f"d{i}" for i in range(10)]
    first = make_coordinator(**config)
    feed(first, *map(status, devices))
    message = round_in(feed(first, Connected()))
    insider, other, *_ = [d for d in devices if message.asks(d)]
    outsider = next(d for d in devices if not message.asks(d))
    record = commit_of(report(first, insider)).record
    coordinator = restarted(first, [record], **config)
    feed(coordinator, *map(status, devices), Connected())
    assert "not asked in round 1" in word_to(report(coordinator, outsider), outsider).reason
    assert word_to(report(coordinator, other), other).folded == 2


def test_i11_a_device_with_something_of_its_own_is_not_told_too_late_while_a_later_round_may_add_its_update():
    """A round that only evaluates is open: it adds no late update, and the next one does."""
    manifest = make_manifest(holdout=0.2, local=LocalRule("rule"))
    coordinator = second_round("a", "b", manifest=manifest, evaluate_every=2)
    assert coordinator.snapshot().round == 2
    out = report(coordinator, "b", blob=make_update(1.0), now=2.0)
    assert word_to(out, "b") is None
    assert word_to(report(coordinator, "a", blob=make_update(5.0), now=2.0), "a") == Receipt(1, 1, "counted", folded=1)
    scores = UpdateHeader(0, 0, 0.0, 0, 100, 5, 0.5, 0.5).to_bytes()
    out = report(coordinator, "a", blob=scores, round=2, version=1, now=3.0)
    assert round_in(out).round == 3
    assert word_to(out, "b") == Missing(1, [0])
    out = report(coordinator, "b", blob=make_update(1.0), now=4.0)
    assert word_to(out, "b") == Receipt(1, 1, "counted", folded=3)
