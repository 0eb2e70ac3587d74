"""Local training that goes wrong stays at home: the round goes on without it."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import load, simulate
from edgefl.core.trainer import Trainer
from edgefl.data import Dataset
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.protocol.features import unknown_features
from edgefl.protocol.messages import encode
from edgefl.settings import Settings, TrainSettings

MODEL = load(zoo.mlp([1, 1], seed=0))
X = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
DEVICE = np.repeat(np.arange(3), 4)


def run(x, y, **options):
    notes = []
    history = simulate(
        MODEL, Dataset(x, y, device_train=DEVICE), devices=3, rounds=2, partition="natural", batch_size="all",
        codec="raw32", downlink="raw32",
        note=lambda name, note: notes.append((name, note.text)), **options,
    )  # fmt: skip
    return history, notes


@pytest.mark.parametrize("options", [{}, {"strategy": "fedsgd"}, {"epochs": 60}], ids=str)
def test_a_device_whose_loss_leaves_float32_is_left_out(options):
    y = X[:, 0].copy()
    y[DEVICE == 1] *= 1e25  # the squared error fits float64 alone
    history, notes = run(X, y, **options)
    assert [(r.state, r.devices) for r in history.rounds] == [("committed", ["dev-0", "dev-2"])] * 2
    assert any("dev-1" in name and "lower lr" in text for name, text in notes), notes


def test_where_every_device_diverges_the_model_stays_as_it_was():
    history, _ = run(1e3 * X, X[:, 0], epochs=9)
    assert {r.state for r in history.rounds} == {"abandoned"}
    assert history.params.tobytes() == MODEL.params.tobytes()


@pytest.mark.parametrize("strategy", ["fedavg", "fedsgd"])
def test_the_learning_rate_falls_from_round_to_round(strategy):
    """On one device with one batch, rounds are steps of gradient descent: on the device, or at the server."""
    data = Dataset(X, 2 * X[:, 0], device_train=np.zeros(12, int))
    history = simulate(
        MODEL, data, devices=1, rounds=3, partition="natural", batch_size="all", codec="raw32", downlink="raw32",
        lr=0.2, lr_decay=0.5, strategy=strategy, min_reports=1,
    )  # fmt: skip
    trainer, params = Trainer(MODEL.plan), MODEL.params
    for lr in (0.2, 0.1, 0.05):
        params = params - np.float32(lr) * trainer.gradient(params, data.x_train, data.y_train)
    np.testing.assert_allclose(history.params, params, rtol=1e-6)


def test_a_device_that_knows_no_decay_is_told_that_it_can_not_take_part():
    settings = Settings().replace(**{"codec.name": "raw32", "downlink.name": "raw32", "downlink.span": 1})
    plain = make_manifest(settings, "pond", "0" * 16, MODEL.plan)
    decays = make_manifest(settings.replace(lr_decay=0.9), "pond", "0" * 16, MODEL.plan)
    assert (plain.requires, decays.requires) == ([], ["lr-decay"])
    assert unknown_features(encode(decays)) == []


def test_a_rate_that_has_decayed_stays_above_zero():
    train = TrainSettings(lr=0.1, lr_decay=0.5)
    assert [train.lr_in(round) for round in (1, 2, 3)] == [0.1, 0.05, 0.025]
    assert 0 < train.lr_in(10**6) < 1e-9
