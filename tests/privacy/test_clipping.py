"""Adaptive clipping against the paper's rule in plain NumPy, its privacy against exact figures, and its bounds."""

from __future__ import annotations

import itertools
import math

import masked
import numpy as np
import pytest
from scipy.stats import norm

from edgefl.masking.propose import propose
from edgefl.masking.vector import mean, quantize
from edgefl.privacy.accountant import Mechanism, epsilon
from edgefl.privacy.clipping import Clipping
from edgefl.privacy.noise import discrete_gaussian
from edgefl.protocol.terms import Noise

DEVICES, PARAMS = 60, 200
NORMS = np.exp(np.random.default_rng(7).normal(0.3, 0.6, DEVICES))  # of the fleet's updates, in every round


def deltas():
    made = np.random.default_rng(1).standard_normal((DEVICES, PARAMS))
    return (made * (NORMS / np.linalg.norm(made, axis=1))[:, None]).astype(np.float32)


def own_terms(clip, **more):
    return masked.terms(**{**propose(PARAMS, clip, DEVICES, share=1.0, bits=24, votes=True, noise_bound=2**22), **more})


def clips_of_fleet(clipping, rounds, sigma=0.0):
    """The clips of a fleet's masked rounds, from the opened sums alone."""
    rng, clips, made = np.random.default_rng(0), [clipping.first], deltas()
    for _ in range(rounds):
        own = own_terms(clips[-1], noise=Noise("independent", sigma) if sigma else Noise())
        total = np.zeros(own.length, np.int64)
        for delta in made:
            total += quantize(delta, 1, own, rng.bytes).q
        if sigma:
            noise = discrete_gaussian(sigma, own.length, rng.bytes)
            noise[own.at_checks] = 0
            total += noise
        clips.append(clipping.after(clips[-1], mean(total, own).within))
    return clips


def rule_of_the_paper(clip, quantile, rounds):
    """Andrew et al. 2021, section 2: geometric updates, from the norms themselves."""
    clips = [clip]
    for _ in range(rounds):
        b = (clips[-1] >= NORMS).mean()
        clips.append(clips[-1] * np.exp(-0.2 * (b - quantile)))
    return clips


@pytest.mark.parametrize(("quantile", "factor"), [(0.5, 10.0), (0.5, 0.1), (0.8, 0.1)])
def test_the_clip_converges_to_the_quantile_of_the_norms_as_in_the_paper(quantile, factor):
    wanted = float(np.quantile(NORMS, quantile))
    found = clips_of_fleet(Clipping(factor * wanted, quantile), 45)
    assert found == pytest.approx(rule_of_the_paper(factor * wanted, quantile, 45), rel=1e-9)
    assert found[-1] == pytest.approx(wanted, rel=0.1)
    assert abs(math.log(found[0] / wanted)) > 2


def test_with_noise_the_clip_stays_near_the_median():
    own = own_terms(1.0)
    sigma = 4 * math.sqrt(own.norm2)
    wanted = float(np.median(NORMS))
    found = clips_of_fleet(Clipping(10 * wanted, 0.5), 60, sigma)
    assert np.exp(np.mean(np.log(found[-15:]))) == pytest.approx(wanted, rel=0.3)
    assert len(set(found)) > 50, "noise is in every vote"


# ---- hostile votes


@pytest.mark.parametrize("within", [-math.inf, -5.0, 0.0, 1.0, 7.0, math.inf])
def test_whatever_is_voted_the_clip_moves_little_and_never_leaves_its_bounds(within):
    clipping = Clipping(2.0, 0.5, 0.2, most=9.0)
    clips = [2.0]
    for _ in range(500):
        clips.append(clipping.after(clips[-1], within))
    steps = [abs(math.log(b / a)) for a, b in itertools.pairwise(clips)]
    assert max(steps) <= 0.2 * 0.5 + 1e-12
    assert clips[-1] == (0.02 if within > 0.5 else 9.0) and 0.02 <= min(clips) <= max(clips) <= 9.0
    for _ in range(70):  # honest devices again, whose norms are 2
        clips.append(clipping.after(clips[-1], float(clips[-1] >= 2)))
    assert clips[-1] == pytest.approx(2.0, rel=0.11)


