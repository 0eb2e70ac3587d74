"""From a device's statistics to the counts that it masks in a profile round, and from their sum to those of all.

protocol/profile_terms.py has the layout. Nothing is rounded: the sums that are opened are exactly those that devices
would have told in the clear. One thing is less: an aggregator can't look at one device's numbers, so it refuses only
what no devices at all could have told together.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CodecError, ProtocolError
from ..protocol.profile_terms import OCTAVE, ProfileTerms, digit_bits, digits
from ..protocol.statistics import Column, Counts, Statistics, bin_edges, can_be
from ..protocol.terms import Terms

Integers = NDArray[np.int64]


class Pooled(NamedTuple):
    """What `devices` have told together of `examples`. Of each column the sums, and how many devices have values;
    `bins` (columns, 2, keys) and `labels` (2, labels) have how many values or labels, and on how many devices."""

    devices: int
    examples: int
    columns: list[tuple[Column, int]]
    bins: Integers
    labels: Integers


def room(terms: Terms, most_a_row: int) -> int:
    """The most examples that a device may tell of, if each has at most so many values of a column, or labels."""
    return terms.reach // max(1, most_a_row)


def tell(statistics: Statistics, examples: int, terms: Terms) -> NDArray[np.int32]:
    """(L,) what a device masks. CodecError if that does not fit, which `room` examples do."""
    profile, reach = _of(terms), terms.reach
    columns, labels = statistics
    if len(columns) != profile.columns:
        raise CodecError(f"statistics of {len(columns)} columns, and the terms are of {profile.columns}", "length")
    told = np.zeros((2, profile.labels), np.int64)
    known = labels.keys < profile.labels
    told[:, labels.keys[known]] = labels.counts[known], np.ones(int(known.sum()))
    parts = [[examples], told.reshape(-1), *(_of_column(column, profile, reach) for column in columns)]
    values = np.concatenate([np.asarray(part, np.int64) for part in parts])
    if values.size and max(int(values.max()), -int(values.min())) > reach:
        raise CodecError(f"counts above the {reach} that the terms have room for", "codec")
    q = np.ones(terms.length, np.int32)
    q[: terms.coordinates] = values
    return q


def read(total: Integers, terms: Terms) -> Pooled:
    """What the opened, centred sum (L,) says; ProtocolError if no honest devices tell that together."""
    profile, reach = _of(terms), terms.reach
    checks = total[terms.at_checks]
    devices, values = int(checks[0]), total[: terms.coordinates]
    if (checks != devices).any() or not 1 <= devices <= terms.most:
        raise ProtocolError("masked vectors whose checks do not add up to a count: refused", "sum")
    if max(int(values.max()), -int(values.min())) > devices * reach:
        raise ProtocolError(f"masked vectors whose sum {devices} devices can't reach: refused", "sum")
    labels = values[1 : profile.head].reshape(2, profile.labels)
    parts = values[profile.head :].reshape(profile.columns, profile.width(reach))
    columns = [_column_of(part, reach) for part in parts]
    bins = parts[:, parts.shape[1] - 2 * profile.keys :].reshape(profile.columns, 2, profile.keys)
    found = Pooled(devices, int(values[0]), columns, bins, labels)
    _check(found, reach)
    return found


def edges_of(key: int, profile: ProfileTerms) -> tuple[float, float]:
    """Where bin `key` of a column begins and ends, key 0 the lowest; an open one ends at infinity."""
    at, fine = key - profile.sides, OCTAVE // profile.bins
    if at < 0:
        low, high = edges_of(profile.sides - at, profile)
        return -high, -low
    return bin_edges(0) if at == 0 else (bin_edges(fine * (at - 1) + 1)[0], bin_edges(fine * at)[1])


def _of(terms: Terms) -> ProfileTerms:
    assert terms.profile is not None
    return terms.profile


def _of_column(column: Column, profile: ProfileTerms, reach: int) -> Integers:
    """(W,) of one column."""
    for_sum, for_squares = digits(reach)
    found = np.zeros((2, profile.keys), np.int64)
    if profile.bins:
        keys, fine = column.bins.keys, OCTAVE // profile.bins
        at = np.sign(keys) * -(-abs(keys) // fine) + profile.sides
        np.add.at(found[0], at, column.bins.counts)
        found[1, at] = 1
    head = [column.values, int(column.values > 0)]
    numbers = _digits(column.total, for_sum, reach) + _digits(column.squares, for_squares, reach)
    return np.concatenate((np.array(head + numbers, np.int64), found.reshape(-1)))


def _column_of(part: Integers, reach: int) -> tuple[Column, int]:
    """The sums of one column, without its bins, and how many devices have values."""
    for_sum, for_squares = digits(reach)
    ends = 2, 2 + for_sum, 2 + for_sum + for_squares
    total, squares = (_number(part[start:stop], reach) for start, stop in pairwise(ends))
    none: Integers = np.zeros(0, np.int64)
    return Column(int(part[0]), total, squares, Counts(none, none)), int(part[1])


def _digits(number: int, count: int, reach: int) -> list[int]:
    """The digits of a number, the lowest first, each with its sign."""
    bits, sign = digit_bits(reach), -1 if number < 0 else 1
    mask = (1 << bits) - 1
    return [sign * (abs(number) >> bits * place & mask) for place in range(count)]


def _number(places: Integers, reach: int) -> int:
    """The number of these digits, of which each may be a sum over devices."""
    bits = digit_bits(reach)
    return sum(int(digit) << bits * place for place, digit in enumerate(places))


def _check(found: Pooled, reach: int) -> None:
    """ProtocolError if no data can be behind it. A device that has something has it once at least, and `reach` times at
    most."""
    values = [column.values for column, _ in found.columns]
    counts = np.concatenate((found.bins[:, 0].reshape(-1), found.labels[0], values))
    seen = np.concatenate((found.bins[:, 1].reshape(-1), found.labels[1], [there for _, there in found.columns]))
    known = bool(found.examples >= 0 and (seen >= 0).all() and (seen <= found.devices).all())
    known = known and bool((seen <= counts).all() and (counts <= seen * reach).all())
    filled = not found.bins.size or bool((found.bins[:, 0].sum(1) == values).all())
    if not (known and filled and all(can_be(column) for column, _ in found.columns)):
        raise ProtocolError("a sum of column statistics that no devices can have told together: refused", "sum")
