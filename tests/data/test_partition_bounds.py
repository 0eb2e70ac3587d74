"""Partitions at their bounds: each number gives every device something, or is refused in words."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from edgefl.data import Dataset
from edgefl.errors import UsageError
from edgefl.simulation.split.arguments import BOUNDS
from edgefl.simulation.split.shifts import SHIFTS, spread

ODD = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e9",
    "1e-6",
    "1e-300",
    "0.3",
    "1",
    "2",
    "3",
    "7",
    "100",
    "101",
    "",
    "x",
)
SIZES = [(1, 1), (2, 1), (5, 3), (12, 3), (30, 10)]  # examples, labels


def dataset(n: int, labels: int) -> Dataset:
    rng = np.random.default_rng(n)
    return Dataset(rng.normal(size=(n, 4)).astype(np.float32), np.arange(n) % labels, device_train=np.arange(n) % 3)


@pytest.mark.parametrize("name", ["iid", "pathological", "natural", *BOUNDS, *(f"iid+{shift}" for shift in SHIFTS)])
def test_a_partition_gives_every_device_something_or_says_why_not(name):
    arguments = [""] if name in ("iid", "pathological", "natural") else [f":{odd}" for odd in ODD]
    made = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n, labels in SIZES:
            data = dataset(n, labels)
            for devices in sorted({1, 2, 3, n - 1, n, n + 1} - {0}):
                for argument in arguments:
                    try:
                        _, parts = spread(data, name + argument, devices, seed=1)
                    except UsageError as error:
                        assert len(str(error)) > 20
                        continue
                    made += 1
                    assert len(parts) == devices and min(map(len, parts)) >= 1
    assert made > 5


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("odd", ["nan", "inf", "-1", "1e308", "", "x"])
def test_numbers_that_mean_nothing_are_refused_by_name(name, odd):
    with pytest.raises(UsageError, match=rf"partition '{name}:{odd}': give a (whole )?number"):
        spread(dataset(30, 10), f"{name}:{odd}", 3, seed=1)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("odd", ["nan", "inf", "-1", "1e308", "", "x"])
def test_shifts_that_mean_nothing_are_refused_by_name(shift, odd):
    with pytest.raises(UsageError, match=rf"shift '{shift}:{odd}': give a number"):
        spread(dataset(30, 10), f"iid+{shift}:{odd}", 3, seed=1)


@pytest.mark.parametrize("devices", [0, -1, 31])
def test_devices_that_the_examples_do_not_suffice_for_are_refused(devices):
    for name in ("iid", "natural", "dirichlet:0.3"):
        with pytest.raises(UsageError, match=rf"{devices} devices can't share 30 examples"):
            spread(dataset(30, 10), name, devices, seed=1)


def test_shards_that_do_not_divide_differ_by_one_example():
    _, parts = spread(dataset(29, 3), "shards:2", 4, seed=1)
    assert set(map(len, parts)) <= {6, 7, 8} and sum(map(len, parts)) == 29


def test_more_shards_than_examples_are_refused():
    with pytest.raises(UsageError, match="4 devices of 8 shards"):
        spread(dataset(30, 10), "shards:8", 4, seed=1)


def test_the_digits_are_read_when_they_are_asked_for():
    """scikit-learn takes a second to import: no import of ours does that, and neither does its reader."""
    import subprocess
    import sys

    modules = "edgefl, edgefl.data.digits, edgefl.simulation.simulate, sys"
    read = "edgefl.data.digits.read('', {})"
    done = subprocess.run(
        [sys.executable, "-c", f"import {modules}; {read}; print('sklearn' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
