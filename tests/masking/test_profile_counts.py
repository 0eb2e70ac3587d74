"""Statistics as counts: what a sum of them opens to is, to the digit, what devices would have told in the clear."""

from __future__ import annotations

import math

import masked
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import edgefl
from edgefl.device.columns.statistics import of_examples
from edgefl.errors import CodecError, ProtocolError
from edgefl.masking import profile, ring
from edgefl.masking.propose import propose_counts
from edgefl.onnx import zoo
from edgefl.protocol.profile_terms import OCTAVE, ROOM, ProfileTerms, digit_bits
from edgefl.protocol.statistics import BINS, Counts, bin_edges

PLAN = edgefl.load(zoo.from_spec("mlp:4-8-3", 1)).plan


def own_terms(devices: int = 12, columns: int = 4, labels: int = 3, **changes):
    return masked.terms(**{**propose_counts(columns, labels, devices), **changes})


def wild(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns from tiny to huge, with blanks."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, 4)) + rng.normal(size=4)) * 10.0 ** rng.uniform(-30, 30, 4)
    x[rng.random((n, 4)) < 0.1] = rng.choice([np.nan, np.inf, 0.0])
    return x.astype(np.float32), rng.integers(0, 3, n)


def pooled(own, tables):
    """What the sum of these devices' masked vectors opens to; masks cancel, so none are drawn."""
    total = np.zeros(own.length, np.uint32)
    for x, y in tables:
        total += ring.of(profile.tell(of_examples(PLAN, x, y), len(x), own), own.bits)
    return profile.read(ring.centre(total, own.bits), own)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), devices=st.integers(1, 5), most=st.sampled_from([5, 12, 1000, 2**20]))
def test_i35_the_sum_of_profiles_is_exact(seed, devices, most):
    tables = [wild(seed + number, 1 + (seed + 7 * number) % 90) for number in range(devices)]
    found = pooled(own_terms(most), tables)
    told = [of_examples(PLAN, x, y) for x, y in tables]
    assert (found.devices, found.examples) == (devices, sum(len(x) for x, _ in tables))
    for at, (column, there) in enumerate(found.columns):
        theirs = [each.columns[at] for each in told]
        sums = [sum(getattr(each, name) for each in theirs) for name in ("values", "total", "squares")]
        assert [column.values, column.total, column.squares] == sums
        assert there == sum(each.values > 0 for each in theirs)
        counts = np.zeros((2, 2 * BINS + 1), np.int64)
        for each in theirs:
            counts[0, each.bins.keys + BINS] += each.bins.counts
            counts[1, each.bins.keys + BINS] += 1
        assert (found.bins[at] == counts).all()
    labels = np.array([np.bincount(y, minlength=3) for _, y in tables])
    assert (found.labels == [labels.sum(0), (labels > 0).sum(0)]).all()


