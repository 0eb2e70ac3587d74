"""ProfileNumbers: which coordinates, bounds and noise the profile rounds of a masked federation have. No I/O.

Part of RoundCoordinator. Without noise they are exact counts; with noise, shares within ranges that the operator knows
beforehand (protocol/profile_terms.py). Noise is as large, over the longest vector, as that of rounds that train, and
always independent: a profile's numbers are of no later round. So each costs as much as one round by itself does.
"""

from __future__ import annotations

import math
from typing import Any

from ...core.columns import Columns, labels_of
from ...core.plan import Plan
from ...errors import UsageError
from ...masking.propose import propose_counts, propose_shares
from ...privacy.accountant import Mechanism
from ...protocol.statistics import MOST_LABELS
from ...protocol.terms import MAX_BITS, Noise
from ...settings import FeatureSettings, PrivacySettings

NO_RANGES = "privacy.noise needs a bound on each column: set features.ranges to low:high of each, and start again"
MOST_RANGES = 40  # whose two numbers have room in a round, beside four helpers


class ProfileNumbers:
    """For at most `fleet` devices. `missing`: why there can be no profile, "" if there can. UsageError for settings
    that make none."""

    mechanism: Mechanism | None = None

    def __init__(self, settings: PrivacySettings, features: FeatureSettings, plan: Plan, fleet: int) -> None:
        self.noise = Noise(separation=settings.separation)
        ranges = features.column_ranges
        self.missing = NO_RANGES if settings.noise != "none" and not ranges else ""
        self._numbers: dict[str, Any] | None = None
        self._plan, self._fleet = plan, fleet
        if settings.noise != "none" and ranges:
            self._fit(settings, ranges)

    def _fit(self, settings: PrivacySettings, ranges: tuple[tuple[float, float], ...]) -> None:
        columns = Columns.of(self._plan).number
        if len(ranges) > MOST_RANGES:
            raise UsageError(
                f"features.ranges has {len(ranges)} ranges, at most {MOST_RANGES}: give one for all columns"
            )
        if len(ranges) not in (1, columns):
            raise UsageError(
                f"features.ranges has {len(ranges)} ranges for {columns} columns: give one for each, or one"
            )
        numbers = propose_shares(columns, self._labels, ranges, self._fleet, sigma=settings.sigma)
        sigma = settings.sigma * math.sqrt(numbers["norm2"])
        self.noise = Noise("independent", sigma, separation=settings.separation)
        self.mechanism = Mechanism.of(self.noise, numbers["norm2"])
        self._numbers = numbers

    @property
    def numbers(self) -> dict[str, Any]:
        """Fields of Terms. Noise has as many bits as there are: a profile is short."""
        if self._numbers is None:
            self._numbers = propose_counts(Columns.of(self._plan).number, self._labels, self._fleet)
        return {"bits": MAX_BITS} | self._numbers

    @property
    def _labels(self) -> int:
        return min(labels_of(self._plan), MOST_LABELS)
