"""Correlated noise against dense matrices, and that no noise is ever used for two sets."""

from __future__ import annotations

import random
from itertools import combinations

import masked
import numpy as np
import pytest
from scipy.linalg import sqrtm, toeplitz
from scipy.stats import kstest

from edgefl.errors import StoreError, UsageError
from edgefl.privacy.correlated import MAX_BAND, Banded, Memory, coefficients, next_round, prefix_error, sensitivity
from edgefl.protocol.terms import MOST_BANDED, RARE, Noise


def seeded(seed):
    return random.Random(seed).randbytes


def dense(band, rounds):
    column = np.zeros(rounds)
    column[: min(band, rounds)] = coefficients(band)[:rounds]
    return toeplitz(column, np.zeros(rounds))


def run(plan, rounds, seed=1):
    memory, out, source = Memory(), [], seeded(seed)
    for r in range(1, rounds + 1):
        noise, memory = next_round(plan, memory, r, b"set %d" % r, source)
        out.append(noise)
    return np.array(out), memory


def test_the_coefficients_are_those_of_the_square_root():
    sums = np.tril(np.ones((40, 40)))
    assert np.allclose(dense(40, 40), sqrtm(sums), atol=1e-7)
    assert coefficients(4).tolist() == [1, 1 / 2, 3 / 8, 5 / 16]


@pytest.mark.parametrize(("band", "rounds"), [(1, 30), (4, 30), (8, 5), (10, 100), (64, 100), (100, 100)])
def test_the_error_of_prefix_sums(band, rounds):
    """Against B = A C⁻¹ written out."""
    b = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(dense(band, rounds))
    assert prefix_error(band, rounds) == pytest.approx(np.sqrt((b**2).sum() / rounds), rel=1e-9)


def test_no_round_has_more_than_twice_the_variance_whichever_were_abandoned():
    """Every band and every pattern of up to ten rounds: the last row of the inverse of what is left of C."""
    most = 0.0
    for rounds in range(2, 11):
        for band in range(2, rounds + 1):
            c = dense(band, rounds)
            for count in range(rounds):
                for before in combinations(range(rounds - 1), count):
                    kept = [*before, rounds - 1]
                    row = np.linalg.solve(c[np.ix_(kept, kept)].T, np.eye(len(kept))[-1])
                    most = max(most, float(row @ row))
    assert 1.34 < most <= MOST_BANDED


@pytest.mark.parametrize("band", range(2, MAX_BAND + 1))
def test_the_symmetric_part_of_every_band_is_bounded_below(band):
    """m >= 1 / MOST_BANDED, which proves the same for any number of rounds: on a grid, less what lies between."""
    points, c = 2**18, coefficients(band)
    symbol = np.fft.rfft(c, points).real
    steepest = float(np.arange(band) @ c)  # of the symbol
    between = steepest * np.pi / points if band > 2 else 0.0  # 1 + cos(x) / 2 has its minimum in the grid
    assert symbol.min() - between >= 1 / MOST_BANDED - 1e-12


@pytest.mark.parametrize("band", [2, 3, 10])
def test_noise_that_was_drawn_has_no_more_than_twice_the_variance_and_wraps_nothing(band):
    """Rounds at random; a place exceeds the bound of the terms with a chance of 2^-40 over all of them."""
    plan = Banded(1000.0, band, band, 60, 20_000)
    noise = {"kind": "banded", "sigma": plan.sigma, "band": band, "separation": band, "rounds": plan.rounds}
    own = masked.terms(bits=30, params=plan.length, coordinates=plan.length, noise=Noise(**noise))
    memory, source, chance = Memory(), seeded(band), random.Random(band)
    for number in range(1, plan.rounds + 1):
        if chance.random() < 0.3:
            continue
        drawn, memory = next_round(plan, memory, number, b"set %d" % number, source)
        assert drawn.std() < np.sqrt(1.37) * plan.sigma and np.abs(drawn).max() <= own.noise_bound
    assert own.noise_bound < 2 * plan.sigma * np.sqrt(2 * np.log(2 * own.length / RARE)), "half a bit less than twice"


