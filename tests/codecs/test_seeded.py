"""What ecq-dither and ecq-sparse draw: the mean of what rounding takes, its distribution, and what it depends on."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import codecs
from edgefl.core.plan import Param

N, LEVELS = 2**21, 2**16
GAUSSIAN = np.random.default_rng(0).normal(size=2**16).astype(np.float32)


def errors(name: str, x: np.ndarray, **options) -> np.ndarray:
    """(P,) float64: what is decoded, less `x`; the step is 1."""
    codec = codecs.get(name, step=1.0, **options)
    return codec.decode(codec.encode(x, rms=1.0), len(x)) - x.astype(np.float64)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors (P,), in standard deviations of that of independent ones."""
    return float(np.corrcoef(a, b)[0, 1] * np.sqrt(len(a)))


@pytest.mark.parametrize("value", [0.3, 1e-6, 0.5, -2.75, 100.123])
def test_over_all_of_a_dithers_levels_the_mean_error_is_that_of_their_grid(value):
    x = np.full(N, value, np.float32)
    wrong = errors("ecq-dither", x)
    level = np.floor(-(wrong + x) % 1 * LEVELS).astype(np.intp)  # what is decoded is a whole number less the dither
    expected = N / LEVELS
    counts = np.bincount(level, minlength=LEVELS)
    assert counts.min() > 0
    assert abs(((counts - expected) ** 2 / expected).sum() - LEVELS) < 5 * np.sqrt(2 * LEVELS)  # chi-squared: uniform
    of_level = np.zeros(LEVELS)
    of_level[level] = wrong
    assert (of_level[level] == wrong).all()
    assert abs(of_level.mean()) <= 2.0**-17
    assert abs(wrong).max() <= 0.5
    assert abs(correlation(wrong[1:], wrong[:-1])) < 4.5


@pytest.mark.parametrize("value", [0.02, 0.3, 0.5, -1.7, 100.1])
def test_a_coin_is_right_on_average_and_takes_one_of_the_two_levels_around(value):
    x = np.full(N, value, np.float32)
    wrong = errors("ecq-sparse", x)
    assert abs(wrong.mean()) < 4.5 * wrong.std() / np.sqrt(N)
    share = abs(value) % 1
    assert wrong.std() == pytest.approx(np.sqrt(share * (1 - share)), rel=0.01)
    assert len(np.unique(wrong)) == 2


@pytest.mark.parametrize("name", ["ecq-dither", "ecq-sparse"])
def test_errors_of_devices_do_not_correlate_unless_delta_and_seed_are_the_same(name):
    base = errors(name, GAUSSIAN)
    for other in range(20):
        near = GAUSSIAN.copy()
        near[other] += np.float32(1e-3)
        assert abs(correlation(base, errors(name, near))) < 4.5
        assert abs(correlation(base, errors(name, GAUSSIAN, seed=other + 1))) < 4.5
    assert (errors(name, GAUSSIAN) == base).all()


def test_of_a_dithered_coordinate_neither_the_error_nor_its_size_depends_on_the_delta():
    wrong = errors("ecq-dither", GAUSSIAN)
    assert abs(correlation(wrong, GAUSSIAN)) < 4.5
    assert abs(correlation(abs(wrong), abs(GAUSSIAN))) < 4.5
    for low in np.arange(-2, 2, 0.25):  # wherever in its step a coordinate lies
        part = wrong[(low <= GAUSSIAN) & (low + 0.25 > GAUSSIAN)]
        ranks = np.arange(1, len(part) + 1) / len(part) - 0.5
        distance = abs(np.sort(part) - ranks).max() * np.sqrt(len(part))
        assert distance < 2.2  # Kolmogorov: one in 8,000 of uniform ones is above


@pytest.mark.parametrize("name", ["ecq-dither", "ecq-sparse"])
def test_what_no_symbol_expresses_is_exact_and_what_is_kept_is_rounded_to_the_nearest_float16(name):
    x = GAUSSIAN[:5000].copy()
    x[7] = 1000.3
    assert errors(name, x)[7] == 0
    codec = codecs.get(name).for_tensors([Param("w", [50, 80]), Param("b", [1000])])
    assert (codec.decode(codec.encode(x), 5000)[4000:] == x[4000:].astype(np.float16)).all()
