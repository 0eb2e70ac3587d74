"""The discrete Gaussian: its distribution, and what fixed randomness gives."""

from __future__ import annotations

import random
import time
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from noise_reference import OneAtATime, pmf
from scipy.stats import chisquare, norm

from edgefl.errors import UsageError
from edgefl.privacy.noise import CHUNK, discrete_gaussian, rational

SIGMAS = [0.5, 0.8, 1.0, 1.7, 3.0, 40.25, 1e3, 1e4]


def seeded(seed):
    return random.Random(seed).randbytes


@cache
def drawn(sigma):
    return discrete_gaussian(sigma, 400_000, seeded(int(sigma * 8)))


def chi_square(draws, sigma, cells=60):
    """The p-value of `draws` against the exact chances, in cells in which at least 50 are expected."""
    x, chance = pmf(sigma)
    whole = np.cumsum(chance)
    edges = np.unique(np.searchsorted(whole, np.linspace(0, 1, cells + 1)[1:-1]))
    expected = np.add.reduceat(chance, np.r_[0, edges + 1]) * len(draws)
    seen = np.bincount(np.searchsorted(x[edges], draws, side="left"), minlength=len(expected))
    assert expected.min() > 50
    return chisquare(seen, expected * len(draws) / expected.sum()).pvalue


@pytest.mark.parametrize("sigma", SIGMAS)
def test_draws_have_the_exact_chances(sigma):
    draws = drawn(sigma)
    cells = {0.5: 3, 0.8: 4, 1.0: 4, 1.7: 8, 3.0: 12}.get(sigma, 60)
    assert chi_square(draws, sigma, cells) > 1e-4


def test_the_test_of_chances_can_fail():
    """Noise of which one in thirty has no sign, or whose sigma is 1 % less, does not pass."""
    draws = discrete_gaussian(40.0, 400_000, seeded(1))
    shifted = np.where(np.arange(len(draws)) % 30 == 0, abs(draws), draws)
    assert chi_square(shifted, 40.0) < 1e-4
    assert chi_square(draws, 40.4) < 1e-4


@pytest.mark.parametrize("sigma", SIGMAS)
def test_mean_variance_and_tails(sigma):
    draws = drawn(sigma)
    n = len(draws)
    x, chance = pmf(sigma)
    variance = float((chance * x.astype(float) ** 2).sum())
    fourth = float((chance * x.astype(float) ** 4).sum())
    assert abs(draws.mean()) < 5 * np.sqrt(variance / n)
    assert abs((draws.astype(float) ** 2).mean() - variance) < 5 * np.sqrt((fourth - variance**2) / n)
    for times in (2, 3, 4):
        expected = n * chance[abs(x) >= times * sigma].sum()
        assert abs((abs(draws) >= times * sigma).sum() - expected) < 5 * np.sqrt(expected) + 1
    assert abs(draws).max() < 6.5 * sigma + 1  # one in 6e4 of such samples has more
    assert norm.sf(6.5) * 2 * n < 1e-4


@pytest.mark.parametrize("sigma", [0.5, 2.5, 12.0])
def test_the_reference_has_them_too(sigma):
    chooser = random.Random(7)
    one = OneAtATime(chooser.randrange)
    draws = np.array([one.gaussian(Fraction(sigma) ** 2) for _ in range(20_000)])
    assert chi_square(draws, sigma, 3 if sigma < 1 else 12) > 1e-4


def test_neighbours_do_not_depend_on_each_other():
    draws = discrete_gaussian(5.0, 400_000, seeded(3)).astype(float)
    for lag in (1, 2, CHUNK):
        assert abs((draws[lag:] * draws[:-lag]).mean()) / 25 < 5 / np.sqrt(len(draws) - lag)


def test_fixed_randomness_gives_fixed_noise():
    one, two = (discrete_gaussian(123.4, 70_000, seeded(5)) for _ in range(2))
    other = discrete_gaussian(123.4, 70_000, seeded(6))
    assert (one == two).all() and (one != other).any()


def test_the_systems_randomness_never_repeats():
    assert (discrete_gaussian(1e4, 100) != discrete_gaussian(1e4, 100)).any()


@pytest.mark.parametrize("sigma", [2.0**-5, 0.1, 0.5, 1 / 3, 1.0, 7.7, 1e4, 2.0**21 + 0.5, 2.0**24])
def test_sigma_is_rounded_up(sigma):
    p, e = rational(sigma)
    assert Fraction(sigma) <= Fraction(p, 2**e) <= Fraction(sigma) * (1 + Fraction(1, 2**20))
    t = p // 2**e + 1
    assert t * p * 2**e < 2**49
    assert 200 * t * t * 4**e < 2**63  # sizes up to 200 t: exp(-200) beyond


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.01, 2.0**25, float("nan"), float("inf")])
def test_other_sigmas_are_refused(sigma):
    with pytest.raises(UsageError, match="sigma is"):
        discrete_gaussian(sigma, 1)


@pytest.mark.parametrize("sigma", [2.0**-5, 2.0**24])
def test_the_ends_of_the_range(sigma):
    draws = discrete_gaussian(sigma, 50_000, seeded(11))
    if sigma < 1:
        assert not draws.any()  # exp(-512) is one in 1e222
    else:
        assert abs(draws.std() / sigma - 1) < 0.02


def test_two_hundred_thousand_coordinates_take_well_under_a_second():
    best = min(_seconds() for _ in range(3))
    assert best < 0.9, best


def _seconds():
    start = time.process_time()
    discrete_gaussian(300.0, 200_000)
    return time.process_time() - start
