"""NoisyProfile: the profile of a masked round whose sum has noise. No I/O.

Each device counts alike, with means and shares of its own values. N devices that report add up to these, each with
noise of standard deviation s, in numbers of devices: T of them have values of a column, U and V are the sums of their
means of u and of u squared, where u goes from -1 to 1 in the column's range.

    mean = middle + half U / T        deviation = half sqrt(max(V / T - (U / T)², 2 s / T))

So a deviation that the noise could have made of 0 is told as the largest such one: a scaling by it makes no column
larger than it should. A column is left out if T, and a bin or label if its sum, is below `TOLD` s, or below
`min_devices`: what is left could be noise alone, or few devices.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...masking.vector import Mean
from ...profiles import Bin, ColumnProfile, LabelProfile, Profile
from ...protocol.profile_terms import MOMENTS
from ...protocol.terms import Terms
from .summed import SummedProfile

TOLD = 3.0  # standard deviations of the noise
Numbers = NDArray[np.float64]


class NoisyProfile(SummedProfile):
    """Sums of shares, with noise."""

    def __init__(self, terms: Terms, min_devices: int) -> None:
        super().__init__(terms, min_devices)
        self._noise = terms.noise.sigma * terms.grid * math.sqrt(len(terms.helpers))  # every helper adds its own
        self._least = max(float(min_devices), TOLD * self._noise)

    def result(self, round: int) -> Profile:
        """As operators see it."""
        found, profile = self._found, self._profile
        assert isinstance(found, Mean)
        sums = found.delta.astype(np.float64) * found.count
        parts = sums[profile.labels :].reshape(profile.columns, MOMENTS + profile.bins)
        columns = [self._noisy(at, part) for at, part in enumerate(parts) if part[0] >= self._least]
        labels = [
            LabelProfile(at, 0, 0, min(1.0, float(sums[at]) / found.count))
            for at in range(profile.labels)
            if sums[at] >= self._least
        ]
        return Profile(round, found.count, 0, self._min_devices, False, columns, labels, masked=True, noise=self._noise)

    def _noisy(self, at: int, part: Numbers) -> ColumnProfile:
        """`part` (MOMENTS + bins,): T, U, V and the bins' sums."""
        low, high = self._profile.range_of(at)
        half, devices = (high - low) / 2, float(part[0])
        u = min(1.0, max(-1.0, float(part[1]) / devices))
        variance = min(1.0, max(float(part[2]) / devices - u * u, 2 * self._noise / devices))
        width = 2 * half / max(1, self._profile.bins)
        bins = [
            Bin(low + key * width, low + (key + 1) * width, 0, 0, min(1.0, float(told) / devices))
            for key, told in enumerate(part[MOMENTS:])
            if told >= self._least
        ]
        ends = (bins[0].low, bins[-1].high) if bins else (None, None)
        mean, noise = (low + high) / 2 + half * u, half * self._noise / devices * math.sqrt(1 + u * u)
        return ColumnProfile(at, round(devices), 0, mean, half * math.sqrt(variance), *ends, bins, noise)
