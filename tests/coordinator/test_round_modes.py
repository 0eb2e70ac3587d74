"""Whole simulated runs in every mode of rounds: which devices are asked, what late ones do, how fast it learns."""

from __future__ import annotations

import pytest

from edgefl.data import load as load_data
from edgefl.errors import UsageError
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.simulation.simulate import simulate

TARGET = 0.92


@pytest.fixture(scope="module")
def run():
    """A run on digits, every fifth training thirty times as long, until TARGET."""
    model, data = load(zoo.from_spec("mlp:64-32-10")), load_data("digits")

    def run(**options):
        defaults = {"devices": 40, "rounds": 300, "partition": "dirichlet:0.3", "epochs": 2, "lr": 0.1, "workers": 2}
        defaults |= {"faults": "straggler:0.2:30", "target_accuracy": TARGET, "seed": 1}
        settings = defaults | options
        history = simulate(model, data, **settings)
        assert history.final.accuracy >= settings["target_accuracy"]
        return history

    return run


@pytest.fixture(scope="module")
def sync(run):
    return run()


@pytest.mark.parametrize("goal", [5, 10, 20])
def test_async_learns_in_a_quarter_of_the_time_that_waiting_for_stragglers_takes(run, sync, goal):
    history = run(mode="async", goal=goal, late_rounds=100)
    assert history.final.seconds < sync.final.seconds / 4
    assert {record.reported for record in history.rounds} == {goal}
    stale = [record.round - own for record in history.rounds for _, own in record.folded]
    assert max(stale) > 5  # stragglers' work is not lost
    counted = [(device, record.round) for record in history.rounds for device in record.devices]
    counted += [update for record in history.rounds for update in record.folded]
    assert len(counted) == len(set(counted))  # I01


def test_over_selection_does_not_wait_for_stragglers(run):
    waiting = run(fraction=0.25)
    quick = run(fraction=0.25, over_select=1.5)
    assert quick.final.seconds < waiting.final.seconds / 2
    assert {record.reported for record in quick.rounds} == {10}


def test_drawn_cohorts_learn_as_listed_ones_do(run):
    history = run(fraction=0.25, cohort="draw")
    sizes = [record.reported for record in history.rounds]
    assert len(set(sizes)) > 2 and 7 <= sum(sizes) / len(sizes) <= 13


def test_folded_updates_are_counted_on_top(run):
    history = run(fraction=0.25, over_select=1.5, late="fold", late_rounds=10)
    assert all(6 <= len(record.devices) <= 10 for record in history.rounds)  # a quarter of those worth waiting for
    assert sum(len(record.folded) for record in history.rounds) > len(history.rounds) / 2
    assert max(record.round - own for record in history.rounds for _, own in record.folded) <= 10


def test_a_run_repeats_with_any_number_of_workers(run):
    options = {"mode": "async", "goal": 5, "late_rounds": 100, "target_accuracy": 0.5}
    first, again = (run(**options, workers=workers).to_json() for workers in (1, 3))
    assert first == again


@pytest.mark.parametrize(
    "wrong", [{"mode": "lazy"}, {"over_select": 0.5}, {"late_rounds": 0}, {"goal": 0}, {"gaol": 1}]
)
def test_settings_that_make_no_sense_are_refused(run, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        run(**wrong)
