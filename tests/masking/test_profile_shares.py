"""Statistics as shares of ranges: what bounds one device, and what a sum of them tells without noise."""

from __future__ import annotations

import math

import masked
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import edgefl
from edgefl.coordinator.profile.noisy import NoisyProfile
from edgefl.coordinator.profile.numbers import MOST_RANGES
from edgefl.device.columns.shares import shares_of
from edgefl.errors import ProtocolError
from edgefl.masking.propose import propose_counts, propose_shares
from edgefl.masking.vector import mean, quantize
from edgefl.onnx import zoo
from edgefl.protocol.profile_terms import IN_RANGE, MOMENTS, ProfileTerms
from edgefl.protocol.terms import Noise

PLAN = edgefl.load(zoo.from_spec("mlp:4-8-3", 1)).plan
RANGES = ((0.0, 10.0), (-1.0, 1.0), (900.0, 1100.0), (-1e6, 1e6))


def own_terms(devices: int = 12, ranges=RANGES, labels: int = 3, **changes):
    return masked.terms(**{"bits": 32, **propose_shares(4, labels, ranges, devices, sigma=1.0), **changes})


def wild(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Anything that float32 has, blanks too."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) * 10.0 ** rng.uniform(-30, 38, (n, 4))
    x[rng.random((n, 4)) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    return x.astype(np.float32), rng.integers(0, 3, n)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 60), devices=st.sampled_from([2, 12, 5000]))
@example(seed=1, n=1, devices=12)
def test_i37_no_table_makes_a_longer_vector_than_noise_is_accounted_for(seed, n, devices):
    own = own_terms(devices)
    x, y = wild(seed, n)
    shares = shares_of(PLAN, x, y, own.profile)
    assert np.isfinite(shares).all() and np.abs(shares).max(initial=0) <= 1
    assert np.linalg.norm(shares.astype(float)) <= own.clip * (1 + 1e-6)
    q = quantize(shares, 1, own, np.random.default_rng(seed).bytes).q.astype(object)
    rest = np.delete(q, np.arange(own.coordinates, own.coordinates + 4))
    assert sum(each * each for each in rest) <= own.norm2 and max(abs(rest[: own.coordinates])) <= own.reach


def test_i37_the_longest_vector_is_that_of_one_value_at_an_end_in_each_column():
    own = own_terms()
    x = np.array([[high for _, high in RANGES]], np.float32)
    shares = shares_of(PLAN, x, np.zeros(1, np.int64), own.profile)
    assert math.isclose(float((shares.astype(float) ** 2).sum()), own.profile.most2, rel_tol=1e-6)


def test_i37_one_example_more_or_a_million_changes_a_device_no_further_than_its_norm():
    """The numbers are means: they do not grow with the examples."""
    own = own_terms()
    few = shares_of(PLAN, *wild(1, 3), own.profile)
    x, y = wild(2, 50_000)
    many = shares_of(PLAN, x, y, own.profile)
    assert np.linalg.norm(few) <= own.clip and np.linalg.norm(many) <= own.clip


def test_shares_are_those_of_the_values_within_their_ranges():
    rng = np.random.default_rng(3)
    x = np.stack(
        [rng.uniform(-5, 15, 500), rng.normal(0, 0.3, 500), rng.normal(1013, 9, 500), rng.normal(0, 1e5, 500)], 1
    )
    x[::7, 1] = np.nan
    y = rng.integers(0, 3, 500)
    profile = own_terms().profile
    found = shares_of(PLAN, x.astype(np.float32), y, profile)
    assert np.allclose(found[:3], np.bincount(y, minlength=3) / 500)
    parts = found[3:].reshape(4, MOMENTS + IN_RANGE)
    for at, (low, high) in enumerate(RANGES):
        values = x[:, at].astype(np.float32).astype(float)
        u = np.clip((values[np.isfinite(values)] - (low + high) / 2) / ((high - low) / 2), -1, 1)
        assert parts[at, 0] == 1 and np.allclose(parts[at, 1:3], [u.mean(), (u * u).mean()], atol=1e-6)
        assert np.allclose(parts[at, MOMENTS:], np.histogram(u, IN_RANGE, (-1, 1))[0] / len(u), atol=0.01)
    empty = shares_of(PLAN, np.full((5, 4), np.nan, np.float32), y[:5], profile)
    assert not empty[3:].any()


def told(own, tables, noise=None):
    total = np.zeros(own.length, np.int64)
    for at, (x, y) in enumerate(tables):
        total += quantize(shares_of(PLAN, x, y, own.profile), 1, own, np.random.default_rng(at).bytes).q
    if noise is not None:
        drawn = noise(own.length)
        drawn[own.at_checks] = 0
        total += drawn
    gathering = NoisyProfile(own, 2)
    gathering.take(mean(total, own))
    return gathering.result(5)


