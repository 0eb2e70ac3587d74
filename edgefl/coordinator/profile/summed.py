"""SummedProfile: the profile of a masked round, whose statistics only come out as the sums of all devices. No I/O.

Nobody can tell the devices apart, so nothing bounds how far one of them may move a mean (gathering.py bounds it where
rounds are not masked). What fewer than `min_devices` devices have is left out as there: for each bin and label, the
devices that have it are one more sum.
"""

from __future__ import annotations

import math

import numpy as np

from ...masking import profile as masking
from ...masking.profile import Pooled
from ...masking.vector import Mean
from ...profiles import Bin, ColumnProfile, LabelProfile, Profile
from ...protocol.profile_terms import ProfileTerms
from ...protocol.statistics import Column
from ...protocol.terms import Terms
from .gathering import shown


class SummedProfile:
    """`capacity`: how many devices may tell. What they have told is there once their sum is opened (`take`)."""

    def __init__(self, terms: Terms, min_devices: int) -> None:
        assert terms.profile is not None
        self.capacity = terms.most
        self._profile: ProfileTerms = terms.profile
        self._min_devices = min_devices
        self._found: Pooled | Mean | None = None

    def take(self, found: Pooled | Mean) -> None:
        """What all devices have told together; a mean, if the terms have ranges."""
        self._found = found

    def result(self, round: int) -> Profile:
        """As operators see it."""
        pooled, least = self._found, self._min_devices
        assert isinstance(pooled, Pooled)
        found = (
            self._column(at, *column, pooled.bins[at])
            for at, column in enumerate(pooled.columns)
            if column[1] >= least and column[0].values
        )
        labels = [
            LabelProfile(int(at), int(pooled.labels[0, at]), int(pooled.labels[1, at]))
            for at in shown(pooled.labels, least)
        ]
        return Profile(round, pooled.devices, pooled.examples, least, False, list(found), labels, masked=True)

    def _column(self, at: int, column: Column, devices: int, counts: np.ndarray) -> ColumnProfile:
        """`counts` (2, keys)."""
        bins = [self._bin(int(key), counts) for key in shown(counts, self._min_devices)]
        ends = (bins[0].low, bins[-1].high) if bins else (None, None)
        return ColumnProfile(at, devices, column.values, column.mean, math.sqrt(column.variance), *ends, bins)

    def _bin(self, key: int, counts: np.ndarray) -> Bin:
        low, high = (edge if math.isfinite(edge) else None for edge in masking.edges_of(key, self._profile))
        return Bin(low, high, int(counts[0, key]), int(counts[1, key]))
