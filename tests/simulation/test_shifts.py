"""Shifts: each does what its paper says, to each device alone, the same for one seed; and what can't be shifted."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.data import Dataset, load
from edgefl.errors import UsageError
from edgefl.simulation.split.shifts import spread


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return Dataset(rng.normal(size=(400, 9)), np.arange(400) % 5, rng.normal(size=(80, 9)), np.arange(80) % 5)


def test_a_partition_alone_changes_nothing(data):
    shifted, parts = spread(data, "dirichlet:0.3", 8, 1)
    assert shifted is data and sum(map(len, parts)) == 400
    assert sum(map(len, spread(data, "unbalanced:1e+6", 8, 1)[1])) == 400  # a plus that belongs to the number


@pytest.mark.parametrize("shift", ["noise:0.1", "gain:0.5", "rotate:4", "rotate:2", "relabel:3"])
def test_the_parts_are_those_of_the_partition_and_the_seed_decides(data, shift):
    plain = spread(data, "dirichlet:0.3", 8, 1)[1]
    before = data.x_train.copy(), data.y_train.copy()
    one, parts = spread(data, f"dirichlet:0.3+{shift}", 8, 1)
    again, _ = spread(data, f"dirichlet:0.3+{shift}", 8, 1)
    assert all(np.array_equal(a, b) for a, b in zip(plain, parts, strict=True))
    for field in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(one, field), getattr(again, field))
    assert not (np.array_equal(one.x_train, data.x_train) and np.array_equal(one.y_train, data.y_train))
    assert not (np.array_equal(one.x_test, data.x_test) and np.array_equal(one.y_test, data.y_test))
    assert np.array_equal(before[0], data.x_train) and np.array_equal(before[1], data.y_train)  # shared with the caller
    assert one.x_train.dtype == np.float32 and one.y_train.dtype == np.int64


def test_noise_grows_with_the_number_of_the_device(data):
    shifted, parts = spread(data, "iid+noise:0.5", 4, 0)
    variance = [np.var(shifted.x_train[part] - data.x_train[part]) for part in parts]
    np.testing.assert_allclose(variance, [0.125, 0.25, 0.375, 0.5], rtol=0.15)
    tested = [np.var((shifted.x_test - data.x_test)[number::4]) for number in range(4)]
    np.testing.assert_allclose(tested, [0.125, 0.25, 0.375, 0.5], rtol=0.35)
    assert np.array_equal(shifted.y_train, data.y_train)


def test_a_device_has_one_gain_in_training_and_test(data):
    shifted, parts = spread(data, "iid+gain:0.5", 4, 0)
    gains = [np.unique(np.round(shifted.x_train[part] / data.x_train[part], 4)) for part in parts]
    assert [len(gain) for gain in gains] == [1] * 4 and len(set(np.concatenate(gains))) == 4
    for number in range(4):
        np.testing.assert_allclose((shifted.x_test / data.x_test)[number::4], gains[number][0], rtol=1e-3)
    huge, _ = spread(data, "iid+gain:1e6", 4, 0)
    assert np.isfinite(huge.x_train).all()


@pytest.mark.parametrize("shape", [(9,), (3, 3), (1, 3, 3)])
def test_quarter_turns(data, shape):
    data = Dataset(data.x_train.reshape(-1, *shape), data.y_train)
    shifted, parts = spread(data, "iid+rotate:4", 6, 0)
    assert shifted.x_train.shape == data.x_train.shape
    for number, part in enumerate(parts):
        image = data.x_train[part[0]].reshape(3, 3)
        assert np.array_equal(shifted.x_train[part[0]].reshape(3, 3), np.rot90(image, number % 4))
    half, parts = spread(data, "iid+rotate:2", 2, 0)
    turned = half.x_train[parts[1][0]].reshape(3, 3)
    assert np.array_equal(turned, data.x_train[parts[1][0]].reshape(3, 3)[::-1, ::-1])


def test_groups_share_a_permutation_of_the_labels(data):
    shifted, parts = spread(data, "iid+relabel:2", 4, 0)
    maps = [np.unique(np.stack([data.y_train[part], shifted.y_train[part]]), axis=1) for part in parts]
    assert all(pairs.shape == (2, 5) and len(set(pairs[1])) == 5 for pairs in maps)  # one-to-one
    assert np.array_equal(maps[0][0], maps[0][1]) and np.array_equal(maps[0], maps[2])
    assert np.array_equal(maps[1], maps[3]) and not np.array_equal(maps[0], maps[1])
    assert np.array_equal(shifted.y_test[1::4], maps[1][1][data.y_test[1::4]])


def test_shifts_add_up_and_an_autoencoder_restores_what_its_device_sees(data):
    both, parts = spread(data, "iid+rotate:2+noise:1", 2, 0)
    one, _ = spread(data, "iid+rotate:2", 2, 0)
    assert not np.array_equal(both.x_train, one.x_train)
    assert np.corrcoef(both.x_train[parts[1]].ravel(), one.x_train[parts[1]].ravel())[0, 1] > 0.5
    itself = Dataset(data.x_train, data.x_train)
    itself = spread(Dataset(itself.x_train, itself.x_train), "iid+noise:1", 2, 0)[0]
    assert itself.y_train is itself.x_train


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("iid+rotat:4", "unknown shift 'rotat': did you mean 'rotate'"),
        ("iid+rotate:3", "give 2 for half turns, 4 for quarter turns"),
        ("iid+noise", "give a number of at least 0, as in noise:0.1"),
        ("iid+noise:-1", "at least 0"),
        ("iid+gain:nan", "at least 0"),
        ("iid+relabel:1.5", "a whole number of groups"),
        ("idd+noise:1", "did you mean 'iid'"),
        ("windows:5+noise:1", "one example to several devices"),
    ],
)
def test_wrong_shifts(data, spec, problem):
    with pytest.raises(UsageError, match=problem):
        spread(data, spec, 4, 0)


def test_data_that_a_shift_does_not_fit(data):
    with pytest.raises(UsageError, match="square images"):
        spread(Dataset(data.x_train[:, :8], data.y_train), "iid+rotate:4", 4, 0)
    with pytest.raises(UsageError, match="square images"):
        spread(Dataset(data.x_train.reshape(-1, 9, 1), data.y_train), "iid+rotate:4", 4, 0)
    with pytest.raises(UsageError, match="tokens"):
        spread(Dataset(np.ones((8, 3), np.int64), np.arange(8)), "iid+noise:1", 4, 0)
    with pytest.raises(UsageError, match="relabel needs labels"):
        spread(Dataset(data.x_train, data.x_train), "iid+relabel:2", 4, 0)


def test_a_simulation_trains_on_shifted_data_and_no_single_model_fits_two_labelings():
    settings = {"devices": 10, "rounds": 6, "lr": 0.3, "epochs": 2, "workers": 1, "codec": "raw32", "seed": 1}
    digits = load("digits")
    plain, relabelled = (
        edgefl.simulate("mlp:64-32-10", digits, partition=partition, **settings).final.accuracy
        for partition in ("iid", "iid+relabel:2")
    )
    assert plain > 0.85 > 0.65 > relabelled
