"""More devices than examples: each has a window of its own, found from the seed and its number."""

import numpy as np
import pytest

import edgefl
from edgefl.data import Dataset
from edgefl.errors import UsageError
from edgefl.simulation.split.partitions import split
from edgefl.simulation.split.shifts import spread


@pytest.fixture
def data() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(rng.normal(size=(500, 3)).astype(np.float32), rng.integers(0, 4, 500))


def test_each_device_has_as_many_examples_as_wanted_each_once(data: Dataset):
    parts = split(data, "windows:20", 1_000_000, 3)
    assert len(parts) == 1_000_000
    for device in (0, 1, 999_999):
        assert len(np.unique(parts[device])) == 20
        assert np.array_equal(parts[device], split(data, "windows:20", 1_000_000, 3)[device])
    assert not np.array_equal(parts[0], parts[1])
    with pytest.raises(IndexError):
        parts[1_000_000]


def test_all_examples_are_in_use_about_equally_often(data: Dataset):
    counts = np.bincount(np.concatenate([*split(data, "windows:20", 5000, 1)]), minlength=500)
    inner = np.sort(counts)[40:]  # those at both ends of the order are in fewer windows
    assert counts.min() > 0 and inner.min() > 140 and inner.max() < 270


def test_what_cannot_be_shared_is_refused(data: Dataset):
    with pytest.raises(UsageError, match=r"501 examples are more than the 500"):
        split(data, "windows:501", 10, 0)
    with pytest.raises(UsageError, match=r"windows:N"):
        split(data, "iid", 501, 0)
    with pytest.raises(UsageError, match=r"takes no \+SHIFT"):
        spread(data, "windows:20+noise:0.1", 1000, 0)


def test_a_fleet_larger_than_its_data_makes_only_the_devices_that_it_asks(data: Dataset):
    rounds = {"rounds": 2, "fraction": 0.0005, "partition": "windows:20", "seed": 2}
    history = edgefl.simulate("mlp:3-4", data, devices=20_000, **rounds)
    assert [record.reported for record in history.rounds] == [10, 10]
    again = edgefl.simulate("mlp:3-4", data, devices=20_000, workers=2, **rounds)
    assert again.params.tobytes() == history.params.tobytes()
