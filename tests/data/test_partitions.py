"""Laws of the partitions: nothing lost, nothing twice, seeded, and each as skewed as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgefl.data import Dataset, load
from edgefl.errors import UsageError
from edgefl.simulation.split.partitions import split

SPECS = (
    "iid",
    "shards:1",
    "shards:2",
    "dirichlet:0.01",
    "dirichlet:0.3",
    "dirichlet:100",
    "unbalanced:0",
    "unbalanced:2",
    "pathological",
    "labels:1",
    "labels:3",
    "similarity:0",
    "similarity:35.5",
    "similarity:100",
    "label-shift:0.01",
    "label-shift:5",
    "quantity:0.2",
    "quantity:50",
)


def dataset(n: int, classes: int = 10, seed: int = 0) -> Dataset:
    labels = np.random.default_rng(seed).integers(classes, size=n)
    return Dataset(np.zeros((n, 1)), labels)


def num_labels(data: Dataset, parts: list[np.ndarray]) -> list[int]:
    return [len(np.unique(data.y_train[part])) for part in parts]


@settings(max_examples=150, deadline=None)
@given(
    spec=st.sampled_from(SPECS),
    devices=st.integers(1, 60),
    examples_each=st.integers(2, 12),
    extra=st.integers(0, 30),
    classes=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_every_example_goes_to_exactly_one_device(spec, devices, examples_each, extra, classes, seed):
    n = devices * examples_each + extra
    data = dataset(n, classes, seed)
    if spec.startswith("labels:"):
        present, each = np.bincount(data.y_train), int(spec[-1])
        assume(each <= np.count_nonzero(present) <= each * devices)
        assume(present[present > 0].min() >= devices)  # more than any label has holders
    parts = split(data, spec, devices, seed)
    assert len(parts) == devices
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    assert min(map(len, parts)) >= (2 if spec.startswith("dirichlet") else 1)


@pytest.mark.parametrize("spec", SPECS)
def test_the_seed_decides(spec):
    data = dataset(400)
    first, again, other = (split(data, spec, 10, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_and_unbalanced_zero_are_even():
    for spec in ("iid", "unbalanced:0"):
        sizes = [len(part) for part in split(dataset(1003), spec, 10, 0)]
        assert max(sizes) - min(sizes) <= 1


def test_shards_are_equal_and_hold_few_labels():
    data = Dataset(np.zeros((1000, 1)), np.arange(1000) % 10)
    parts = split(data, "shards:2", 50, 0)
    assert {len(part) for part in parts} == {20}
    assert max(num_labels(data, parts)) == 2  # 100 shards of 10, and every label fills ten of them
    assert set(num_labels(data, split(data, "shards:1", 100, 0))) == {1}


def test_dirichlet_is_more_skewed_for_smaller_alpha():
    data = dataset(5000)
    labels = [np.mean(num_labels(data, split(data, f"dirichlet:{a}", 20, 0))) for a in (0.01, 0.3, 100)]
    assert labels[0] < 3 < labels[1] < 9 < labels[2] <= 10


def test_dirichlet_proportions_approach_the_prior():
    """At large A each device's share of a class is 1/devices, to within the prior's standard deviation."""
    data = dataset(20000, classes=2)
    parts = split(data, "dirichlet:1000", 10, 0)
    share = np.array([np.bincount(data.y_train[part], minlength=2) for part in parts]) / np.bincount(data.y_train)
    assert np.abs(share - 0.1).max() < 5 * (0.1 * 0.9 / 10001) ** 0.5


def test_dirichlet_draws_within_a_class_at_random():
    first = split(dataset(1000, classes=1), "dirichlet:1000", 2, 0)[0]
    assert 450 < np.mean(first) < 550


def test_dirichlet_fills_up_from_the_largest():
    parts = split(dataset(40, classes=1), "dirichlet:1e-6", 20, 0)
    assert [len(part) for part in parts] == [2] * 20
    sizes = sorted(len(part) for part in split(dataset(100, classes=1), "dirichlet:1e-6", 20, 0))
    assert sizes[:19] == [2] * 19 and sizes[19] == 62


def test_unbalanced_sizes_are_log_normal_and_survive_a_huge_spread():
    sizes = np.array([len(part) for part in split(dataset(1_000_000), "unbalanced:1", 1000, 0)])
    assert np.log(sizes).std() == pytest.approx(1, abs=0.1)
    extreme = sorted(len(part) for part in split(dataset(100), "unbalanced:1e6", 50, 0))
    assert extreme == [1] * 49 + [51]


def test_unbalanced_takes_float_targets():
    data = Dataset(np.zeros((50, 1)), np.zeros(50))
    assert sum(map(len, split(data, "unbalanced:1", 5, 0))) == 50


def test_pathological_is_mcmahans_split():
    data = dataset(1000)
    for one, other in zip(split(data, "pathological", 20, 3), split(data, "shards:2", 20, 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_device_has_exactly_so_many_labels_and_every_label_as_many_devices():
    data = dataset(5000)
    for each in (1, 2, 7, 10):
        parts = split(data, f"labels:{each}", 30, 0)
        assert set(num_labels(data, parts)) == {each}
        holders = sum(np.bincount(np.unique(data.y_train[part]), minlength=10) for part in parts)
        assert set(holders) == {3 * each}
    pairs = {tuple(np.unique(data.y_train[part])) for part in split(data, "labels:2", 30, 0)}
    assert len(pairs) > 10  # drawn, and not the same ten pairs in turn


def test_similarity_mixes_sorted_and_random_examples():
    data = Dataset(np.zeros((1000, 1)), np.arange(1000) % 10)
    assert set(num_labels(data, split(data, "similarity:0", 10, 0))) == {1}
    halves = split(data, "similarity:50", 10, 0)
    own = [np.bincount(data.y_train[part], minlength=10).max() for part in halves]
    assert all(40 < count < 70 for count in own) and {len(part) for part in halves} == {100}
    assert min(num_labels(data, split(data, "similarity:100", 10, 0))) == 10


def test_label_shift_has_equal_sizes_and_more_skew_for_smaller_alpha():
    data = dataset(5000)
    means = []
    for alpha in (0.01, 0.5, 1000):
        parts = split(data, f"label-shift:{alpha}", 20, 0)
        assert {len(part) for part in parts} == {250}
        counts = np.stack([np.bincount(data.y_train[part], minlength=10) for part in parts])
        means.append(np.mean(counts.max(axis=1)) / 250)  # of the most frequent label
    sharp, some, none = means
    assert sharp > 0.8 and 0.6 < some < 0.85 and none < 0.2


def test_quantity_is_more_uneven_for_smaller_alpha_and_the_same_content():
    data = dataset(20_000, classes=2)
    few, many = (sorted(len(part) for part in split(data, f"quantity:{a}", 50, 0)) for a in (0.1, 100))
    assert few[25] < 40 and few[-1] > 2000  # half of the devices have a tenth of an equal share
    assert many[0] > 250 and many[-1] < 600
    largest = max(split(data, "quantity:0.1", 50, 0), key=len)
    assert np.mean(data.y_train[largest]) == pytest.approx(0.5, abs=0.05)


def test_natural_groups_by_id_in_order():
    data = Dataset(np.zeros((6, 1)), np.zeros(6), device_train=[30, 4, 30, 7, 4, 4])
    assert [part.tolist() for part in split(data, "natural", 3, 0)] == [[1, 4, 5], [3], [0, 2]]
    assert [part.tolist() for part in split(data, "natural", 2, 0)] == [[1, 4, 5], [3]]
    with pytest.raises(UsageError, match="has 3 devices, not 4: choose 3 or fewer"):
        split(data, "natural", 4, 0)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("idd", "did you mean 'iid'"),
        ("dirichlett:0.3", "did you mean 'dirichlet'"),
        ("iid:3", "write iid$"),
        ("shards", "shards:2"),
        ("shards:", "whole number of at least 1"),
        ("shards:0", "at least 1"),
        ("shards:1.5", "whole number"),
        ("shards:9", "need more than 20"),
        ("dirichlet:0", "at least 1e-06"),
        ("dirichlet:nan", "a number of at least"),
        ("dirichlet:inf", "a number of at least"),
        ("unbalanced:-1", "at least 0"),
        ("pathological:2", "write pathological$"),
        ("labels:0", "at least 1"),
        ("labels:1", "don't fit 9 labels"),
        ("labels:10", "don't fit 9 labels"),
        ("labels:9", "examples for 4 devices"),
        ("similarity:101", "a number from 0 to 100"),
        ("label-shift:0", "at least 1e-06"),
        ("quantity:-3", "at least 1e-06"),
        ("natural", "device=COL"),
    ],
)
def test_wrong_specs(spec, problem):
    with pytest.raises(UsageError, match=problem):
        split(dataset(20), spec, 4, 0)


@pytest.mark.parametrize("devices", [0, -1, 21])
def test_devices_must_each_get_something(devices):
    with pytest.raises(UsageError, match="choose 1 to 20 devices"):
        split(dataset(20), "iid", devices, 0)


def test_two_examples_each_and_labels():
    with pytest.raises(UsageError, match="two each"):
        split(dataset(20), "dirichlet:1", 11, 0)
    for spec in ("shards:1", "dirichlet:1", "labels:1", "similarity:1", "label-shift:1", "pathological"):
        with pytest.raises(UsageError, match="needs labels"):
            split(Dataset(np.zeros((20, 1)), np.zeros(20)), spec, 2, 0)


def test_the_writers_of_mnist(shared):
    data = load(f"mnist:{shared}/data/mnist?natural=writers")
    parts = split(data, "natural", 539, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(60000))
    assert all(len(np.unique(data.device_train[part])) == 1 for part in parts)
    pathological = split(data, "shards:2", 100, 0)
    assert {len(part) for part in pathological} == {600}
    assert max(num_labels(data, pathological)) <= 4  # a shard of 300 lies in one label, or across two
