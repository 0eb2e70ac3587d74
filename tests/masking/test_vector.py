"""From a delta to integers within their bounds, and from their sum to the mean."""

from __future__ import annotations

import itertools
import math

import masked
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl import _core
from edgefl.errors import CodecError, ProtocolError, UsageError
from edgefl.masking import choice
from edgefl.masking.propose import propose
from edgefl.masking.vector import MOST_LOSS, Scored, _bounded, mean, quantize
from edgefl.protocol.terms import Noise, Votes

TRANSFORMS = ["subset", "hadamard"]


def own_terms(params=100, clip=1.0, devices=12, **options):
    more = {name: options.pop(name) for name in ("seed", "examples", "noise") if name in options}
    return masked.terms(**propose(params, clip, devices, **options), **more)


def wild(params, seed, scale=1.0):
    return (np.random.default_rng(seed).standard_t(2, params) * scale).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    params=st.integers(1, 300), share=st.floats(0.01, 1), bits=st.integers(6, 24), weights=st.integers(1, 9),
    transform=st.sampled_from(TRANSFORMS), scores=st.booleans(), scale=st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
    seed=st.integers(0, 2**32), votes=st.booleans(),
)  # fmt: skip
def test_i37_every_vector_keeps_all_bounds(params, share, bits, weights, transform, scores, scale, seed, votes):
    try:
        own = own_terms(
            params, 0.7, 3, share=share, bits=bits, weights=weights, transform=transform, scores=scores, seed=seed,
            votes=votes,
        )  # fmt: skip
    except UsageError:
        return
    rng = np.random.default_rng(seed)
    weight = int(rng.integers(1, weights + 1))
    scored = Scored(100, 2.5, 0.75) if scores else None
    made = quantize(wild(params, seed, scale), weight, own, rng.bytes, scored)
    q = made.q.astype(np.int64)
    rest = np.delete(q, np.arange(own.coordinates, own.coordinates + 4))
    assert sum(int(each) ** 2 for each in rest) <= own.norm2
    assert np.abs(q).max() <= own.largest and (np.abs(q[: own.coordinates]) <= own.reach).all()
    assert (q[own.at_checks] == 1).all() and q[own.at_weight] == weight and len(q) == own.length
    norm = np.linalg.norm(wild(params, seed, scale).astype(float))
    assert norm * made.kept <= own.clip * 1.0001
    assert (q[own.at_votes] == (own.votes.size if norm <= own.clip else -own.votes.size)).all()
    assert (own.votes.copies > 0) == votes


@pytest.mark.parametrize("norm2", [0, 3, 30, 300])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_i37_the_norm_holds_where_rounding_would_break_it(norm2, transform):
    """Squared norms that a delta at its clip exceeds: it is made shorter, or rounded toward zero."""
    own = masked.terms(norm2=1 + norm2, transform=transform)
    for seed in range(30):
        made = quantize(wild(100, seed, 9.0), 1, own, np.random.default_rng(seed).bytes)
        assert (made.q[:40].astype(np.int64) ** 2).sum() <= norm2
        assert norm2 < 30 or made.q[:40].any()  # and is not merely 0


def plainly_rounded(x, scale, reach, seed):
    """What ring_round computes, in NumPy."""
    v = x.astype(np.float64) * scale
    if seed is None:
        return np.clip(np.trunc(v), -reach, reach)
    t = (choice.mixed(seed, len(x)) >> np.uint64(11)) * 2.0**-53
    return np.clip(np.floor(v) + (v - np.floor(v) > t), -reach, reach)


@given(
    n=st.integers(0, 200), scale=st.sampled_from([1e-30, 0.37, 1.0, 800.0]), reach=st.sampled_from([1, 7, 2**31 - 1]),
    seed=st.none() | st.integers(0, 2**64 - 1),
)  # fmt: skip
def test_rounding_is_that_of_numpy(n, scale, reach, seed):
    x = wild(n, n)
    q, squares = _core.ring_round(x, scale, reach, seed)
    expected = plainly_rounded(x, scale, reach, seed)
    assert (q == expected).all() and squares == sum(int(each) ** 2 for each in q)
    v = x.astype(np.float64) * scale
    rest = v - np.floor(v)
    assert _core.ring_measure(x, scale) == pytest.approx(((v * v).sum(), (rest * (1 - rest)).sum()), rel=1e-9)


