"""Residuals of FedNova and Mime-lite: what a codec drops counts later as it would have counted, whatever the steps."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from machines import make_round

from edgefl import codecs, load
from edgefl.codecs.feedback import unpack
from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Trainer
from edgefl.device.events import TrainJob
from edgefl.device.slots import Slot
from edgefl.device.training import train_update
from edgefl.federation import make_manifest, make_strategy
from edgefl.onnx import zoo
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import Settings
from edgefl.strategies import Site, Update
from edgefl.strategies.local_steps import gain, steps_of

MODEL = load(zoo.mlp([6, 1], seed=0))
P = MODEL.plan.num_params
RNG = np.random.default_rng(1)
SLOPE = RNG.normal(size=(6, 1))
SIZES = (4, 64, 12, 2, 40, 8)  # examples that a device has, by turns


class Device:
    """Its examples, and its slots: every update of it counts."""

    def __init__(self, name: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.name, self.slots = name, {}
        self.x = (rng.normal(size=(64, 6)) + rng.normal(size=6)).astype(np.float32)
        self.y = (self.x @ (SLOPE + 0.3 * rng.normal(size=SLOPE.shape))).astype(np.float32)

    def train(self, manifest, params, round, n):
        """The header and payload of an update from its first n examples."""
        job = TrainJob(manifest, make_round(round=round, manifest=manifest), params_to_bytes(params), 0)
        update = train_update(Trainer(MODEL.plan), job, self.name, self.x[:n], self.y[:n], load_slot=self.slots.get)
        self.slots = {name: Slot.of(name, manifest, round, blob) for name, blob in update.slots.items()}
        header = UpdateHeader.from_bytes(update.blob)
        return header, update.blob[header.size :]


def made(codec, strategy="fednova", **changes):
    settings = Settings().replace(
        **{"strategy": strategy, "codec": codec, "downlink": "raw32", "span": 1, "batch_size": 2, "lr": 0.02, **changes}
    )
    return settings, make_manifest(settings, "pond", "0" * 16, MODEL.plan)


CASES = [{}, {"weights": "uniform"}, {"weights": "capped:10"}, {"momentum": 0.5}, {"lr_decay": 0.9, "prox_mu": 0.5}]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_what_has_counted_and_what_is_left_add_up_to_what_should_have_counted(changes):
    """In float64, each delta by its n_k / a_k, but for what float16 can't hold of a residual."""
    settings, coarse = made("ecq:step=6,exact=none", **changes)
    _, exact = made("raw32", **changes)
    sender, learner = Device("a", 0), Device("a", 0)
    weigh = make_strategy(settings).weigh
    learned, counted, rounded = np.zeros(P), np.zeros(P), np.full(P, 1e-5)
    for round in range(1, 25):
        n = SIZES[round % len(SIZES)]
        train = settings.train.in_round(round)
        weight = weigh(n) / gain(train, train.lr, steps_of(train, n))
        header, payload = sender.train(coarse, MODEL.params, round, n)
        assert header.steps == steps_of(train, n)
        learned += weight * np.frombuffer(learner.train(exact, MODEL.params, round, n)[1], "<f4").astype(np.float64)
        counted += weight * coarse.update_codec.decode(payload, P).astype(np.float64)
        left = weight * unpack(sender.slots["residual"].blob, P).astype(np.float64)
        rounded += abs(left) * 2.0**-10
    assert abs(learned - counted).max() > 1e-3
    assert (abs(counted + left - learned) <= rounded).all()


def test_what_is_dropped_of_a_gradient_behind_a_delta_counts_later_by_the_steps_that_it_had():
    """The delta of Mime-lite counts whole, and the gradient behind it by the step."""
    changes = {"strategy": "mime-lite:beta=0.5", "lr_decay": 0.9}
    settings, coarse = made("ecq:step=6,exact=none", **changes)
    _, exact = made("raw32", **changes)
    sender, learner = Device("a", 0), Device("a", 0)
    model = np.r_[MODEL.params, np.zeros(P, np.float32)]
    learned, counted, rounded = np.zeros(2 * P), np.zeros(2 * P), np.full(2 * P, 1e-5)
    for round in range(1, 25):
        n = SIZES[round % len(SIZES)]
        train = settings.train.in_round(round)
        weight = np.repeat([1.0, 1 / (train.lr * steps_of(train, n))], P)
        learned += weight * np.frombuffer(learner.train(exact, model, round, n)[1][8:], "<f4").astype(np.float64)
        counted += weight * coarse.update_codec.decode(sender.train(coarse, model, round, n)[1], 2 * P).astype(
            np.float64
        )
        left = weight * unpack(sender.slots["residual"].blob, 2 * P).astype(np.float64)
        rounded += abs(left) * 2.0**-10
    assert abs(learned - counted)[P:].max() > 0.1
    assert (abs(counted + left - learned) <= rounded).all()


def fleet(codec, *, by_step=True, **changes):
    """The params of 60 rounds of six devices whose numbers of examples, and of steps, change from round to round."""
    settings, manifest = made(codec, **changes)
    manifest = manifest if by_step else msgspec.structs.replace(manifest, by_step="")
    strategy = make_strategy(settings)
    strategy.prepare(Site(P, P))
    devices, params, told = [Device(f"d{k}", k) for k in range(6)], MODEL.params, []
    for round in range(1, 61):
        strategy.start(params, round)
        for place, device in enumerate(devices):
            n, name = SIZES[(round + place) % len(SIZES)], device.name
            header, payload = device.train(manifest, params, round, n)
            strategy.add(Update(name, n, manifest.update_codec, payload, steps=header.steps, loss=header.loss))
        params = strategy.finish()
        told.append(params.astype(np.float64))
    return np.stack(told)


@pytest.mark.parametrize(
    "changes", [{"weights": "uniform", "lr": 0.003}, {"max_steps": 6}, {"momentum": 0.8, "lr": 0.002}], ids=str
)
def test_a_fleet_whose_steps_change_stays_closer_to_what_it_does_without_a_codec(changes):
    exact, coarse = fleet("raw32", **changes), "ecq:step=6,exact=none"
    runs = fleet(coarse, **changes), fleet(coarse, by_step=False, **changes)
    with_it, without = (np.sqrt(np.mean((params - exact)[20:] ** 2)) for params in runs)
    assert with_it < without / 1.5


def test_a_plain_average_keeps_residuals_as_they_were():
    _, manifest = made("ecq", "fedavg")
    device = Device("a", 0)
    device.train(manifest, MODEL.params, 1, 8)
    assert manifest.by_step == "" and len(device.slots["residual"].blob) == 1 + 2 * P
    assert codecs.get("ecq").feedback
