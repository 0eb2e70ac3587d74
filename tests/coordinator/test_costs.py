"""What a model has cost until it was there."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import UsageError
from edgefl.history import History
from edgefl.history_costs import Cost, costs, duration, energy
from edgefl.history_record import RoundRecord


def record(number: int, accuracy: float, **more) -> RoundRecord:
    usual = dict(
        round=number, state="committed", version=number, reported=3, devices=["a", "b", "c"], num_examples=30,
        train_loss=1.0, bytes_up=1000, bytes_down=3000, seconds=10.0, accuracy=accuracy,
    )  # fmt: skip
    return RoundRecord(**(usual | more))


def test_a_simulated_cost_has_the_waiting_and_the_energy_in_it():
    rounds = [record(n, n / 10, elapsed_s=100.0 * n, joules=(1.0, 2.0)) for n in range(1, 6)]
    history = History(np.zeros(1), rounds)
    assert history.cost_to(0.25) == Cost(3, 3000, 9000, 300.0, (3.0, 6.0))
    assert history.cost_to(0.9) is None
    assert (history.rounds_to(0.25), history.final.joules, history.final.elapsed_s) == (3, (5.0, 10.0), 500.0)
    assert str(history.cost_to(0.25)) == "3.00 kB up, 9.00 kB down, 5 min, 3 to 6 J"


def test_a_real_cost_goes_by_the_aggregator_s_clock_or_by_the_rounds():
    timed = [record(n, n / 10, closed_at=1_700_000_000 + 60 * n) for n in range(1, 4)]
    assert [cost.seconds for cost in costs(timed)] == [10.0, 70.0, 130.0]
    assert [cost.seconds for cost in costs([record(n, 0.1) for n in range(1, 4)])] == [10.0, 20.0, 30.0]
    assert [cost.joules for cost in costs(timed)] == [None] * 3


def test_a_refused_model_is_no_model():
    rounds = [record(1, 0.9, state="refused", version=0), record(2, 0.8)]
    found = History(np.zeros(1), rounds).cost_to(0.5)
    assert found is not None and found.round == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (119, "119 s"), (150, "2.5 min"), (9000, "2.5 h"), (2e5, "2.31 d")]
)
def test_durations_have_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("joules", "text"),
    [((1, 1), "1 J"), ((0.2, 30), "0.2 to 30 J"), ((900, 2000), "0.9 to 2 kJ"), ((0, 2e6), "0 to 2 MJ")],
)
def test_ranges_of_joules_have_the_unit_that_fits(joules, text):
    assert energy(*joules) == text


@pytest.mark.parametrize(
    ("against", "places"), [("megabytes", [0.004, 0.008]), ("hours", [0.5, 1.0]), ("joules", [1.5, 3.0])]
)
def test_accuracy_is_drawn_against_what_it_cost(against, places):
    rounds = [record(n, n / 10, elapsed_s=1800.0 * n, joules=(1.0, 2.0)) for n in (1, 2)]
    (axes,) = History(np.zeros(1), rounds).plot(against=against).axes
    assert axes.lines[0].get_xydata().tolist() == [[places[0], 0.1], [places[1], 0.2]]


def test_an_axis_that_nothing_is_known_of_is_refused():
    history = History(np.zeros(1), [record(1, 0.1)])
    with pytest.raises(UsageError, match="world"):
        history.plot(against="joules")
    with pytest.raises(UsageError, match="did you mean 'hours'"):
        history.plot(against="hour")