def test_rounding_what_no_integer_holds_is_harmless():
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45], np.float32)
    for seed in (None, 5):
        q, _ = _core.ring_round(x, 1e9, 100, seed)
        assert q.tolist() == [0, 100, -100, 100, -100, 0]


def test_redraws_fall_back_to_rounding_toward_zero():
    """Forty numbers of 1.5: each draw has about twenty 2s. Where there is room for six, no draw will do."""
    drawn = []

    def counted(size):
        drawn.append(size)
        return len(drawn).to_bytes(size, "little")

    values = np.full(40, 1.5, np.float32)
    q = _bounded(values, 1.0, 40 + 6 * 3, 100, counted)
    assert q.tolist() == [1] * 40 and drawn == [8] * 8
    q = _bounded(values, 1.0, 160, 100, counted)
    assert set(q) == {1, 2} and len(drawn) == 9
    with pytest.raises(CodecError, match="does not fit"):
        _bounded(values, 1.0, 39, 100, counted)


def within(values, expected):
    """Whether the mean of values (n, P) is what is expected, within five standard errors in every coordinate."""
    error = np.abs(values.mean(0) - expected)
    return (error <= 5 * values.std(0) / math.sqrt(len(values)) + 1e-6).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("weight", [1, 3])
def test_rounding_is_unbiased(transform, weight):
    """Over many draws of one choice, the mean is what the choice leaves of the delta."""
    own = own_terms(weights=3, share=0.4, bits=10, transform=transform)
    delta = wild(100, 1)
    delta *= np.float32(0.5 / np.linalg.norm(delta))
    rng = np.random.default_rng(7)
    draws = np.array([quantize(delta, weight, own, rng.bytes).q[:40] for _ in range(600)], np.float64)
    exact = choice.take(delta, own).astype(np.float64) * (weight / own.grid)
    rest = exact - np.floor(exact)
    error = np.abs(draws.mean(0) - exact)
    assert (error <= 5 * np.sqrt(rest * (1 - rest) / 600) + 3 / 600).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_mean_is_unbiased_over_the_choices(transform, share):
    """Over many rounds, the mean delta is the devices' weighted mean, although each round sends a part of it."""
    deltas, weights = [wild(100, 1) * np.float32(0.01), wild(100, 2) * np.float32(0.01)], [1, 3]
    rng, found = np.random.default_rng(7), []
    for seed in range(1500):
        own = own_terms(100, 9.0, 3, weights=3, share=share, transform=transform, seed=seed * 7919)
        made = [quantize(each, w, own, rng.bytes).q.astype(np.int64) for each, w in zip(deltas, weights, strict=True)]
        found.append(mean(sum(made), own).delta)
    assert within(np.array(found, np.float64), (deltas[0] + 3 * deltas[1]) / 4)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_all_coordinates_of_some_devices_are_their_mean(transform):
    own = own_terms(128, 9.0, 5, weights=4, share=1, bits=24, transform=transform, scores=True)
    rng = np.random.default_rng(3)
    weights = [1, 4, 2, 2, 3]
    deltas = [wild(128, i) * np.float32(0.05) for i in range(5)]
    made = [quantize(each, w, own, rng.bytes) for each, w in zip(deltas, weights, strict=True)]
    found = mean(sum(each.q.astype(np.int64) for each in made), own)
    expected = sum(w * each.astype(np.float64) for w, each in zip(weights, deltas, strict=True)) / sum(weights)
    assert (found.count, found.weight) == (5, 12) and all(each.kept == 1 for each in made)
    assert np.abs(found.delta - expected).max() < 5 * own.grid


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_clipping_keeps_the_direction(transform):
    own = own_terms(128, 1.0, 5, share=1, bits=24, transform=transform)
    delta = np.random.default_rng(0).standard_normal(128).astype(np.float32)
    made = quantize(delta, 1, own, np.random.default_rng(0).bytes)
    found = mean(made.q.astype(np.int64), own)
    assert made.kept == pytest.approx(1 / np.linalg.norm(delta), rel=1e-5)
    assert np.abs(found.delta - delta * made.kept).max() < 2 * own.grid


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_i16_a_delta_that_is_not_finite_is_refused(bad):
    delta = np.zeros(100, np.float32)
    delta[17] = bad
    with pytest.raises(CodecError) as caught:
        quantize(delta, 1, masked.terms(), np.random.default_rng(0).bytes)
    assert caught.value.code == "finite"


