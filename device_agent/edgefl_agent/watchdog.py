"""Watchdog: notices that a call into the owner's code has not returned in time, and that it has at last. No clock."""

from __future__ import annotations

MIN_PATIENCE_S = 60.0


class Watchdog:
    """One thread calls `began` and `ended`, another one `look`."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._told = False

    def began(self, now: float) -> None:
        self._began = now

    def ended(self) -> None:
        self._began = None

    def look(self, now: float, patience_s: float) -> float | None:
        """For how long the call has hung, once, when that exceeds `patience_s` (at least a minute); 0, once, when a
        call that hung has returned; None: there is nothing new to say."""
        began = self._began
        hung_s = 0.0 if began is None else now - began
        hangs = hung_s >= max(patience_s, MIN_PATIENCE_S) or (self._told and began is not None)
        if hangs == self._told:
            return None
        self._told = hangs
        return hung_s if hangs else 0.0