def tables(devices: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    scale, centre = np.array([1.0, 0.2, 9.0, 1e5]), np.array([4.0, 0.1, 1013.0, 2e5])
    return [
        ((rng.normal(size=(50, 4)) * scale + centre).astype(np.float32), rng.integers(0, 3, 50)) for _ in range(devices)
    ]


def test_without_noise_mean_and_deviation_are_those_of_devices_that_count_alike():
    data = tables(20)
    found = told(own_terms(20), data)
    x = np.concatenate([each for each, _ in data]).astype(float)
    for at, column in enumerate(found.columns):
        assert column.column == at and column.devices == 20
        half = (RANGES[at][1] - RANGES[at][0]) / 2
        assert abs(column.mean - x[:, at].mean()) < half * 1e-3
        assert abs(column.deviation - x[:, at].std()) < 0.02 * x[:, at].std()
    assert abs(sum(label.share for label in found.labels) - 1) < 0.01


def test_with_noise_it_says_how_much_and_that_is_how_far_off_it_is():
    """Of 200 draws, means lie as far off as the table says, and none is off by more than five times."""
    own = own_terms(300)
    own = masked.terms(**{
        **{name: getattr(own, name) for name in own.__struct_fields__},
        "noise": Noise("independent", 3.0 * own.reach), "epsilon": 1.0, "delta": 1e-5,
    })  # fmt: skip
    data, rng = tables(300), np.random.default_rng(1)
    exact = told(own_terms(300), data)
    off = []
    shares = [shares_of(PLAN, x, y, own.profile) for x, y in data]
    base = sum(quantize(each, 1, own, rng.bytes).q.astype(np.int64) for each in shares)
    for _ in range(200):
        drawn = np.rint(rng.normal(0, own.noise.sigma, own.length)).astype(np.int64)
        drawn[own.at_checks] = 0
        gathering = NoisyProfile(own, 2)
        gathering.take(mean(base + drawn, own))
        found = gathering.result(5)
        assert math.isclose(found.noise, 3.0, rel_tol=1e-6) and len(found.columns) == 4
        off += [(a.mean - b.mean) / a.noise for a, b in zip(found.columns, exact.columns, strict=True)]
        for noisy, right in zip(found.columns, exact.columns, strict=True):
            half = (RANGES[noisy.column][1] - RANGES[noisy.column][0]) / 2
            apart = (noisy.deviation**2 - right.deviation**2) / half**2
            assert -6 * 3.0 / 300 < apart < 8 * 3.0 / 300, "of the variance, which is told to be 2 s / T at least"
    assert 0.9 < np.std(off) < 1.1 and np.abs(off).max() < 5


def test_what_the_noise_may_be_all_of_is_left_out():
    """Two devices in noise of three: nothing is told of any column."""
    own = own_terms(12)
    fields = {name: getattr(own, name) for name in own.__struct_fields__}
    noisy = {"noise": Noise("independent", 3.0 * own.reach), "epsilon": 1.0, "delta": 1e-5}
    own = masked.terms(**{**fields, **noisy})
    rng = np.random.default_rng(0)
    found = told(own, tables(2), lambda length: np.rint(rng.normal(0, own.noise.sigma, length)).astype(np.int64))
    assert found.devices == 2 and not found.columns
    assert "the noise may be all of" in found.table() and "noise of 3 devices" in found.table()


def test_a_deviation_that_noise_could_have_made_of_nothing_is_told_as_the_largest_such_one():
    own = own_terms(300)
    fields = {name: getattr(own, name) for name in own.__struct_fields__}
    own = masked.terms(**{**fields, "noise": Noise("independent", float(own.reach)), "epsilon": 1.0, "delta": 1e-5})
    constant = [(np.full((20, 4), 0.5, np.float32), np.zeros(20, np.int64))] * 300
    found = told(own, constant)  # no noise was drawn
    assert math.isclose(found.columns[1].deviation, math.sqrt(2 / 300), rel_tol=1e-3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"profile": ProfileTerms(4, 3, IN_RANGE, RANGES[:2])}, "2 ranges for 4 columns"),
        ({"profile": ProfileTerms(4, 3, IN_RANGE, ((1.0, 1.0),))}, "a range that is empty"),
        ({"profile": ProfileTerms(4, 3, 4, RANGES)}, "other coordinates than the profile's"),
        ({"noise": Noise("banded", 5.0, band=2, separation=3, rounds=9)}, "correlated noise"),
    ],
)
def test_terms_of_shares_that_cant_be_are_refused(changes, why):
    with pytest.raises(ProtocolError, match=why):
        own_terms(**changes)


def test_i37_counts_never_have_noise():
    """Nothing bounds a count, so noise on it would be told as an epsilon that it does not give."""
    with pytest.raises(ProtocolError, match="noise on counts"):
        masked.terms(**propose_counts(4, 3, 12), noise=Noise("independent", 5.0), epsilon=1.0, delta=1e-5)


def test_shares_without_bins_are_means_alone():
    x, y = wild(3, 20)
    full, bare = (shares_of(PLAN, x, y, ProfileTerms(4, 3, bins, RANGES)) for bins in (IN_RANGE, 0))
    assert len(bare) == 3 + 4 * MOMENTS
    assert (bare[3:].reshape(4, -1) == full[3:].reshape(4, -1)[:, :MOMENTS]).all()


def test_one_range_serves_all_columns():
    one, each = own_terms(ranges=((0.0, 1.0),)), own_terms(ranges=((0.0, 1.0),) * 4)
    x, y = wild(4, 30)
    assert (shares_of(PLAN, x, y, one.profile) == shares_of(PLAN, x, y, each.profile)).all()


def test_as_many_ranges_as_settings_may_have_fit_into_the_terms():
    widest = tuple((-(2.0**59) - 1e3 * at, 1e-300 / 3) for at in range(MOST_RANGES))
    helpers = tuple(masked.helper(f"{at}".rjust(48, "h")) for at in range(4))
    assert len(own_terms(ranges=widest[:4], helpers=helpers).text) < 4096
    profile = ProfileTerms(MOST_RANGES, 1024, IN_RANGE, widest)
    numbers = propose_shares(MOST_RANGES, 1024, widest, 2**20, sigma=1.2345678901234567)
    noise = Noise("independent", 123456.78901234567, separation=10**6)
    own = masked.terms(
        helpers, **{"bits": 32, "profile": profile, **numbers}, noise=noise, epsilon=1.2345678901234567, delta=1.1e-05
    )
    assert len(own.text) < 4096
