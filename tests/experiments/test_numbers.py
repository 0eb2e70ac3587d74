"""Intervals, and what a curve comes to: at its end, under a budget, until a target."""

from __future__ import annotations

import math

import pytest

from edgefl.experiments.intervals import mean, paired, t975
from edgefl.experiments.results import Curve, at_end, cost_to, quality, total, under
from edgefl.experiments.tables import number, score, table

CURVE = Curve(
    rounds=[1, 2, 3, 4],
    megabytes=[1.0, 2.0, 4.0, 8.0],
    hours=[0.1, 0.2, 0.3, 0.4],
    joules=[None] * 4,
    accuracy=[0.2, None, 0.8, 0.6],
    loss=[2.0, None, 0.5, 0.9],
)


def test_intervals_are_those_of_students_t():
    stats = pytest.importorskip("scipy.stats")
    for freedom in [*range(1, 60), 200, 999]:
        assert t975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-4)
    values = [0.91, 0.93, 0.92, 0.97]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    found = mean(dict(enumerate(values)))
    assert (found.value - found.half, found.value + found.half) == pytest.approx((low, high), abs=1e-4)


def test_a_difference_is_paired_by_seed_and_runs_that_are_missing_are_left_out():
    hard_and_easy = {0: 0.5, 1: 0.9, 2: 0.7, 3: math.nan}
    better = {0: 0.52, 1: 0.92, 2: 0.72, 9: 0.1}
    found = paired(better, hard_and_easy)
    assert found.value == pytest.approx(0.02) and found.n == 3
    assert found.half < 1e-9 < mean(better).half  # seeds differ, the difference does not


def test_one_seed_has_no_interval_and_none_has_no_value():
    assert score(mean({0: 0.9}), "accuracy") == "90.00"
    assert score(mean({}), "accuracy") == "–"
    assert score(mean({0: 1.5, 1: 1.5}), "loss", sign=True) == "+1.5000 ±0.0000"


def test_quality_at_the_end_is_over_the_last_rounds_that_have_a_score():
    assert at_end(CURVE, "accuracy", 1) == 0.6
    assert at_end(CURVE, "accuracy", 2) == pytest.approx(0.7)
    assert at_end(CURVE, "accuracy", 9) == pytest.approx(1.6 / 3)
    assert math.isnan(at_end(CURVE, "worst_accuracy", 2))


def test_quality_under_a_budget_sees_no_round_beyond_it():
    assert under(CURVE, "accuracy", "megabytes", 4.0, 1) == 0.8
    assert under(CURVE, "accuracy", "megabytes", 3.9, 1) == 0.2
    assert math.isnan(under(CURVE, "accuracy", "megabytes", 0.5, 1))
    assert math.isnan(under(CURVE, "accuracy", "joules", 1e9, 1))


def test_the_cost_to_a_target_is_that_of_the_first_round_that_reached_it():
    assert cost_to(CURVE, "accuracy", 0.6, "megabytes") == 4.0
    assert cost_to(CURVE, "loss", 1.0, "rounds") == 3
    assert math.isnan(cost_to(CURVE, "accuracy", 0.9, "megabytes"))
    assert total(CURVE, "hours") == 0.4 and math.isnan(total(CURVE, "joules"))


def test_what_is_compared_is_the_test_set_and_without_one_what_devices_hold_out():
    assert quality([CURVE]) == "accuracy"
    assert quality([Curve(accuracy=[None], loss=[1.0], held_loss=[1.0])]) == "loss"
    assert quality([Curve(accuracy=[None], held_accuracy=[0.5])]) == "held_accuracy"


def test_numbers_have_three_digits_and_tables_are_aligned():
    assert [number(value) for value in (0.00123456, 9.999, 12345.6, 0.0, math.nan)] == [
        "0.00123", "10.00", "12346", "0", "–",
    ]  # fmt: skip
    assert table(["a", "x"], [["long", "1"], ["b", "12"]], 1).splitlines() == [
        "| a    |  x |", "|------|---:|", "| long |  1 |", "| b    | 12 |",
    ]  # fmt: skip
