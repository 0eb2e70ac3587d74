"""What holds for any data: the SPEC, the soundness of a Dataset, the held-out part, scaling, fit_shape."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.data import READERS, Dataset, fit_shape, load
from edgefl.errors import DataError, UsageError


@pytest.fixture
def npz(tmp_path):
    """20 examples of 2 features, float targets, 4 devices; the SPEC of the file."""
    rng = np.random.default_rng(0)
    x = rng.normal([5.0, -100.0], [2.0, 30.0], (20, 2))
    np.savez(tmp_path / "a.npz", x=x, y=x[:, 0] * 3, device_train=np.arange(20) % 4)
    return f"npz:{tmp_path}/a.npz"


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("cvs:a.csv", "did you mean 'csv'"),
        ("", "unknown kind"),
        ("digits?tset=0.1", "did you mean 'test'"),
        ("digits?test", "KEY=VALUE"),
        ("digits?test=0&test=1", "twice"),
        ("digits?test=1", "less than 1"),
        ("digits?test=-0.1", "less than 1"),
        ("digits?test=nan", "finite numbers"),
        ("digits?test=0.1,0.2", "0.1,0.2"),
        ("digits?standardize=yes", "one of 0, 1"),
        ("digits:folder", "leave out 'folder'"),
        ("python:module", "MODULE:CALLABLE"),
        ("sqlite:a.db?target=y", "needs query"),
    ],
)
def test_wrong_spec_is_a_usage_error_that_helps(spec, hint):
    with pytest.raises(UsageError, match=hint):
        load(spec)


@pytest.mark.parametrize("kind", sorted(set(READERS) - {"digits", "python"}))
def test_missing_path_is_named(kind):
    options = "?target=y&query=SELECT 1" if kind == "sqlite" else ""
    with pytest.raises(DataError, match=r"nowhere/a\.file.*check the path"):
        load(f"{kind}:nowhere/a.file{options}")


@pytest.mark.parametrize("kind", sorted(READERS))
def test_every_reader_refuses_an_unknown_option_by_name(kind):
    with pytest.raises(UsageError, match=r"no option 'standardise': did you mean 'standardize'"):
        load(f"{kind}?standardise=1")


@pytest.mark.parametrize(
    ("x", "y", "problem"),
    [
        ([[1.0], [2.0]], [1], "2 examples and y_train 1"),
        (np.empty((0, 3)), np.empty(0), "empty"),
        (np.empty((3, 0)), np.zeros(3), "empty"),
        (5.0, 1.0, "empty"),
        ([[1.0], [np.nan]], [0, 1], "x_train: example 1"),
        ([[1.0], [2.0]], [0.0, np.inf], "y_train: example 1"),
        ([[1e300]], [0], "exceeds float32"),
        ([["a"]], [0], "numbers only"),
        ([[1j]], [0], "numbers only"),
        ([[1.0], [1.0, 2.0]], [0, 1], "not an array"),
    ],
)
def test_unsound_examples_are_refused(x, y, problem):
    with pytest.raises(DataError, match=problem):
        Dataset(x, y)


def test_unsound_test_part_and_devices_are_refused():
    x, y = np.zeros((4, 2)), np.zeros(4)
    with pytest.raises(DataError, match="both x_test and y_test"):
        Dataset(x, y, x_test=x)
    with pytest.raises(DataError, match=r"x_test float32 \(4, 3\)"):
        Dataset(x, y, np.zeros((4, 3)), y)
    with pytest.raises(DataError, match="y_test int64"):
        Dataset(x, y, x, np.zeros(4, int))
    for devices in (np.zeros(3, int), np.zeros(4)):
        with pytest.raises(DataError, match="one whole number an example"):
            Dataset(x, y, device_train=devices)


@pytest.mark.parametrize(
    ("given", "x_dtype", "y_dtype"),
    [
        (np.uint8, np.float32, np.int64),
        (np.int32, np.float32, np.int64),
        (np.int64, np.int64, np.int64),
        (np.float64, np.float32, np.float32),
        (bool, np.float32, np.int64),
    ],
)
def test_dtypes(given, x_dtype, y_dtype):
    data = Dataset(np.ones((2, 3), given)[:, ::2], np.ones(2, given))
    assert (data.x_train.dtype, data.y_train.dtype) == (x_dtype, y_dtype)
    assert data.x_train.flags.c_contiguous


def test_hold_out_splits_examples_targets_and_devices_alike(npz):
    whole, held = load(npz, test_fraction=0), load(npz, test_fraction=0.25, seed=3)
    assert whole.x_test is None and len(whole.x_train) == 20
    assert (len(held.x_train), len(held.x_test)) == (15, 5)
    np.testing.assert_array_equal(np.sort(np.r_[held.y_train, held.y_test]), np.sort(whole.y_train))
    np.testing.assert_array_equal(held.y_train, whole.y_train[np.isin(whole.y_train, held.y_train)])
    np.testing.assert_allclose(held.y_train, held.x_train[:, 0] * 3, rtol=1e-6)
    device_of = dict(zip(whole.y_train, whole.device_train, strict=True))
    assert [device_of[y] for y in held.y_train] == held.device_train.tolist()


def test_hold_out_is_seeded_and_the_spec_has_the_last_word(npz):
    first, again, other = (load(npz, seed=seed).x_test for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(load(npz + "?test=0.5", test_fraction=0.1).x_test) == 10
    assert load(npz + "?test=0").x_test is None


def test_hold_out_needs_examples_and_no_other_test_part(tmp_path):
    np.savez(tmp_path / "one.npz", x=np.ones((1, 2)), y=np.ones(1))
    with pytest.raises(DataError, match="test=0"):
        load(f"npz:{tmp_path}/one.npz")
    x, y = np.zeros((4, 2)), np.zeros(4)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    assert len(load(f"npz:{tmp_path}/own.npz", test_fraction=0.5).x_test) == 1
    with pytest.raises(UsageError, match="test part of its own"):
        load(f"npz:{tmp_path}/own.npz?test=0.5")


def test_standardize_uses_statistics_of_the_training_part(npz):
    raw, scaled = load(npz), load(npz + "?standardize=1")
    mean, std = raw.x_train.mean(0, dtype=float), raw.x_train.std(0, dtype=float)
    np.testing.assert_allclose(scaled.x_train, (raw.x_train - mean) / std, atol=1e-5)
    np.testing.assert_allclose(scaled.x_test, (raw.x_test - mean) / std, atol=1e-5)
    np.testing.assert_allclose([scaled.y_train.mean(), scaled.y_train.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(scaled.y_test, (raw.y_test - raw.y_train.mean()) / raw.y_train.std(), atol=1e-5)


def test_standardize_leaves_labels_and_constant_columns_in_peace(tmp_path):
    np.savez(tmp_path / "a.npz", x=[[1, 7], [2, 7], [3, 7]], y=[0, 1, 2])
    data = load(f"npz:{tmp_path}/a.npz?standardize=1&test=0")
    assert data.y_train.tolist() == [0, 1, 2]
    np.testing.assert_allclose(data.x_train, [[-(1.5**0.5), 0], [0, 0], [1.5**0.5, 0]], rtol=1e-6)


def test_fixed_numbers_scale_a_device_like_the_fleet(npz):
    raw = load(npz, test_fraction=0)
    fixed = load(npz + "?mean=5,-100&std=2,30&target_mean=15&target_std=6", test_fraction=0)
    np.testing.assert_allclose(fixed.x_train, (raw.x_train - [5, -100]) / [2, 30], atol=1e-5)
    np.testing.assert_allclose(fixed.y_train, (raw.y_train - 15) / 6, atol=1e-5)
    one = load(npz + "?mean=5&std=2", test_fraction=0)
    np.testing.assert_allclose(one.x_train, (raw.x_train - 5) / 2, rtol=1e-6)
    np.testing.assert_array_equal(one.y_train, raw.y_train)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("mean=1,2", "go together"),
        ("standardize=1&mean=1,2&std=1,1", "without standardize"),
        ("mean=1,2,3&std=1,1,1", "give 1 or 2"),
        ("mean=1,2&std=1,0", "above 0"),
        ("mean=1,x&std=1,1", "finite numbers"),
        ("target_mean=1&target_std=inf", "finite numbers"),
    ],
)
def test_wrong_fixed_numbers(npz, options, hint):
    with pytest.raises(UsageError, match=hint):
        load(f"{npz}?{options}")


def test_labels_have_no_mean(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((4, 1)), y=np.arange(4))
    with pytest.raises(UsageError, match="targets are labels"):
        load(f"npz:{tmp_path}/a.npz?target_mean=0&target_std=1")


def test_fit_shape_reshapes_both_parts_and_nothing_else():
    x = np.arange(48.0).reshape(4, 12)
    data = Dataset(x, np.arange(4), x[:2], np.arange(2), np.arange(4), "d")
    image = fit_shape(data, [1, 3, 4])
    assert image.x_train.shape == (4, 1, 3, 4) and image.x_test.shape == (2, 1, 3, 4)
    assert image.x_train[1, 0, 2, 3] == 23 and image.device_train.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(fit_shape(image, (12,)).x_train, x)
    assert fit_shape(Dataset(np.ones(3), np.ones(3)), (1,)).x_train.shape == (3, 1)
    with pytest.raises(DataError, match=r"shape \(12,\), 12 values, and the model's input \(1, 4, 4\), 16"):
        fit_shape(data, (1, 4, 4))
