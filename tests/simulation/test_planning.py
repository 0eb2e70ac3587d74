"""`edgefl plan-fleet`: the plan of a round against arithmetic by hand, and against a simulation of the same fleet."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import edgefl
from edgefl import _core
from edgefl.cli.main import main
from edgefl.data import load
from edgefl.errors import UsageError
from edgefl.onnx import zoo
from edgefl.settings import Settings
from edgefl.simulation.devices.world import World
from edgefl.simulation.plan import trials
from edgefl.simulation.plan.planned_bytes import _shortest
from edgefl.simulation.plan.planning import UPDATE_BYTES, Candidate, Ground, balance, estimate, invented
from edgefl.simulation.split.shifts import spread

DEVICES = 40
MODEL = edgefl.load(zoo.from_spec("mlp:64-200-10"))  # 15,010 params
DIGITS = load("digits")


def ground(partition: str = "iid", kind: dict | None = None, **settings) -> Ground:
    kind = {"gflops": 0.01, "link": "3g", "active_watts": [1.0, 2.0]} if kind is None else kind
    data, parts = spread(DIGITS, partition, DEVICES, 0)
    chosen = Settings().replace(**{"rounds.expect": DEVICES, "train.lr": 0.1} | settings)
    return Ground(MODEL, chosen, World.of({"devices": [kind]}, "test"), data, parts)


def near(one: float, other: float, share: float) -> bool:
    return abs(one - other) <= share * other


@pytest.mark.parametrize(
    ("settings", "candidate", "partition", "spread_of_speeds"),
    [
        ({}, Candidate(5, "raw32"), "iid", 0.0),
        ({}, Candidate(2, "auto"), "iid", 0.3),
        ({"rounds.fraction": 0.25}, Candidate(2, "auto"), "iid", 0.0),
        ({"rounds.fraction": 0.1}, Candidate(2, "auto"), "iid", 0.0),
        ({"rounds.goal": 25}, Candidate(5, "raw32"), "iid", 0.5),
        ({"rounds.fraction": 0.25}, Candidate(5, "raw32"), "unbalanced:1", 0.3),
    ],
)
def test_a_plan_is_what_a_simulation_does(settings, candidate, partition, spread_of_speeds):
    """Its devices, messages and state machines are those of a real fleet. Of a model's bytes at a quarter of the fleet,
    a part depends on how training goes on."""
    kind = {"gflops": 0.01, "link": "3g", "active_watts": [1.0, 2.0], "spread": spread_of_speeds}
    fleet = ground(partition, kind, **settings)
    planned, trial = estimate(fleet, candidate), trials.run(fleet, candidate, target=2.0, rounds=30, workers=1)
    expected = planned.over(trial.begin, trial.end)
    assert near(planned.bytes_up, trial.bytes_up, 0.1)
    assert near(expected.bytes_down, trial.bytes_down, 0.25)
    assert near(expected.round_s, trial.round_s, 0.2)
    if "rounds.goal" not in settings:  # where more devices train than count
        assert all(near(one, other, 0.15) for one, other in zip(expected.joules, trial.joules, strict=True))


def test_arithmetic_of_a_round_by_hand():
    fleet = ground(kind={"gflops": 0.02, "up_kbit_s": 80.0, "down_kbit_s": 160.0, "latency_s": 0.5})
    found = estimate(fleet, Candidate(3, "raw32"))
    examples = len(DIGITS.x_train) / DEVICES  # 35.95: 36 in most
    assert found.flops == pytest.approx(3 * _core.plan_flops(MODEL.plan) * 36 * 3)
    assert found.train_s == pytest.approx(found.flops / 0.02e9)
    assert found.bytes_up == 4 * 15_010 + UPDATE_BYTES
    assert 4 * 15_010 < found.bytes_down < 4 * 15_010 + 600
    # Three latencies: the round's message, the model, the update.
    assert found.link_s == pytest.approx(3 * 0.5 + found.bytes_up / 10_000 + found.bytes_down / 20_000)
    assert found.round_s == pytest.approx(found.train_s + found.link_s, rel=0.01) and examples < 36
    assert found.joules == (0.0, 0.0) and found.asked == DEVICES and found.late == 0
    doubled = estimate(fleet, Candidate(6, "raw32"))
    assert doubled.train_s == 2 * found.train_s and doubled.link_s == found.link_s
    assert balance([(Candidate(3, "raw32"), found)]) == pytest.approx(3 * found.link_s / found.train_s)


def test_first_models_weigh_less_the_longer_a_fleet_has_run():
    found = estimate(ground(**{"rounds.fraction": 0.25}), Candidate(1, "auto"))
    assert found.share == 0.25 and found.first.bytes_down > 1.5 * found.bytes_down
    assert found.over(1, 1).bytes_down == found.first.bytes_down
    assert found.over(1, 1).joules == pytest.approx(found.first.joules)
    assert found.later.bytes_down < 0.9 * found.first.bytes_down  # whose steps are finer
    half = found.over(2, 2)
    assert half.bytes_down == pytest.approx(0.75 * found.later.bytes_down + 0.25 * found.bytes_down)
    assert half.round_s == pytest.approx(found.later.round_s, rel=1e-6)  # of ten devices, one is new almost surely
    assert found.over(60, 80).bytes_down == pytest.approx(found.bytes_down, rel=1e-4)


def test_a_goal_leaves_out_the_slowest_and_no_round_waits_for_devices_ten_times_slower():
    kind = {"gflops": 0.001, "spread": 0.5}
    all_of_them, goal = (
        estimate(ground(kind=kind, **more), Candidate(5, "raw32")) for more in ({}, {"rounds.goal": 20})
    )
    assert goal.round_s < 0.6 * all_of_them.round_s
    assert goal.round_s == pytest.approx(goal.train_s + goal.link_s, rel=0.2)  # half of them: the median device
    uneven = estimate(ground("unbalanced:2", kind), Candidate(5, "raw32"))
    assert 0 < uneven.late < 0.4
    with pytest.raises(UsageError, match="no device reports within the deadline of 3 s"):
        estimate(ground(kind={"gflops": 1e-5}, **{"rounds.deadline_s": 3.0}), Candidate(5, "raw32"))


def test_a_smaller_share_of_the_fleet_fetches_more_each_time_and_less_in_all():
    whole, some = (estimate(ground(**{"rounds.fraction": part}), Candidate(1, "auto")) for part in (1.0, 0.1))
    assert some.asked == 4 and whole.asked == DEVICES
    assert whole.bytes_down < some.bytes_down < 10 * whole.bytes_down


def test_what_cannot_be_planned():
    with pytest.raises(UsageError, match="asynchronous rounds"):
        estimate(ground(**{"rounds.mode": "async", "rounds.goal": 5, "rounds.late": "fold"}), Candidate(1, "raw32"))
    with pytest.raises(UsageError, match="no epochs"):
        estimate(ground(**{"strategy.name": "fedsgd"}), Candidate(1, "raw32"))


def test_the_shortest_way_to_the_newest_version():
    def step(version, keyframe, delta):
        return SimpleNamespace(frame=SimpleNamespace(version=version), keyframe=b"x" * keyframe, delta=b"x" * delta)

    steps = [step(0, 100, 0), step(5, 0, 20), step(7, 0, 30)]
    assert _shortest(steps, {7}) == (0, 0)
    assert _shortest(steps, {6, 5}) == (30, 1)
    assert _shortest(steps, {3, 0}) == (50, 2)
    assert _shortest(steps, {4}) == (150, 3)
    assert _shortest([*steps[:2], step(7, 25, 30)], {0}) == (25, 1)


def test_a_trial_ends_at_its_target():
    trial = trials.run(ground(), Candidate(5, "raw32"), target=0.8, rounds=40, workers=1)
    assert trial.reached and 0.8 <= trial.best < 0.95 and 2 <= trial.cost.round < 20
    assert trial.cost.bytes_up > 0 and trial.cost.joules[1] > trial.cost.joules[0] > 0
    never = trials.run(ground(), Candidate(1, "raw32"), target=1.1, rounds=2, workers=1)
    assert not never.reached and never.cost.round == 2


@pytest.mark.parametrize("spec", ["mlp:64-10", "mcmahan:char-lstm"])
def test_examples_can_be_invented_for_a_model(spec):
    model = edgefl.load(zoo.from_spec(spec))
    data, parts = invented(model.plan, 1000, 20)
    assert len(data.x_train) == 200 and len(parts) == 1000 and {len(part) for part in parts} == {20}
    result = edgefl.Trainer(model.plan).fit(model.params, data.x_train[:4], data.y_train[:4], lr=0.1)
    assert np.isfinite(result.loss) and np.any(result.delta)


def test_the_command(capsys):
    words = ["plan-fleet", "--model", "mlp:64-32-10", "--devices", "10", "--device", "pi-4", "--link", "64/128"]
    assert main([*words, "--epochs", "1,4", "--codecs", "raw32,ecq:step=4,sparse=3", "--examples", "30"]) == 2
    assert "no option 'sparse'" in capsys.readouterr().err
    assert main([*words, "--epochs", "1,4", "--codecs", "raw32,ecq:step=4", "--examples", "30"]) == 0
    shown = capsys.readouterr().out
    assert "fleet: 10 devices, 30 examples each, invented" in shown
    assert "raw32: training takes as long as the link at" in shown and "9.73 kB" in shown
    trial = ["--data", "digits", "--epochs", "5", "--codecs", "raw32", "--target", "0.5", "--rounds", "15"]
    assert main([*words, *trial]) == 0
    shown = capsys.readouterr().out
    assert "to an accuracy of 0.5, simulated:" in shown and "soonest: 5 epochs, raw32:" in shown
    assert main([*words, *trial, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["candidates"]
    assert row["candidate"] == {"epochs": 5, "codec": "raw32"} and row["simulated"]["reached"]
    assert found["devices"] == 10 and found["params"] == 2410


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--epochs", "1,0"], "whole numbers from 1 to 10000"),
        (["--link", "fast/slow"], "kilobits a second up and down"),
        (["--link", "wlan"], "no link is called 'wlan'"),
        (["--device", "pi-9"], "no board is called 'pi-9': did you mean"),
        (["--devices-file", "a.toml", "--link", "wifi"], "leave out --device and --link"),
        (["--data", "digits", "--examples", "3"], "for a plan without data"),
        (["--data", "digits?test=0"], "no test part"),
        (["--codecs", "row32"], "did you mean 'raw32'"),
    ],
)
def test_wrong_use(words, problem, capsys):
    assert main(["plan-fleet", "--model", "mlp:64-10", "--devices", "10", *words]) == 2
    assert problem in capsys.readouterr().err


def test_side_vectors_go_down_with_the_model():
    """SCAFFOLD's c is as long as the params. It starts at 0, so the first model has little of it."""
    fleet = ground(**{"strategy.name": "scaffold"})
    planned = estimate(fleet, Candidate(2, "raw32"))
    assert 2 * 4 * 15_010 < planned.bytes_down < 2 * 4 * 15_010 + 600 and planned.bytes_up == 4 * 15_010 + UPDATE_BYTES
    trial = trials.run(fleet, Candidate(2, "raw32"), target=2.0, rounds=4, workers=1)
    assert near(planned.over(trial.begin, trial.end).bytes_down, trial.bytes_down, 0.02)
    coded = estimate(fleet, Candidate(2, "auto"))
    trial = trials.run(fleet, Candidate(2, "auto"), target=2.0, rounds=20, workers=1)
    assert near(coded.over(trial.begin, trial.end).bytes_down, trial.bytes_down, 0.4)