def test_one_hostile_device_of_many_moves_the_clip_by_its_share():
    """A vote as large as the terms allow is one vote: the largest that its own device could cast."""
    own, votes = own_terms(1.0), []
    total = np.zeros(own.length, np.int64)
    for delta in deltas():
        q = quantize(delta, 1, own, np.random.default_rng(0).bytes).q
        votes.append(q[own.at_votes].copy())
        total += q
    honest = mean(total, own).within
    yes = next(vote for vote in votes if vote[0] > 0)
    total[own.at_votes] -= 2 * yes
    assert honest - mean(total, own).within == pytest.approx(1 / DEVICES)


def test_bounds_are_those_of_the_settings():
    assert Clipping(2.0, 0.5).bounds == (0.02, 200.0)
    assert Clipping(2.0, 0.5, most=3.0).bounds == (0.02, 3.0)
    assert Clipping(2.0, 0.5, most=1e9).bounds == (0.02, 200.0)
    assert Clipping(2.0).bounds == (2.0, 2.0) and Clipping(2.0).after(2.0, 0.1) == 2.0
    assert Clipping(2.0, 0.5).after(1.7, None) == 1.7
    assert Clipping(2.0, 0.5, most=3.0).after(50.0, None) == 3.0, "settings may have changed since"


# ---- what it costs


def exact_epsilon(mu, delta):
    """Of Gaussian noise whose mean is moved by mu standard deviations: Balle, Wang 2018, theorem 8."""
    low, high = 0.0, 200.0
    for _ in range(80):
        eps = (low + high) / 2
        spent = norm.cdf(mu / 2 - eps / mu) - np.exp(eps + norm.logcdf(-mu / 2 - eps / mu))
        low, high = (low, eps) if spent <= delta else (eps, high)
    return high


def longest(own):
    """(L,) the vector of a device that uses all of its norm, votes included."""
    q = quantize(np.full(PARAMS, 9.0, np.float32), 1, own, np.random.default_rng(0).bytes).q.astype(np.int64)
    q[own.at_checks] = 0
    return q


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize(("multiplier", "rounds"), [(0.7, 1), (1.0, 10), (2.0, 4), (5.0, 30), (30.0, 100)])
def test_i38_epsilon_with_the_votes_is_at_least_the_exact_one(multiplier, rounds, delta):
    """The norm that a device's vector really has, votes and all, moved out of Gaussian noise in every round."""
    pytest.importorskip("dp_accounting")
    own = own_terms(1.0)
    sigma = multiplier * math.sqrt(own.norm2)
    q = longest(own)
    assert (q[own.at_votes] ** 2).sum() == own.votes.norm2 > 0
    assert 0.97 * own.norm2 < (q**2).sum() <= own.norm2
    exact = exact_epsilon(math.sqrt(own.norm2 * rounds) / sigma, delta)
    ours = epsilon(Mechanism("independent", sigma, own.norm2).rho(rounds), delta)
    assert exact <= ours < 1.25 * exact + 0.02


@pytest.mark.parametrize("multiplier", [0.7, 3.0])
def test_noise_is_split_between_update_and_votes_as_in_the_paper(multiplier):
    """z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2), where votes of b - 1/2 have noise of sigma_b: theorem 1."""
    own = own_terms(1.0)
    sigma = multiplier * math.sqrt(own.norm2)
    sigma_b = sigma / (
        2 * own.votes.size * math.sqrt(own.votes.copies)
    )  # of the mean of the copies, in units of a vote
    z_delta = (multiplier**-2 - (2 * sigma_b) ** -2) ** -0.5
    assert z_delta == pytest.approx(sigma / math.sqrt(own.norm2 - own.votes.norm2), rel=1e-9)


def test_i38_an_audit_of_drawn_noise_finds_no_more_than_epsilon():
    """The privacy loss of a vector with a large vote, by noise that was drawn: its chance beyond epsilon, weighted, is
    at most delta. What the update alone would cost is found to be too little."""
    pytest.importorskip("dp_accounting")
    q, delta, draws = np.array([12, 20]), 1e-3, 40_000
    norm2 = int((q**2).sum())
    sigma = math.sqrt(norm2)
    noise = discrete_gaussian(sigma, 2 * draws, np.random.default_rng(3).bytes).reshape(draws, 2)
    loss = ((noise + q) ** 2 - noise**2).sum(1) / (2 * sigma**2)

    def spent(eps):
        return np.maximum(0.0, -np.expm1(eps - loss)).mean()

    assert spent(epsilon(Mechanism("independent", sigma, norm2).rho(1), delta)) <= delta
    assert spent(epsilon(Mechanism("independent", sigma, 12**2).rho(1), delta)) > 5 * delta
