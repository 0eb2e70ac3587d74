"""What a scaling by devices' own sums is worth: as much as one by all data in one place, without IID devices too."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.core.columns import Scaling
from edgefl.data import Dataset
from edgefl.onnx import zoo

N, COLUMNS, CLASSES, ROUNDS = 2000, 12, 4, 10
RNG = np.random.default_rng(0)
UNITS = 10.0 ** np.linspace(-3, 3, COLUMNS)  # columns that differ by 1e6
Y = RNG.integers(0, CLASSES, N + 2000)
X = (RNG.normal(size=(CLASSES, COLUMNS))[Y] * 1.3 + RNG.normal(size=(len(Y), COLUMNS))) * UNITS
X = (X + RNG.normal(size=COLUMNS) * 5 * UNITS).astype(np.float32)
POOLED = X[:N].mean(0, dtype=np.float64), X[:N].std(0, dtype=np.float64)
STANDARD = ((X - POOLED[0]) / POOLED[1]).astype(np.float32)
MODEL = edgefl.load(zoo.from_spec(f"mlp:{COLUMNS}-16-{CLASSES}", 1), standardize=True)


def run(x: np.ndarray, partition: str, *, rounds: int = ROUNDS, **settings: object) -> edgefl.History:
    data = Dataset(x[:N], Y[:N], x[N:], Y[N:])
    usual = {"devices": 10, "lr": 0.05, "seed": 3, "batch_size": 10, "partition": partition, "rounds": rounds}
    return edgefl.simulate(MODEL, data, **{**usual, **settings})


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.1", "shards:2"])
@pytest.mark.parametrize("influence", ["off", 1.5])
def test_i29_raw_units_train_as_well_as_pooled_standardization(partition, influence):
    pooled = run(STANDARD, partition, influence=influence).final.accuracy
    history = run(X, partition, rounds=ROUNDS + 1, standardize="federated", influence=influence)
    assert pooled > 0.8 and history.final.accuracy >= pooled - 0.005
    assert [record.profile for record in history.rounds] == [True] + [False] * ROUNDS
    scaling = Scaling.of(MODEL.plan)
    assert scaling is not None
    if influence == "off":
        assert np.allclose(history.params[scaling.mean], POOLED[0], rtol=1e-5)
        assert np.allclose(history.params[scaling.scale], 1 / POOLED[1], rtol=1e-5)


def test_without_it_they_do_not():
    assert (run(X, "iid", lr=1e-3).final.accuracy or 0) < 0.6


def test_devices_behind_a_lossy_downlink_get_the_scaling_to_the_digit():
    """Each device trains from the params whose SHA-256 the round names, so a scaling that lost digits would show."""
    settings = {"codec": "ecq", "downlink": "ecq:step=8", "span": 3, "fraction": 0.5, "min_reports": 1}
    history = run(X, "iid", standardize="federated", **settings)
    scaling = Scaling.of(MODEL.plan)
    assert scaling is not None and history.final.accuracy > 0.8
    assert np.allclose(history.params[scaling.mean], POOLED[0], rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "async", "goal": 4},
        {"evaluate_every": 3, "holdout": 0.2},
        {"late": "fold", "faults": "dropout:0.2"},
        {"fraction": 0.3, "strategy": "fedavgm"},
    ],
)
def test_every_kind_of_round_goes_on_from_a_profile(settings):
    history = run(X, "iid", rounds=8, standardize="federated", **settings)
    first, *others = history.rounds
    assert (first.profile, first.state, first.version) == (True, "committed", 1) and len(others) == 7
    assert len(first.devices) >= 8, "all that are there are asked, whatever the share of a round that trains"
    assert not any(record.profile for record in others) and history.final.accuracy > 0.85


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.1"])
def test_i29_a_masked_profile_is_as_good_over_the_real_messages(partition):
    """Helper, masks and all: the scaling is that of the pooled data, and training goes on from it."""
    masked = {"privacy.masked": True, "privacy.share": 1.0, "privacy.bits": 20, "fraction": 0.5}
    history = run(X, partition, rounds=ROUNDS + 1, standardize="federated", influence="off", **masked)
    first, *others = history.rounds
    assert (first.profile, first.state, first.version, len(first.devices)) == (True, "committed", 1, 10)
    assert first.helped and not any(record.profile for record in others)
    scaling = Scaling.of(MODEL.plan)
    assert scaling is not None
    assert np.allclose(history.params[scaling.mean], POOLED[0], rtol=1e-6)
    assert np.allclose(history.params[scaling.scale], 1 / POOLED[1], rtol=1e-5)
    assert history.final.accuracy > 0.8


@pytest.mark.parametrize("noise", ["independent", "banded"])
def test_a_profile_with_noise_scales_by_ranges_over_the_real_messages(noise):
    """Little noise, so that ten devices are enough to see that the scaling is right; what it costs is told."""
    pytest.importorskip("dp_accounting")
    ranges = ", ".join(f"{mean - 5 * std}:{mean + 5 * std}" for mean, std in zip(*POOLED, strict=True))
    private = {
        "privacy.masked": True, "privacy.share": 1.0, "privacy.bits": 28, "privacy.noise": noise,
        "privacy.sigma": 0.003, "features.ranges": ranges, "fraction": 0.5,
    }  # fmt: skip
    private |= {"privacy.separation": 2, "privacy.band": 2} if noise == "banded" else {}
    history = run(X, "iid", rounds=ROUNDS + 3, standardize="federated", **private)
    first, *others = history.rounds
    assert (first.profile, first.state, first.version, len(first.devices)) == (True, "committed", 1, 10)
    assert 0 < first.epsilon < others[-1].epsilon and not any(record.profile for record in others)
    scaling = Scaling.of(MODEL.plan)
    assert scaling is not None
    assert np.allclose(history.params[scaling.mean], POOLED[0], atol=0.1 * POOLED[1])
    assert np.allclose(history.params[scaling.scale] * POOLED[1], 1, atol=0.1)
    assert history.final.accuracy > 0.75
