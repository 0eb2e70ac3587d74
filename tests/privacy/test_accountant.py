"""Our epsilon against exact computations that share no code with it, and against an audit of noise that was drawn."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from noise_reference import pmf
from scipy.signal import fftconvolve
from scipy.stats import beta, norm

from edgefl.errors import UsageError
from edgefl.privacy import accountant
from edgefl.privacy.accountant import Mechanism, after, epsilon, rho_of, smallest_sigma
from edgefl.privacy.correlated import sensitivity
from edgefl.privacy.noise import discrete_gaussian

pytest.importorskip("dp_accounting")


def independent(sigma, norm2=1, **more):
    return Mechanism("independent", sigma, norm2, **more)


def least_epsilon(delta_of, delta):
    low, high = 0.0, 1.0
    while delta_of(high) > delta:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(middle) <= delta else (middle, high)
    return high


def exact_discrete(sigma, shift, times, delta):
    """Epsilon of `times` draws (rounds, or coordinates) of which each is moved by `shift`: the privacy loss is a linear
    function of the sum of the draws, whose chances are a convolution. No discretisation, no bound."""
    _, chance = pmf(sigma)
    total = np.ones(1)
    for bit in bin(times)[2:]:
        total = fftconvolve(total, total)
        total = fftconvolve(total, chance) if bit == "1" else total
    total = np.clip(total, 0, None)
    x = np.arange(len(total)) - len(total) // 2
    loss = (times * shift**2 - 2 * shift * x) / (2 * sigma**2)
    return least_epsilon(lambda eps: float((total * -np.expm1(np.minimum(eps - loss, 0))).sum()), delta)


def exact_gaussian(sigma, moved, delta):
    """Balle, Wang 2018, theorem 8."""
    mu = moved / sigma

    def delta_of(eps):
        return norm.cdf(mu / 2 - eps / mu) - np.exp(eps + norm.logcdf(-mu / 2 - eps / mu))

    return least_epsilon(delta_of, delta)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize(
    ("sigma", "shift", "coordinates", "rounds"),
    [
        (0.5, 1, 1, 1), (0.5, 1, 4, 3), (1.0, 1, 1, 10), (1.0, 3, 1, 1), (2.0, 1, 9, 5), (2.0, 3, 1, 5),
        (3.3, 2, 4, 20), (5.0, 1, 1, 100), (8.0, 1, 16, 50), (20.0, 7, 4, 30), (60.0, 1, 10, 50), (300.0, 17, 3, 40),
    ],
)  # fmt: skip
def test_epsilon_is_at_least_the_exact_one(sigma, shift, coordinates, rounds, delta):
    """Independent noise, a vector of which `coordinates` are `shift` and all others 0, in every round."""
    exact = exact_discrete(sigma, shift, coordinates * rounds, delta)
    ours = epsilon(independent(sigma, shift**2 * coordinates).rho(rounds), delta)
    assert ours >= exact
    if sigma >= 2 and exact > 0.1:
        assert ours < 1.25 * exact  # and no more than what one bound for all noise costs


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize(
    ("sigma", "norm2", "band", "separation", "rounds", "over"),
    [
        (1.0, 1, 1, 1, 1, 1),
        (3.0, 4, 4, 4, 20, 20),
        (40.0, 900, 10, 10, 100, 100),
        (5.0, 9, 8, 20, 50, 25),
        (2.0, 1, 3, 3, 9, 1),
    ],
)
def test_correlated_noise_too(sigma, norm2, band, separation, rounds, over, delta):
    ours = epsilon(Mechanism("banded", sigma, norm2, separation, band, rounds).rho(over), delta)
    exact = exact_gaussian(sigma, np.sqrt(norm2) * sensitivity(band, -(-over // separation)), delta)
    assert exact <= ours < 1.25 * exact


@pytest.mark.parametrize(("sigma", "shift", "coordinates"), [(1.0, 1, 1), (2.0, 1, 4), (4.0, 5, 1)])
def test_an_audit_finds_no_more(sigma, shift, coordinates):
    """200,000 runs with a device's vector, as many without: the best test between the two, its error rates at
    99.9 % confidence, give an epsilon that the mechanism has at least. Too little noise is found out."""
    delta, norm2 = 1e-3, shift**2 * coordinates
    ours = epsilon(independent(sigma, norm2).rho(1), delta)
    found = audit(sigma, shift, coordinates, delta)
    assert 0.3 * ours < found <= ours
    assert audit(sigma / 2, shift, coordinates, delta) > ours


def audit(sigma, shift, coordinates, delta, runs=200_000):
    source = random.Random(5).randbytes
    without, noise = discrete_gaussian(sigma, 2 * coordinates * runs, source).reshape(2, coordinates, runs)
    score, other = (noise + shift).sum(axis=0), without.sum(axis=0)
    best = 0.0
    for threshold in np.unique(np.quantile(score, np.linspace(0.02, 0.98, 25))):
        hits, false = (score >= threshold).sum(), (other >= threshold).sum()
        least = beta.ppf(0.001, hits, runs - hits + 1)
        most = beta.ppf(0.999, false + 1, runs - false)
        best = max(best, np.log((least - delta) / most))
    return best


@pytest.mark.parametrize("target", [0.1, 1.0, 8.0])
@pytest.mark.parametrize(
    "like",
    [independent(1.0, 250_000), independent(1.0, 90_000, separation=5), Mechanism("banded", 1.0, 250_000, 10, 10, 40)],
)
def test_the_smallest_sigma_is_enough_and_not_more(target, like):
    sigma = smallest_sigma(target, 1e-5, 40, like)

    def spent(times):
        return epsilon(Mechanism(like.kind, sigma * times, like.norm2, like.separation, like.band, 40).rho(40), 1e-5)

    assert spent(0.999) > target >= spent(1) * (1 - 1e-9)
    assert spent(1) == pytest.approx(target, rel=1e-6)


def test_what_was_spent_before_adds_up():
    """Two changes of the noise cost what all of it costs together, never less than before."""
    one, two = independent(50.0, 900), independent(80.0, 900)
    first = after(0.0, one.rho(10), 1e-5)
    both = after(first, two.rho(20), 1e-5)
    assert both == pytest.approx(epsilon(one.rho(10) + two.rho(20), 1e-5), rel=1e-6)
    assert both >= epsilon(one.rho(10) + two.rho(20), 1e-5) * (1 - 1e-12)
    assert after(first, 0.0, 1e-5) >= first


def test_epsilon_never_falls_with_rounds():
    for like in (independent(9.0, 4), independent(9.0, 4, separation=3), Mechanism("banded", 9.0, 4, 6, 4, 50)):
        spent = [epsilon(like.rho(rounds), 1e-5) for rounds in range(51)]
        assert spent == sorted(spent) and spent[0] == 0


def test_rho_of_is_the_inverse():
    for rho in (1e-6, 0.01, 1.0, 50.0):
        spent = epsilon(rho, 1e-6)
        assert rho_of(spent, 1e-6) == pytest.approx(rho, rel=1e-6) and epsilon(rho_of(spent, 1e-6), 1e-6) >= spent


def test_a_device_that_returns_seldom_is_accounted_as_often_as_it_can_come():
    assert independent(3.0, separation=4).rho(9) == 3 * independent(3.0).rho(1)
    assert independent(3.0, separation=4).rho(9, noisy=2) == 2 * independent(3.0).rho(1)
    assert independent(3.0, separation=1).rho(9) == independent(3.0).rho(9) == 9 / 18


def test_rounds_that_were_not_fixed_beforehand_are_refused():
    with pytest.raises(UsageError, match="round 6 of 5"):
        Mechanism("banded", 3.0, 1, 2, 2, 5).rho(6)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, float("nan")])
def test_a_delta_that_can_not_be_is_refused(delta):
    with pytest.raises(UsageError, match="delta is"):
        epsilon(1.0, delta)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_an_epsilon_that_can_not_be_is_refused(target):
    with pytest.raises(UsageError, match="epsilon is"):
        smallest_sigma(target, 1e-5, 1, independent(1.0))


@pytest.mark.parametrize("wrong", [{"norm2": 0}, {"separation": -1}, {"sigma": 0.0}])
def test_noise_that_can_not_be_is_refused(wrong):
    with pytest.raises(UsageError):
        Mechanism(**{"kind": "independent", "sigma": 1.0, "norm2": 1} | wrong)


def test_without_the_library_the_extra_is_named(monkeypatch):
    accountant._library.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UsageError, match=r"edgefl-toolkit\[privacy\]"):
        epsilon(1.0, 1e-5)
    accountant._library.cache_clear()


def test_the_library_is_loaded_only_when_it_is_needed():
    code = "import sys, edgefl.privacy.accountant as a; a.Mechanism('banded', 1.0, 1, 2, 2, 5).rho(3)"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'dp_accounting' not in sys.modules"], check=True)
