"""Local training that goes wrong stays at home: the round goes on without it."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import load, simulate
from edgefl.data import Dataset
from edgefl.onnx import zoo

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
