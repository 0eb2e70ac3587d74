"""Quorum: whether enough devices are present to open the next round. No I/O. Part of RoundCoordinator.

It counts devices; which of them the round asks is decided in cohort.py, and which devices are present in presence.py.
"""

from __future__ import annotations

from ...settings import RoundSettings
from .presence import Presence

ASK_AGAIN_S = 30.0  # between two questions which devices are there, while too few are


class Quorum:
    """The first round of all waits for `expect` devices, for at most the length of a deadline; every round waits for
    `min_reports`."""

    def __init__(self, config: RoundSettings, presence: Presence) -> None:
        self._config, self._presence = config, presence
        self._ask_at: float | None = None
        self._go_ahead_at: float | None = None

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted, while no round is open."""
        return self._ask_at if self._too_few else self._go_ahead_at

    @property
    def go_ahead_at(self) -> float | None:
        """When the first round opens without the devices that are still expected; None if no such time is set."""
        return None if self._too_few else self._go_ahead_at

    def needed(self, *, first: bool) -> int:
        """How many devices the next round waits for."""
        least = max(1, self._config.min_reports)
        return max(least, self._config.expect) if first and not self._too_few else least

    @property
    def _too_few(self) -> bool:
        return self._presence.count < max(1, self._config.min_reports)

    def is_reached(self, now: float, *, first: bool) -> bool:
        """Whether the next round may open; `first` before the first round of all.

        A device that comes and goes puts neither the first round off nor the next question.
        """
        if self._too_few:
            return False
        if first and self._presence.count < self._config.expect:
            if self._go_ahead_at is None:
                self._go_ahead_at = now + self._config.deadline_s
            if now < self._go_ahead_at:
                return False
        self._ask_at = self._go_ahead_at = None
        return True

    def ask_again(self, now: float) -> bool:
        """Whether it is time to ask which devices are there, because too few are.

        A broker whose queue is shorter than the fleet drops statuses, a will may come late, and a device that waits
        for a round has no reason to repeat its status.
        """
        if not self._too_few:
            return False
        due = self._ask_at is not None and now >= self._ask_at
        if due or self._ask_at is None:
            self._ask_at = now + ASK_AGAIN_S
        return due