def test_at_equal_epsilon_a_band_has_less_noise_in_prefix_sums():
    """Both for devices that come back after 10 rounds at the earliest; at equal epsilon z is louder by the ratio of the
    sensitivities. 100 rounds, band 10: less than half the noise; measured on noise that was drawn, too."""
    rounds, separation, times = 100, 10, 10
    cost = {band: prefix_error(band, rounds) * sensitivity(band, times) for band in (1, 2, 5, 10)}
    assert cost[10] < cost[5] < cost[2] < cost[1]
    assert cost[10] / cost[1] < 0.45
    drawn = {}
    for band in (1, 10):
        sigma = 1000 * sensitivity(band, times)
        noise, _ = run(Banded(sigma, band, separation, rounds, 500), rounds)
        drawn[band] = np.sqrt((np.cumsum(noise, axis=0) ** 2).mean()) / 1000
    assert drawn[1] == pytest.approx(cost[1], rel=0.1) and drawn[10] == pytest.approx(cost[10], rel=0.1)


@pytest.mark.parametrize(
    ("band", "separation", "rounds"), [(1, 1, 6), (2, 2, 9), (3, 3, 9), (2, 4, 9), (3, 5, 10), (6, 6, 4)]
)
def test_no_pattern_of_participation_moves_more(band, separation, rounds):
    """Every set of rounds that the separation allows, with vectors that point anywhere."""
    c, draws = dense(band, rounds), np.random.default_rng(0)
    worst = 0.0
    for count in range(1, rounds + 1):
        for at in combinations(range(rounds), count):
            if min(np.diff(at), default=separation) < separation:
                continue
            for _ in range(3):
                x = np.zeros((rounds, 2))
                x[list(at)] = draws.normal(size=(count, 2))
                x[list(at)] /= np.linalg.norm(x[list(at)], axis=1, keepdims=True)
                worst = max(worst, float(np.linalg.norm(c @ x)))
    bound = sensitivity(band, -(-rounds // separation))
    assert worst <= bound * (1 + 1e-12)
    if (rounds - 1) % separation >= band - 1:  # the last column is whole
        assert worst == pytest.approx(bound)


def test_noise_filtered_back_is_white_and_gaussian():
    plan = Banded(5000.0, 6, 6, 40, 2001)
    noise, memory = run(plan, 40)
    z = dense(6, 40) @ noise / 5000.0
    assert kstest(z.ravel(), "norm").pvalue > 1e-4
    assert z.std() == pytest.approx(1, rel=0.01)
    far = np.corrcoef(z)
    assert abs(far - np.eye(40)).max() < 5.5 / np.sqrt(2001)
    assert abs(np.corrcoef(noise)).max() > 0.3  # as noise itself is not
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 5 / np.sqrt(z.size)
    assert list(memory.past) == [40, 39, 38, 37, 36] and memory.first == 1


def test_rounds_that_were_abandoned_leave_no_noise_and_keep_the_bound():
    """C without their rows and columns: filtered back by it, the noise is white; no column is longer than before."""
    plan, opened = Banded(5000.0, 4, 4, 40, 4001), [2, 3, 7, 8, 9, 10, 17, 19, 20, 40]
    memory, noise = Memory(), []
    for r in opened:
        drawn, memory = next_round(plan, memory, r, b"", seeded(r))
        noise.append(drawn)
    at = np.array(opened)
    c = dense(4, 60)[at][:, at]
    z = c @ np.array(noise) / 5000.0
    assert kstest(z.ravel(), "norm").pvalue > 1e-4 and abs(np.corrcoef(z) - np.eye(10)).max() < 5.5 / np.sqrt(4001)
    assert (np.linalg.norm(c, axis=0) <= sensitivity(4, 1) + 1e-12).all()
    for first, second in combinations(range(10), 2):
        if at[second] - at[first] >= 4:
            assert not (c[:, first] * c[:, second]).any()
    with pytest.raises(StoreError, match="round 42: only the 40 from 2 on"):
        next_round(plan, memory, 42, b"")


def test_a_round_that_is_opened_again_has_the_same_noise():
    plan = Banded(100.0, 4, 4, 10, 50)
    first, memory = next_round(plan, Memory(), 3, b"a", seeded(1))
    again, same = next_round(plan, memory, 3, b"a", seeded(2))
    assert (first == again).all() and same is memory
    stored = Memory.of_bytes(memory.to_bytes())
    assert (next_round(plan, stored, 3, b"a", seeded(3))[0] == first).all()


def test_another_set_of_a_round_gets_none():
    plan = Banded(100.0, 4, 4, 10, 50)
    _, memory = next_round(plan, Memory(), 3, b"a")
    with pytest.raises(StoreError, match="drawn for another set"):
        next_round(plan, memory, 3, b"b")
    with pytest.raises(StoreError, match="is older"):
        next_round(plan, memory, 2, b"a")


def test_rounds_beyond_those_accounted_for_get_none():
    plan = Banded(100.0, 2, 2, 3, 4)
    _, memory = run(plan, 3)
    with pytest.raises(StoreError, match="only the 3 from 1 on"):
        next_round(plan, memory, 4, b"d")


def test_a_restored_memory_never_draws_noise_again():
    """Two sets after the same backup: what is new in their noise has nothing in common."""
    plan = Banded(1e4, 4, 4, 10, 20_000)
    _, backup = next_round(plan, Memory(), 1, b"1")
    lost, _ = next_round(plan, backup, 2, b"2")
    after, _ = next_round(plan, Memory.of_bytes(backup.to_bytes()), 2, b"other")
    old = -0.5 * backup.past[1]
    new = np.array([lost - old, after - old])
    assert abs(np.corrcoef(new)[0, 1]) < 5 / np.sqrt(20_000)


def test_a_memory_that_is_lost_keeps_the_bound():
    """C begins again: its columns are shorter, so no pattern of participation moves it more."""
    band, rounds = 4, 12
    whole = dense(band, rounds)
    for lost_after in range(1, rounds):
        c = whole.copy()
        c[lost_after:, :lost_after] = 0
        assert (np.linalg.norm(c, axis=0) <= np.linalg.norm(whole, axis=0) + 1e-12).all()


def test_memory_is_the_band_and_no_more():
    plan = Banded(10.0, 5, 5, 100, 30)
    _, memory = run(plan, 20)
    assert len(memory.to_bytes()) == 33 + len(b"set 20") + 4 * 8 + 4 * 30 * 8


@pytest.mark.parametrize("damage", ["x", "shorter", "longer", "plan"])
def test_damaged_memory_is_refused(damage):
    good = run(Banded(10.0, 3, 3, 100, 30), 5)[1].to_bytes()
    data = {"x": b"x", "shorter": good[:-1], "longer": good + b"x" * 8, "plan": b"\0" * 8 + good[8:]}[damage]
    with pytest.raises(StoreError, match="memory of the noise is damaged"):
        Memory.of_bytes(data)
    assert Memory.of_bytes(Memory().to_bytes()) == Memory()


def test_under_another_plan_noise_begins_again():
    one, two = Banded(1e4, 4, 4, 10, 20_000), Banded(2e4, 4, 4, 10, 20_000)
    first, memory = next_round(one, Memory(), 1, b"1")
    second, memory = next_round(two, memory, 2, b"2")
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(20_000)
    assert memory.first == 2 and list(memory.past) == [2]
    with pytest.raises(StoreError, match="is older"):
        next_round(one, memory, 1, b"1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"band": 0}, {"band": 257, "separation": 257}, {"separation": 3}, {"rounds": 0}, {"sigma": 0.0}, {"length": 0},
        {"sigma": float("nan")},
    ],
)  # fmt: skip
def test_a_plan_that_can_not_be_is_refused(wrong):
    with pytest.raises(UsageError):
        Banded(**{"sigma": 1.0, "band": 4, "separation": 4, "rounds": 10, "length": 5} | wrong)
