"""Line: one direction of a simulated link. First in, first out, with a rate; nothing is lost on it."""

from __future__ import annotations


class Line:
    """`rate` in bytes a second; None: a message passes at once."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = 0.0

    def send(self, size: int, now: float) -> float:
        """The time at which a message of `size` bytes, sent now, has passed: all that was sent before it goes first."""
        if self._rate is None:
            return now
        self._free_at = max(now, self._free_at) + size / self._rate
        return self._free_at

    def heal(self) -> None:
        """From now on messages pass at once, those that are queued in their time."""
        self._rate = None