@pytest.mark.parametrize(("size", "weight"), [(99, 1), (101, 1), (100, 0), (100, 2)])
def test_a_delta_of_other_terms_is_refused(size, weight):
    with pytest.raises(CodecError, match="not of these terms"):
        quantize(np.zeros(size, np.float32), weight, masked.terms(), np.random.default_rng(0).bytes)


def test_denormals_and_zeros():
    for scale in (0.0, 1e-45, 1e-38):
        made = quantize(np.full(100, scale, np.float32), 1, masked.terms(), np.random.default_rng(0).bytes)
        assert not made.q[:40].any() and made.kept == 1


# ---- the mean


def total_of(own, count=3):
    rng = np.random.default_rng(0)
    return sum(masked.vector(own, rng).astype(np.int64) for _ in range(count))


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("change", [-1, 1])
def test_i35_a_sum_whose_checks_disagree_is_refused(place, change):
    own = masked.terms()
    total = total_of(own)
    total[own.coordinates + place] += change
    with pytest.raises(ProtocolError, match="do not add up to a count") as caught:
        mean(total, own)
    assert caught.value.code == "sum"


@pytest.mark.parametrize("count", [-1, 0, 13])
def test_a_count_that_cant_be_is_refused(count):
    own = masked.terms()
    total = total_of(own)
    total[own.at_checks] = count
    with pytest.raises(ProtocolError, match="do not add up to a count"):
        mean(total, own)


@pytest.mark.parametrize("weight", [-1, 2, 16])
def test_weights_that_cant_be_are_refused(weight):
    own = masked.terms(weights=5)
    total = total_of(own)
    total[own.at_weight] = weight
    with pytest.raises(ProtocolError, match="weights add up to"):
        mean(total, own)


@pytest.mark.parametrize("value", [301, -301])
def test_a_sum_out_of_reach_is_refused(value):
    own = masked.terms()
    total = total_of(own)
    total[11] = value
    with pytest.raises(ProtocolError, match="can't reach"):
        mean(total, own)
    total[11] = 300
    mean(total, own)


def test_scores_are_a_weighted_mean():
    own = own_terms(params=20, share=1.0, scores=True, weights=10, examples=10)
    rng = np.random.default_rng(0)
    zero = np.zeros(20, np.float32)
    told = [Scored(100, 1.5, 0.5), Scored(50, 3.0, 0.9), Scored(10**6, 1e9, None), None, Scored(0, 1.0, 1.0)]
    sums = np.zeros(own.length, np.int64)
    for _ in range(300):
        sums += sum(quantize(zero, 1, own, rng.bytes, each).q.astype(np.int64) for each in told)
    weight, loss, accuracy = sums[own.at_scores] / 300 / own.most_score
    assert (weight, accuracy) == pytest.approx((1 + 0.5 + 1, 0.5 + 0.45), rel=0.03)
    assert loss * MOST_LOSS == pytest.approx(1.5 + 1.5 + MOST_LOSS, rel=0.03)
    found = mean(sum(quantize(zero, 1, own, rng.bytes, each).q.astype(np.int64) for each in told[:2]), own)
    assert found.held_out == pytest.approx((2.0, 0.633), rel=0.15)
    assert mean(quantize(zero, 1, own, rng.bytes).q.astype(np.int64), own).held_out is None


