"""What a device tells of its columns: the numbers, their bytes, and what an aggregator refuses."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from machines import make_manifest, make_round

import edgefl
from edgefl.core.trainer import Cancelled
from edgefl.device.columns.statistics import of_examples
from edgefl.device.events import TrainJob
from edgefl.device.owner.policy import STRICT
from edgefl.device.training import train_update
from edgefl.errors import ProtocolError
from edgefl.onnx import zoo
from edgefl.protocol import statistics as wire
from edgefl.protocol.statistics import BINS, Counts, bin_edges, bins_of
from edgefl.protocol.update_header import UpdateHeader

PLAN = edgefl.load(zoo.from_spec("mlp:4-8-3", 1)).plan
RNG = np.random.default_rng(2)


def table(n: int = 5000) -> np.ndarray:
    """Columns of very different kinds: small, large, large that differ little, and with blanks."""
    x = np.stack(
        [
            RNG.normal(0, 1e-3, n),
            RNG.normal(-5e6, 2e6, n),
            RNG.normal(1e5, 0.5, n),
            np.where(RNG.random(n) < 0.2, np.nan, RNG.integers(0, 3, n)),
        ],
        axis=1,
    )
    return x.astype(np.float32)


def read(payload: bytes, n: int = 5000, columns: int = 4) -> wire.Statistics:
    return wire.decode(payload, columns=columns, most_values=n, most_labels=n)


def test_moments_bins_and_labels_are_those_of_the_data() -> None:
    x, y = table(), RNG.integers(0, 3, 5000)
    told = read(wire.encode(of_examples(PLAN, x, y)))
    for at, column in enumerate(told.columns):
        values = x[:, at][np.isfinite(x[:, at])].astype(np.float64)
        assert column.values == len(values) == column.bins.counts.sum()
        assert np.isclose(column.mean, values.mean(), rtol=1e-12)
        assert np.isclose(column.variance, values.var(), rtol=1e-9)
        for key, count in zip(*column.bins, strict=True):
            low, high = bin_edges(int(key))
            inside = (values >= low) & (values < high) if key > 0 else (values > low) & (values <= high)
            assert count == (inside if key else np.abs(values) < high).sum()
    assert told.labels.counts.tolist() == np.bincount(y).tolist()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=50))
def test_every_number_lies_in_its_bin(numbers: list[float]) -> None:
    for x, key in zip(numbers, bins_of(np.array(numbers, np.float64)), strict=True):
        low, high = bin_edges(int(key))
        assert low <= x <= high and abs(key) <= BINS


def test_bins_meet() -> None:
    for key in range(1, BINS):
        assert bin_edges(key)[1] == bin_edges(key + 1)[0]
    assert bin_edges(0)[1] == bin_edges(1)[0]


@given(st.integers(0, 2**32))
@example(4164985)  # every value is the largest: sums are rounded beyond it
def test_no_data_make_sums_that_are_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 40)), 4
    x = (rng.normal(size=shape) * 10.0 ** rng.uniform(-40, 38, shape)).astype(np.float32)
    x[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    statistics = of_examples(PLAN, x, np.zeros(len(x), np.int64))
    told = read(wire.encode(statistics), n=len(x))
    for ours, theirs in zip(statistics.columns, told.columns, strict=True):
        assert ours[:3] == theirs[:3] and all(np.array_equal(a, b) for a, b in zip(ours.bins, theirs.bins, strict=True))


def test_a_sequence_has_a_column_for_each_feature() -> None:
    """Time steps are more values of the same columns."""
    plan = edgefl.core.plan.Plan.from_bytes(PLAN.to_bytes().replace(b'"input_shape":[4]', b'"input_shape":[5,4]'))
    x = table(50).reshape(10, 5, 4)
    told = of_examples(plan, x, np.zeros(10, np.int64))
    flat = of_examples(PLAN, x.reshape(50, 4), np.zeros(50, np.int64))
    assert [column.values for column in told.columns] == [column.values for column in flat.columns]


def test_statistics_stop_when_they_are_not_wanted_any_more() -> None:
    """A pause acts within a second, however many examples there are."""
    answers = iter([True, True, False])
    with pytest.raises(Cancelled):
        of_examples(PLAN, table(100_000), np.zeros(100_000, np.int64), wanted=lambda: next(answers))


def test_i29_the_aggregator_does_not_choose_the_examples_of_statistics() -> None:
    """What a manifest holds out depends on the index alone, so two that differ in one example would give it away."""
    x, y = table(100), np.zeros(100, np.int64)
    blobs = set()
    for holdout in (0.0, 0.01, 0.02, 0.5):
        manifest = make_manifest(holdout=holdout, plan=PLAN)
        job = TrainJob(manifest, make_round(mode="profile", manifest=manifest), b"", 0)
        blobs.add(train_update(None, job, "a", x, y).blob)
    assert len(blobs) == 1


def test_i29_reports_of_a_table_that_grows_differ_in_whole_groups() -> None:
    """The difference of two reports is of `min_examples` rows at least, and none is of fewer."""
    x, y = table(40), np.zeros(40, np.int64)
    manifest = make_manifest(plan=PLAN)
    job = TrainJob(manifest, make_round(mode="profile", manifest=manifest), b"", 0)
    policy = replace(STRICT, statistics=True)
    blobs = [train_update(None, job, "a", x[:n], y[:n], policy=policy).blob for n in range(10, 41)]
    assert [UpdateHeader.from_bytes(blob).num_examples for blob in blobs] == [n - n % 10 for n in range(10, 41)]
    assert len(set(blobs)) == 4
    told = read(blobs[5][UpdateHeader.SIZE :])
    assert {column.values for column in told.columns[:3]} == {10}


NONE = Counts(np.array([], np.int64), np.array([], np.int64))
EMPTY = wire.Statistics([wire.Column(0, 0, 0, NONE)], NONE)


def forged(values: int = 10, total: int = 0, squares: int = 0, bins: Counts | None = None, extra: bytes = b"") -> bytes:
    bins = Counts(np.array([0]), np.array([values])) if bins is None else bins
    return zlib.compress(wire.pack(wire.Statistics([wire.Column(values, total, squares, bins)], NONE)) + extra)


@pytest.mark.parametrize(
    "payload",
    [
        forged(values=11),  # more than there are examples
        forged(total=1 << 60, squares=1),  # against Cauchy and Schwarz
        forged(total=10 << 101, squares=1 << 255),  # beyond the largest value
        forged(squares=1 << 230),
        forged(bins=Counts(np.array([3, 2]), np.array([5, 5]))),
        forged(bins=Counts(np.array([3, 3]), np.array([5, 5]))),
        forged(bins=Counts(np.array([3]), np.array([9]))),
        forged(bins=Counts(np.array([BINS + 1]), np.array([10]))),
        forged(bins=Counts(np.array([3, 4]), np.array([10, 0]))),
        forged() + b"\0",
        forged()[:-1],
        b"",
        forged(extra=b"\0"),
        zlib.compress(wire.pack(EMPTY)[:-1]),
        zlib.compress(struct.pack("<BBHH", 2, 0, 1, 0)),
        zlib.compress(struct.pack("<BBHH", 1, 0, 1, 65535)),
        zlib.compress(bytes(2**26)),  # 64 MB, of which no more is made than a report can have
    ],
)
def test_what_no_data_make_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode(payload, columns=1, most_values=10, most_labels=10)


def test_the_bound_holds() -> None:
    every = Counts(np.arange(-BINS, BINS + 1), np.ones(2 * BINS + 1, np.int64))
    labels = Counts(np.arange(wire.MOST_LABELS), np.ones(wire.MOST_LABELS, np.int64))
    column = wire.Column(2 * BINS + 1, 0, 0, every)
    statistics = wire.Statistics([column] * 3, labels)
    assert len(wire.encode(statistics)) < len(wire.pack(statistics)) < wire.bound(3)
    read(wire.encode(statistics), n=2000, columns=3)


def test_sums_of_two_devices_are_those_of_all_data() -> None:
    """But for what each device rounds, once."""
    x, y = table(), np.zeros(5000, np.int64)
    parts = [of_examples(PLAN, piece, y[: len(piece)]) for piece in (x[:3000], x[3000:])]
    whole = of_examples(PLAN, x, y)
    for at, column in enumerate(whole.columns):
        a, b = (part.columns[at] for part in parts)
        assert a.values + b.values == column.values
        assert abs(a.total + b.total - column.total) <= 2 + abs(column.total) * 1e-13
