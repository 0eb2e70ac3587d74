"""Proposals for an epsilon, and what a simulation of them shows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edgefl import data
from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.privacy.accountant import Mechanism, epsilon
from edgefl.privacy.correlated import prefix_error
from edgefl.settings import Settings, files
from edgefl.simulation.privacy.rounds import Local, PrivateRounds, stand_ins
from edgefl.simulation.privacy.terms import Goal, _fitted, propose
from edgefl.simulation.split.shifts import spread

pytest.importorskip("dp_accounting")
GOAL = Goal(rounds=12, devices=100, epsilon=4.0, params=2410, cohort=100)


@pytest.mark.parametrize(
    "goal",
    [
        GOAL, replace(GOAL, cohort=10), replace(GOAL, cohort=10, noise="banded"), replace(GOAL, share=0.125),
        replace(GOAL, devices=10_000, cohort=100), replace(GOAL, epsilon=0.1), replace(GOAL, epsilon=40.0),
        replace(GOAL, params=199_210), replace(GOAL, devices=50_000, cohort=50_000, delta=1e-6, params=199_210),
        replace(GOAL, rounds=100_000), replace(GOAL, epsilon=0.01), replace(GOAL, cohort=2, devices=2, params=1),
    ],
)  # fmt: skip
def test_a_proposal_spends_what_is_wanted_and_can_be(goal, tmp_path):
    found = propose(goal)
    terms, noise = found.terms, found.terms.noise
    terms.check()  # helpers would accept it: nothing wraps, noise included
    mechanism = Mechanism(noise.kind, noise.sigma, terms.norm2, noise.separation, max(1, noise.band), goal.rounds)
    spent = epsilon(mechanism.rho(goal.rounds), goal.delta)
    assert 0.999 * goal.epsilon < spent <= goal.epsilon * (1 + 1e-9)
    (tmp_path / "aggregator.toml").write_text(found.to_toml())
    privacy = files.load(tmp_path / "aggregator.toml", Settings).privacy
    told = Mechanism(noise.kind, privacy.sigma, 1, privacy.separation, privacy.band, goal.rounds)
    assert epsilon(told.rho(goal.rounds), privacy.delta) <= privacy.budget, "no digit of sigma is missing"
    assert (privacy.clip, privacy.share, privacy.noise) == (goal.clip, goal.share, noise.kind)


def test_bits_are_as_few_as_cost_two_percent_of_noise():
    found = propose(GOAL)

    def size(bits):
        terms = _fitted(GOAL, found.terms.noise, found.multiplier, bits)
        return math.inf if terms is None else terms.noise.sigma * terms.grid

    assert size(found.terms.bits) <= 1.02 * size(32) < size(found.terms.bits - 1)


def test_more_devices_less_noise_more_rounds_more():
    sizes = [propose(replace(GOAL, devices=n, cohort=n)).in_round for n in (50, 100, 1000)]
    assert all(few > 1.9 * many for few, many in pairwise(sizes))
    assert propose(replace(GOAL, rounds=48)).in_round == pytest.approx(2 * propose(GOAL).in_round, rel=0.03)


def test_devices_that_take_turns_have_correlated_noise_if_that_leaves_less():
    turns = replace(GOAL, rounds=60, devices=1000, cohort=100)
    auto = propose(turns)
    independent = propose(replace(turns, noise="independent"))
    assert auto.terms.noise.kind == "banded" and auto.terms.noise.band <= auto.terms.noise.separation == 10
    assert auto.in_model < 0.6 * independent.in_model and auto.in_round > independent.in_round
    assert auto.in_model == pytest.approx(auto.in_round * prefix_error(auto.terms.noise.band, 60))
    assert propose(GOAL).terms.noise.kind == "independent"


def test_adaptive_clipping_costs_a_hundredth_of_noise_and_independent_noise_alone_has_it():
    plain, found = propose(replace(GOAL, noise="independent")), propose(replace(GOAL, quantile=0.5, clip=3.0, rate=1.0))
    assert found.in_round == pytest.approx(1.01 * plain.in_round, rel=0.02) and found.in_round > plain.in_round
    assert found.terms.noise.kind == propose(replace(GOAL, quantile=0.5, cohort=10)).terms.noise.kind == "independent"
    assert "clip = 3.0\nclip_quantile = 0.5\nclip_rate = 1.0\n" in found.to_toml()
    assert found.in_share == pytest.approx(found.multiplier / (2 * math.sqrt(0.02) * GOAL.cohort), rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"noise": "banded", "cohort": 10, "quantile": 0.5}, "a clip that stays"),
        ({"quantile": 1.0}, "clip_quantile is 1.0: give a number above 0, below 1"),
        ({"cohort": 101}, "cohort is 101"), ({"cohort": 1}, "cohort is 1"), ({"delta": 0.01}, "whole would pass"),
        ({"noise": "banded", "share": 0.5, "cohort": 10}, "share of 1"), ({"epsilon": 0.0}, "epsilon is 0"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        propose(replace(GOAL, **wrong))


@pytest.fixture(scope="module")
def digits():
    model = load(zoo.from_spec("mlp:64-32-10", 0))
    dataset, parts = spread(data.fit_plan(data.load("digits"), model.plan), "iid", 20, 0)
    return model, dataset, parts


def fleet(digits, goal, **more):
    model, dataset, parts = digits
    return PrivateRounds(model.plan, model.params, dataset, parts, propose(goal), local=Local(epochs=2), **more)


@pytest.mark.parametrize(("noise", "share"), [("independent", 1.0), ("banded", 1.0), ("independent", 0.25)])
def test_the_noise_in_the_model_is_what_was_proposed(digits, noise, share):
    """A fleet that learns nothing: all that moves the params is noise, as large after each round as foreseen."""
    goal = Goal(40, 20, 4.0, 2410, 5, delta=1e-3, noise=noise, share=share)
    rounds = fleet(digits, goal)
    rounds._fit = lambda device, round: np.zeros(2410, np.float32)
    start, moved = rounds.params.copy(), []
    for _ in rounds.run():
        moved.append(float(((rounds.params - start) ** 2).sum()))
    assert math.sqrt(np.mean(moved)) == pytest.approx(rounds._proposal.in_model * goal.clip, rel=0.12)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_clip_that_is_ten_times_too_large_comes_down(digits, noisy):
    """A fleet whose updates all have a norm of 1: the clip swings about it, with the noise of 20,000 devices in it."""
    goal = Goal(40, 20_000, 4.0, 2410, 20_000, delta=1e-6, clip=10.0, quantile=0.5)
    rounds = fleet(digits, goal, noisy=noisy)
    rounds._fit = lambda device, round: np.full(2410, 1 / math.sqrt(2410), np.float32)
    list(rounds.run())
    assert rounds.clips[0] == 10.0 and rounds.clips[10] == pytest.approx(10 / math.e, rel=0.02)
    assert all(0.9 < clip < 1.12 for clip in rounds.clips[25:])
    assert len(rounds.clips) == 41


def test_one_device_can_stand_for_many(digits):
    small, large = Goal(3, 20, 4.0, 2410, 20, delta=1e-6), Goal(3, 20_000, 4.0, 2410, 20_000, delta=1e-6)
    sizes = []
    for goal in (small, large):
        rounds = fleet(digits, goal)
        rounds._fit = lambda device, round: np.zeros(2410, np.float32)
        start = rounds.params.copy()
        list(rounds.run())
        sizes.append(float(np.linalg.norm(rounds.params - start)))
    assert sizes[0] / sizes[1] == pytest.approx(1000, rel=0.1)


def test_a_part_of_the_fleet_trains_in_turn_and_the_noise_stays(digits):
    """Five of twenty devices stand for a cohort of twenty: each round the next five."""
    goal, fitted = Goal(6, 20, 4.0, 2410, 20, delta=1e-3), list[tuple[int, int]]()

    def fit(device, round):
        fitted.append((round, device))
        return np.zeros(2410, np.float32)

    lengths = []
    for trained in (5, None):
        rounds = fleet(digits, goal, trained=trained)
        rounds._fit = fit
        start = rounds.params.copy()
        list(rounds.run())
        lengths.append(float(np.linalg.norm(rounds.params - start)))
    assert fitted[: 6 * 5] == [(i // 5 + 1, i % 20) for i in range(30)]
    assert len(fitted) == 6 * 5 + 6 * 20
    assert lengths[0] == lengths[1] > 0


def test_accuracy_is_measured_now_and_then(digits):
    goal = Goal(12, 20, 20.0, 2410, 20, delta=1e-5)
    each = list(fleet(digits, goal).run())
    assert list(fleet(digits, goal).run(every=5)) == [each[4], each[9], each[11]]


def test_accuracy_falls_with_epsilon_and_a_seed_repeats_it(digits):
    goal = Goal(15, 20, 20.0, 2410, 20, delta=1e-5)
    without = list(fleet(digits, goal, noisy=False).run())[-1]
    some, again = (list(fleet(digits, goal).run()) for _ in range(2))
    little = list(fleet(digits, replace(goal, epsilon=1.0)).run())[-1]
    assert some == again
    assert without >= some[-1] > little + 0.1
    assert without > 0.8


def test_rounds_may_send_a_subset(digits):
    goal = Goal(25, 20, 1e4, 2410, 20, delta=1e-5, share=0.25)
    rounds = fleet(digits, goal, noisy=False)
    assert list(rounds.run())[-1] > 0.75


@pytest.mark.parametrize(
    ("devices", "cohort", "simulated"), [(10, 10, 10), (10_000, 10_000, 100), (1000, 100, 100), (30, 10, 30)]
)
def test_at_most_a_hundred_devices_are_simulated(devices, cohort, simulated):
    assert stand_ins(Goal(10, devices, 1.0, 10, cohort)) == simulated


def test_the_command_proposes(capsys):
    assert main(["privacy", "--rounds", "10", "--devices", "1000", "--epsilon", "8", "--params", "199210"]) == 0
    told = capsys.readouterr().out
    assert "epsilon 8, delta 1e-05" in told and "[privacy]" in told and "budget = 8" in told


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--clip 0", "clip is 0.0: give a number above 0"),
        ("--share 0", "share is 0.0"),
        ("--share 2", "share is 2.0"),
        ("--clip-quantile 1", "clip_quantile is 1.0"),
        ("--clip-quantile 0.5 --clip-rate 3", "clip_rate is 3.0"),
        ("--epsilon 0", "epsilon is 0.0"),
        ("--delta 0", "delta is 0.0"),
        ("--cohort 2000", "cohort is 2000"),
        ("--devices 300000 --delta 1e-9", "least is 150000"),
        ("--devices 10000000", "delta is 1e-05 and devices 10000000"),
        ("--devices 3000000 --cohort 2 --delta 1e-9", "separation is 1500000"),
    ],
)
def test_what_no_aggregator_would_run_is_no_proposal(words, text, capsys):
    line = f"privacy --rounds 20 --devices 1000 --epsilon 4 --params 100000 {words}"
    assert main(line.split()) == 2
    assert text in capsys.readouterr().err


def test_the_command_simulates(capsys):
    line = "privacy --rounds 3 --devices 40 --cohort 10 --epsilon 50 --model mlp:64-32-10 --data digits"
    assert main(line.split()) == 0
    told = capsys.readouterr().out
    assert "each in the place of 1:" in told and "accuracy with noise" in told
    assert main([*line.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["accuracy"]["with noise"]) == 3 and found["noise"]["separation"] == 4
    assert (
        main(
            ["privacy", "--rounds", "5", "--devices", "9", "--epsilon", "9", "--params", "9", "--clip-quantile", "0.6"]
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "moves toward quantile 0.6" in told and "clip_quantile = 0.6" in told


def test_a_part_of_the_simulated_devices_may_train_in_a_round(monkeypatch):
    fitted = []
    monkeypatch.setattr(PrivateRounds, "_fit", lambda self, *at: fitted.append(at) or np.zeros(2410, np.float32))
    line = "privacy --rounds 3 --devices 40 --epsilon 50 --model mlp:64-32-10 --data digits --trained"
    for trained, each in (("4", 4), ("99", 40)):
        fitted.clear()
        assert main([*line.split(), trained]) == 0
        assert len(fitted) == 2 * 3 * each


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "give --model, or --params alone"), ("--params 5 --model mlp:4-3-2", "give --model, or --params alone"),
        ("--params 5 --data digits", "give both"), ("--params 5 --cohort 11", "cohort is 11"),
        ("--model mlp:64-10 --data digits:test=0", "test"),
    ],
)  # fmt: skip
def test_the_command_refuses(line, says, capsys):
    assert main(["privacy", *["--rounds", "3", "--devices", "10", "--epsilon", "1"], *line.split()]) == 2
    assert says in capsys.readouterr().err