def test_votes_tell_the_share_that_was_within_the_clip():
    own = own_terms(params=2000, clip=1.0, votes=True)
    rng, total = np.random.default_rng(0), np.zeros(own.length, np.int64)
    for norm in (0.0, 0.5, 0.999, 1.001, 7.0):
        delta = wild(2000, 1)
        delta *= np.float32(norm / np.linalg.norm(delta))
        total += quantize(delta, 1, own, rng.bytes).q
    assert mean(total, own).within == 3 / 5
    assert mean(total_of(masked.terms()), masked.terms()).within is None


@pytest.mark.parametrize("sign", [1, -1])
def test_votes_out_of_reach_are_refused_and_noise_carries_a_share_no_farther_than_to_all_or_none(sign):
    own = masked.terms(votes=Votes(2, 10), noise=Noise("independent", 3.0))
    total = total_of(own)
    most = 3 * 10 + own.noise_bound
    total[own.at_votes] = sign * most
    assert mean(total, own).within == (sign > 0)
    total[own.at_votes.start] += sign
    with pytest.raises(ProtocolError, match="can't reach"):
        mean(total, own)


def test_under_its_mask_one_device_may_vote_for_all_as_the_privacy_page_says():
    """Two of three say no: nobody sees that the third one's vote is five times as large as it may be."""
    own = masked.terms(votes=Votes(2, 10))
    total = total_of(own)
    total[own.at_votes] = -10 - 10 + 50
    assert mean(total, own).within == 1.0


# ---- which numbers


@given(
    params=st.integers(1, 9000), part=st.floats(0, 1), seed=st.integers(0, 2**53),
    transform=st.sampled_from(TRANSFORMS),
)  # fmt: skip
def test_a_draw_is_in_order_distinct_and_within(params, part, seed, transform):
    own = masked.terms(params=params, coordinates=max(1, int(part * params)), seed=seed, transform=transform)
    places = choice.draw(own)
    assert len(places) == own.coordinates and (np.diff(places) > 0).all()
    assert places[0] >= 0 and places[-1] < choice.drawn_from(own)


def test_every_number_is_drawn_as_often():
    counts = np.zeros(100)
    for seed in range(4000):
        counts[choice.draw(masked.terms(params=100, coordinates=30, seed=seed))] += 1
    assert counts.min() > 0.8 * 1200 and counts.max() < 1.2 * 1200


def test_a_draw_has_known_places():
    """All machines draw the same, in all versions."""
    assert choice.draw(masked.terms(params=100, coordinates=8, seed=2**53)).tolist() == [9, 13, 31, 44, 53, 69, 79, 91]


@pytest.mark.parametrize("params", [1, 2, 3, 100, 4096, 5000])
def test_hadamard_is_orthonormal_and_its_own_inverse(params):
    own = masked.terms(params=params, coordinates=params, transform="hadamard")
    x = wild(params, 0)
    block, total = choice.block_of(params), choice.drawn_from(own)
    padded = np.zeros(total, np.float32)
    padded[:params] = x
    _core.hadamard(padded, block)
    assert np.linalg.norm(padded) == pytest.approx(np.linalg.norm(x), rel=1e-5)
    _core.hadamard(padded, block)
    assert np.abs(padded[:params] - x).max() < 1e-5 * np.abs(x).max() * 10


def test_hadamard_is_sylvesters_matrix():
    expected = np.ones((1, 1))
    for _ in range(3):
        expected = np.block([[expected, expected], [expected, -expected]])
    for i in range(8):
        column = np.zeros(8, np.float32)
        column[i] = 1
        _core.hadamard(column, 8)
        assert np.allclose(column, expected[:, i] / math.sqrt(8))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_back_is_a_projection_of_whole_blocks(transform):
    """But for the factor N / c."""
    own = masked.terms(params=8192, coordinates=900, transform=transform)
    x, factor = wild(8192, 1), 900 / 8192
    once = choice.back(choice.take(x, own), own) * np.float32(factor)
    twice = choice.back(choice.take(once, own), own) * np.float32(factor)
    assert np.abs(once - twice).max() < 1e-6 * np.linalg.norm(x)


