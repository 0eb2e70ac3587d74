"""Federated evaluation in whole runs: the devices' mean is what one evaluation of all that they hold out would say."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import Trainer, load, simulate
from edgefl.data import Dataset
from edgefl.device.holdout import held_out
from edgefl.errors import UsageError
from edgefl.onnx import zoo
from edgefl.simulation.split.partitions import split

MODEL = load(zoo.mlp([4, 8, 3], seed=0))
RNG = np.random.default_rng(1)
X = RNG.normal(size=(400, 4)).astype(np.float32)
Y = (X[:, 0] > 0.3).astype(np.int64) + (X[:, 1] > 0)
DATA = Dataset(X, Y)
PARTITION = "unbalanced:1.5"


def run(model=MODEL, data=DATA, **options):
    settings = {"devices": 7, "rounds": 2, "partition": PARTITION, "holdout": 0.3, "lr": 0.05}
    settings |= {"codec": "raw32", "downlink": "raw32"}
    return simulate(model, data, workers=1, **settings | options)


def pool(data, devices=7, seed=0, only=None) -> np.ndarray:
    """Indices of all examples that the devices hold out."""
    held = []
    for i, part in enumerate(split(data, PARTITION, devices, seed)):
        if only is None or f"dev-{i}" in only:
            held.append(part[held_out(f"dev-{i}", len(part), 0.3)])
    return np.concatenate(held)


def test_the_weighted_mean_is_the_evaluation_of_the_pool():
    first, second = run().rounds
    pooled = pool(DATA)
    sizes = [len(part) for part in split(DATA, PARTITION, 7, 0)]
    assert min(sizes) * 3 < max(sizes), "means with and without weights differ only where devices differ"
    assert first.device_examples == len(pooled)
    assert first.num_examples == len(X) - len(pooled)
    for record, params in ((first, MODEL.params), (second, run(rounds=1).params)):
        whole = Trainer(MODEL.plan).evaluate(params, X[pooled], Y[pooled])
        assert record.device_loss == pytest.approx(whole.loss, rel=1e-6)
        assert record.device_accuracy == pytest.approx(whole.accuracy, rel=1e-6)
    assert second.device_loss < first.device_loss


def test_a_loss_without_accuracy_is_averaged_alone():
    model = load(zoo.mlp([4, 1], seed=0), loss="mse")
    data = Dataset(X, X[:, 0].copy())
    (record,) = run(model, data, rounds=1).rounds
    pooled = pool(data)
    whole = Trainer(model.plan).evaluate(model.params, X[pooled], data.y_train[pooled])
    assert record.device_loss == pytest.approx(whole.loss, rel=1e-6)
    assert record.device_accuracy is None


def test_the_mean_is_that_of_the_devices_that_reported():
    records = run(rounds=6, faults="dropout:0.3:20", deadline_s=5.0).rounds
    assert any(r.reported < 7 for r in records)
    for record in records:
        if record.reported:
            assert record.device_examples == len(pool(DATA, only=record.devices))


def test_without_a_share_there_is_nothing_to_say():
    (record,) = run(holdout=0.0, rounds=1).rounds
    assert (record.device_examples, record.device_loss, record.device_accuracy) == (0, None, None)
    assert record.num_examples == len(X)


@pytest.mark.parametrize("codec", ["raw32", "ecq"])
def test_rounds_that_only_evaluate_change_no_bit_of_what_is_trained(codec):
    options = {"batch_size": "all", "codec": codec, "error_feedback": True, "downlink": codec, "span": 2}
    plain = run(rounds=3, **options)
    mixed = run(rounds=6, evaluate_every=2, **options)
    assert mixed.params.tobytes() == plain.params.tobytes()
    assert [r.state for r in mixed.rounds] == ["committed", "evaluated"] * 3
    assert [r.version for r in mixed.rounds] == [1, 1, 2, 2, 3, 3]
    trained, evaluated = mixed.rounds[::2], mixed.rounds[1::2]
    for before, after in zip(evaluated, trained[1:], strict=False):  # the same model on the same examples
        assert (before.device_loss, before.device_accuracy) == (after.device_loss, after.device_accuracy)


def test_the_run_repeats_with_any_number_of_workers():
    options = {"holdout": 0.3, "evaluate_every": 2, "rounds": 4, "devices": 7}
    one, two = (simulate(MODEL, DATA, workers=workers, **options) for workers in (1, 2))
    assert one.to_json() == two.to_json()


@pytest.mark.parametrize("options", [{"holdout": 0.0, "evaluate_every": 2}, {"holdout": 0.95}, {"holdout": -0.1}])
def test_wrong_shares_are_refused(options):
    with pytest.raises(UsageError, match="holdout"):
        run(**options)
