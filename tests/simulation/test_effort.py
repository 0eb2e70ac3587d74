"""Every estimate of a device's training time counts all that its local rule trains, and no more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from machines import make_round

import edgefl
from edgefl.checks import training
from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Trainer
from edgefl.data import load
from edgefl.device.events import TrainJob
from edgefl.device.holdout import held_out
from edgefl.device.owner.effort import flops_of, takes, trained_on
from edgefl.device.training import train_update
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.settings import Settings
from edgefl.simulation.devices.world import World
from edgefl.simulation.plan.planning import Candidate, Ground, estimate
from edgefl.simulation.split.shifts import spread

MODEL = edgefl.load(zoo.from_spec("mlp:64-32-10"))
DIGITS = load("digits")
DEVICES = 10
# How many times each example is trained on in a round of two epochs.
TIMES = {
    "fedavg": 2, "fedprox": 2, "scaffold": 2, "ditto": 4, "apfl": 4, "fedrep": 3, "fedrep:head_epochs=4": 6,
    "finetune": 3, "finetune:epochs=3": 5, "fedper": 2, "mime-lite": 3,
}  # fmt: skip
RAW32 = {"codec.name": "raw32", "downlink.name": "raw32", "downlink.span": 1}


def settings(strategy, **changes):
    prox = {"train.prox_mu": 0.1} if strategy == "fedprox" else {}
    return Settings().replace(
        **RAW32 | {"strategy.name": "fedavg" if prox else strategy, "rounds.expect": DEVICES, "train.epochs": 2}
        | prox | changes
    )  # fmt: skip


def manifest(strategy, **changes):
    return make_manifest(settings(strategy, **changes), "pond", "0" * 16, MODEL.plan)


@pytest.mark.parametrize("strategy", TIMES)
def test_what_is_counted_is_what_the_core_is_given(strategy, monkeypatch):
    """The examples of all steps of a device's round."""
    seen, fit, gradient = [], Trainer.fit, Trainer.gradient

    def counting(self, params, x, y, **options):
        made = fit(self, params, x, y, **options)
        batch = options["batch_size"]
        seen.append(len(x) * made.steps / (1 if batch == "all" else -(-len(x) // batch)))
        return made

    def counting_gradient(self, params, x, y):
        seen.append(len(x))
        return gradient(self, params, x, y)

    monkeypatch.setattr(Trainer, "fit", counting)
    monkeypatch.setattr(Trainer, "gradient", counting_gradient)
    asked = manifest(strategy, **{"evaluate.holdout": 0.2})
    params = np.concatenate([MODEL.params, *(np.zeros_like(MODEL.params) for _ in asked.sides)])
    job = TrainJob(asked, make_round(manifest=asked), params_to_bytes(params), 0)
    train_update(Trainer(MODEL.plan, batch=10), job, "a", DIGITS.x_train[:100], DIGITS.y_train[:100])
    n = int((~held_out("a", 100, 0.2)).sum())
    assert sum(seen) == pytest.approx(TIMES[strategy] * n) == trained_on(asked, n)


@pytest.mark.parametrize("strategy", TIMES)
def test_a_simulated_round_lasts_as_long_as_all_its_trainings(strategy):
    def seconds(name):
        world = World.of({"devices": [{"gflops": 1e-4}]}, "test")
        return edgefl.simulate(MODEL, DIGITS, settings(name), devices=DEVICES, rounds=1, world=world).rounds[0].seconds

    assert seconds(strategy) == pytest.approx(TIMES[strategy] / 2 * seconds("fedavg"), rel=0.02)


@pytest.mark.parametrize("strategy", TIMES)
def test_a_plan_has_the_seconds_and_flops_of_all_trainings(strategy):
    def planned(name):
        data, parts = spread(DIGITS, "iid", DEVICES, 0)
        world = World.of({"devices": [{"gflops": 0.01}]}, "test")
        return estimate(Ground(MODEL, settings(name), world, data, parts), Candidate(2, "raw32"))

    found, plain = planned(strategy), planned("fedavg")
    assert found.train_s == pytest.approx(TIMES[strategy] / 2 * plain.train_s)
    assert found.flops == pytest.approx(TIMES[strategy] / 2 * plain.flops)


@pytest.mark.parametrize(("strategy", "steps"), [("fedavg", 20), ("ditto", 40), ("fedrep:head_epochs=3", 50)])
def test_a_check_tells_the_steps_of_all_trainings(strategy, steps):
    few = dataclasses.replace(DIGITS, x_train=DIGITS.x_train[:100], y_train=DIGITS.y_train[:100])
    texts = [finding.text for finding in training.step(manifest(strategy), few)]
    assert any(f"a round of {steps} steps about" in text for text in texts), texts


def test_max_steps_and_gradients_count_as_what_they_are():
    assert trained_on(manifest("fedavg", **{"train.max_steps": 3}), 100) == 30
    assert trained_on(manifest("ditto", **{"train.max_steps": 3}), 100) == 60
    assert trained_on(manifest("fedrep", **{"train.max_steps": 3}), 100) == 60
    assert trained_on(manifest("fedsgd"), 100) == 100
    assert flops_of(manifest("fedrep"), 100) == 1.5 * flops_of(manifest("fedavg"), 100)


def test_a_round_that_only_evaluates_trains_where_its_devices_judge_what_training_makes():
    judged = {"evaluate.holdout": 0.2}
    assert takes(manifest("fedavg", **judged), "evaluate", 100) == 100
    assert takes(manifest("finetune:epochs=3", **judged), "evaluate", 100) == 400
    assert takes(manifest("finetune:epochs=3", **judged), "train", 100) == 500