@pytest.mark.parametrize("params", [1, 5, 70, 5000])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_neither_what_is_sent_nor_what_is_left_is_longer(transform, params):
    own = masked.terms(params=params, coordinates=-(-params // 3), transform=transform)
    x = wild(params, 1)
    sent = choice.back(choice.take(x, own), own) * np.float32(own.coordinates / choice.drawn_from(own))
    assert max(np.linalg.norm(sent), np.linalg.norm(x - sent)) <= np.linalg.norm(x) * 1.0001


@pytest.mark.parametrize(
    ("params", "whole", "coordinates"), [(100, 7, 20), (100, 7, 8), (100, 100, 100), (5000, 1, 5000)]
)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_running_statistics_are_sent_whole_as_they_are(params, whole, coordinates, transform):
    own = masked.terms(params=params, coordinates=coordinates, whole=whole, transform=transform)
    x = wild(params, 3)
    assert (choice.take(x, own)[-whole:] == x[-whole:]).all() and len(choice.take(x, own)) == coordinates
    assert (choice.back(choice.take(x, own), own)[-whole:] == x[-whole:]).all()
    assert len(choice.draw(own)) == coordinates - whole


def test_hadamard_spreads_what_is_large():
    """One large number of a block: no number of its transform is above 1 / sqrt(n) of it."""
    x = np.zeros(4096, np.float32)
    x[77] = 1
    own = masked.terms(params=4096, coordinates=4096, transform="hadamard")
    assert np.abs(choice.take(x, own)).max() == pytest.approx(1 / 64)


# ---- propose


@pytest.mark.parametrize(("params", "transform"), [(2410, "subset"), (199_210, "subset"), (199_210, "hadamard")])
def test_votes_cost_a_hundredth_of_noise_and_no_number_but_the_grid_depends_on_the_clip(params, transform):
    plain, own = (propose(params, 1.0, 100, share=1.0, transform=transform, votes=votes) for votes in (False, True))
    assert own["votes"].size <= own["reach"] == plain["reach"] and own["grid"] == plain["grid"]
    assert own["norm2"] == plain["norm2"] + own["votes"].norm2
    assert "votes" not in plain
    assert 0.019 < own["votes"].norm2 / plain["norm2"] < 0.021
    for clip in (1e-4, 0.37, 1e4):
        scaled = propose(params, clip, 100, share=1.0, transform=transform, votes=True)
        assert scaled.pop("grid") == pytest.approx(own["grid"] * clip, rel=1e-12)
        assert scaled | {"clip": 0, "grid": 0} == own | {"clip": 0, "grid": 0}


@given(
    params=st.integers(1, 10**6), clip=st.floats(1e-6, 1e6), devices=st.integers(2, 10_000), bits=st.integers(2, 32),
    weights=st.integers(1, 100), share=st.floats(0.001, 1), whole=st.floats(0, 1),
    transform=st.sampled_from(TRANSFORMS), scores=st.booleans(), votes=st.booleans(),
)  # fmt: skip
def test_what_is_proposed_are_terms(params, clip, devices, bits, weights, share, whole, transform, scores, votes):
    try:
        fields = propose(
            params, clip, devices, whole=int(whole * params), weights=weights, share=share, bits=bits,
            transform=transform, scores=scores, votes=votes,
        )  # fmt: skip
    except UsageError as error:
        assert "take more bits" in str(error) and (2 ** (bits - 1) - 1) // devices < weights
        return
    masked.terms(**fields)


def test_a_full_delta_fits_as_a_rule():
    """A delta at its clip is neither shortened nor rounded toward zero, nine times in ten."""
    kept = 0
    for seed, transform in itertools.product(range(50), TRANSFORMS):
        own = own_terms(2000, 1.0, 100, share=0.125, transform=transform, seed=seed)
        delta = np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
        delta *= np.float32(0.999 / np.linalg.norm(delta))
        kept += quantize(delta, 1, own, np.random.default_rng(seed).bytes).kept == 1
    assert kept >= 90