@pytest.mark.parametrize("bins", [1, 2, 4])
def test_a_coarser_histogram_has_the_sums_of_the_finest(bins):
    fine = own_terms()
    coarse = replace(fine, profile=replace(fine.profile, bins=bins))
    length = coarse.profile.length(coarse.reach)
    coarse = replace(coarse, params=length, coordinates=length)
    tables = [wild(seed, 80) for seed in range(3)]
    one, other = pooled(fine, tables), pooled(coarse, tables)
    assert [column[:3] for column, _ in one.columns] == [column[:3] for column, _ in other.columns]
    for key in range(coarse.profile.keys):
        low, high = profile.edges_of(key, coarse.profile)
        inside = [k for k in range(2 * BINS + 1) if low <= bin_edges(k - BINS)[0] and bin_edges(k - BINS)[1] <= high]
        assert len(inside) == (1 if key == coarse.profile.sides else OCTAVE // bins)
        assert (other.bins[:, 0, key] == one.bins[:, 0, inside].sum(1)).all()


def test_bins_of_every_size_meet():
    for bins in (1, 2, 4):
        terms = ProfileTerms(1, bins=bins)
        for key in range(terms.keys - 1):
            assert profile.edges_of(key, terms)[1] == profile.edges_of(key + 1, terms)[0]
        assert profile.edges_of(terms.keys - 1, terms)[1] == math.inf == -profile.edges_of(0, terms)[0]


def test_a_profile_without_a_histogram_has_the_same_moments():
    own = own_terms()
    bare = replace(own, profile=replace(own.profile, bins=0))
    length = bare.profile.length(bare.reach)
    found = pooled(replace(bare, params=length, coordinates=length), [wild(1, 50), wild(2, 50)])
    assert [c[0][:3] for c in found.columns] == [c[0][:3] for c in pooled(own, [wild(1, 50), wild(2, 50)]).columns]
    assert found.bins.shape == (4, 2, 0)


@pytest.mark.parametrize(("columns", "bins"), [(4, 4), (100, 2), (200, 1), (784, 0), (4096, 0)])
def test_the_histogram_is_as_fine_as_there_is_room_for(columns, bins):
    own = own_terms(1000, columns, 10)
    assert own.profile.bins == bins
    assert bins == 0 or own.coordinates <= ROOM
    assert bins in (0, OCTAVE) or replace(own.profile, bins=2 * bins).length(own.reach) > ROOM


@pytest.mark.parametrize("devices", [2, 3, 100, 1000, 2**20])
def test_counts_of_all_devices_never_wrap(devices):
    own = own_terms(devices)
    own.check()
    assert own.reach == 2 ** digit_bits(own.reach) - 1 and own.most * own.reach < 2**31


def test_more_examples_than_the_sum_has_room_for_are_refused_and_as_many_fit():
    own = own_terms(2**20)
    n = profile.room(own, 1)
    x = np.full((n + 1, 4), 3e38, np.float32)
    y = np.zeros(n + 1, np.int64)
    found = pooled(own, [(x[:n], y[:n])])
    assert found.examples == found.columns[0][0].values == n
    with pytest.raises(CodecError, match="room"):
        profile.tell(of_examples(PLAN, x, y), n + 1, own)


def test_statistics_of_other_columns_are_refused():
    with pytest.raises(CodecError, match="4 columns"):
        profile.tell(of_examples(PLAN, *wild(1, 5)), 5, own_terms(columns=5))


def test_labels_beyond_the_terms_are_left_out():
    x, _ = wild(1, 6)
    told = of_examples(PLAN, x, np.array([0, 1, 1, 2, 2, 2]))
    q = profile.tell(told._replace(labels=Counts(np.array([0, 7, 1000]), np.array([1, 2, 3]))), 6, own_terms())
    assert profile.read(q.astype(np.int64), own_terms()).labels.tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("where", "by"),
    [
        (lambda own: own.coordinates, 1),  # a check
        (lambda own: own.profile.head, 5),  # values, which the bins don't have
        (lambda own: own.profile.head + 1, 50),  # more devices than there are
        (lambda own: own.profile.head + 1, -50),
        (lambda own: 1, -(10**6)),  # labels below none
        (lambda own: 0, -(10**6)),  # examples below none
        (lambda own: own.profile.head + 2 + 4, 10**6),  # a sum beyond what its squares can be
        (lambda own: own.coordinates - 1, -5),  # a bin that less than no devices have
        (lambda own: 0, 2**40),
    ],
)
def test_a_sum_that_no_devices_can_have_told_is_refused(where, by):
    own = own_terms()
    total = np.zeros(own.length, np.int64)
    for seed in range(3):
        total += profile.tell(of_examples(PLAN, *wild(seed, 50)), 50, own)
    profile.read(total, own)
    total[where(own)] += by
    with pytest.raises(ProtocolError):
        profile.read(total, own)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"profile": ProfileTerms(4, 3, 3)}, "3 bins in an octave"),
        ({"profile": ProfileTerms(5, 3, 4)}, "other coordinates than the profile's"),
        ({"reach": 1000}, "other coordinates than the profile's"),
        ({"weights": 2}, "a profile with weights"),
        ({"groups": 2}, "a profile with weights, scores, votes, groups or a transform"),
        ({"scores": True}, "a profile with weights, scores, votes, groups or a transform"),
        ({"whole": 1}, "a profile with weights"),
        ({"transform": "hadamard"}, "a profile with weights, scores, votes, groups or a transform"),
        ({"params": 5000}, "a part of a profile"),
        ({"profile": ProfileTerms(4, 1024, 4)}, "other coordinates"),
    ],
)
def test_terms_of_a_profile_that_cant_be_are_refused(changes, why):
    with pytest.raises(ProtocolError, match=why):
        own_terms(**changes)
