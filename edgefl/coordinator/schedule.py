"""Schedule: when the next round may open, as far as time decides. No I/O. Part of RoundCoordinator.

Whether enough devices are there is decided in quorum.py.
"""

from __future__ import annotations

from ..settings import RoundSettings


class Schedule:
    """At least `interval_s` seconds pass between the openings of two rounds; after a start the first one may open."""

    def __init__(self, config: RoundSettings) -> None:
        self._interval_s = config.interval_s or 0.0
        self._opens_at: float | None = None

    @property
    def opens_at(self) -> float | None:
        """When the next round may open; None: at once. `is_open` keeps it up to date."""
        return self._opens_at

    def opened(self, now: float) -> None:
        """A round opens."""
        self._opens_at = now + self._interval_s if self._interval_s else None

    def is_open(self, now: float) -> bool:
        """Whether a round may open now."""
        if self._opens_at is not None and now >= self._opens_at:
            self._opens_at = None
        return self._opens_at is None
