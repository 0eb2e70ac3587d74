"""How to come back: when to try again, with which MQTT version, and when to say so.

No clock and no sleep in here: numbers in, numbers out.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..errors import TransportError

PAUSE_S = 0.01  # between two looks at a user who is behind
LONGEST_PAUSE_S = 10.0  # then reading goes on all the same: the broker's answers to our pings must be seen


class Reading:
    """When to read: not while the user is behind, but then neither for too long."""

    def __init__(self, is_behind: Callable[[], bool]) -> None:
        self._is_behind = is_behind
        self._read_at = 0.0

    def allowed(self, now: float) -> bool:
        """Whether to read `now`, which is then done."""
        if self._is_behind() and now < self._read_at + LONGEST_PAUSE_S:
            return False
        self._read_at = now
        return True


class Backoff:
    """Delays drawn uniformly from [0, min(cap, base * 2^n)] seconds, n the attempts since `reset`.

    Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a fleet that
    lost its broker at one moment must not come back at one moment.
    """

    def __init__(self, rng: random.Random, cap_s: float, base_s: float = 1.0) -> None:
        self._rng = rng
        self.calm_s = 0.0  # there is no hurry: the interval is at least so wide
        self._cap_s = cap_s
        self._base_s = min(base_s, cap_s)
        self._ceiling_s = self._base_s

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = self._rng.uniform(0.0, min(self._cap_s, max(self._ceiling_s, self.calm_s)))
        self._ceiling_s = min(self._cap_s, 2.0 * self._ceiling_s)
        return delay

    def slow(self) -> None:
        """Draw from the widest interval from now on: an early attempt would be no better than a late one."""
        self._ceiling_s = self._cap_s

    def reset(self) -> None:
        self._ceiling_s = self._base_s


class Versions:
    """Which MQTT version to speak next, "5" or "3.1.1": what worked, else by turns."""

    def __init__(self, wanted: str) -> None:
        if wanted not in ("auto", "5", "3.1.1"):
            raise TransportError(f"unknown MQTT version {wanted!r}: use auto, 5 or 3.1.1")
        self.pinned = wanted != "auto"
        self._settled = False
        self._favourite = self.current = "5" if wanted == "auto" else wanted

    def learn(self, *, up: bool, hung_up: bool, unsupported: bool) -> None:
        """From a connection that was accepted, or closed without an answer, or refused for its version."""
        if up:
            if not self._settled:
                self._favourite, self._settled = self.current, True
            # A proxy without its broker hangs up on any version: what once worked gets the first try again.
            self.current = self._favourite
        elif (hung_up or unsupported) and not self.pinned:
            self.current = "3.1.1" if self.current == "5" else "5"
            if unsupported:
                self._favourite = self.current


class Outage:
    """How long we have been without a broker, and when a log line is due: at once, then every `every_s`."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._since: float | None = None
        self._next = 0.0

    def due(self, now: float) -> float | None:
        """Seconds of outage so far where a line is due now, else None. The first call starts the outage."""
        if self._since is None:
            self._since = self._next = now
        if now < self._next:
            return None
        self._next = now + self._every_s
        return now - self._since

    def next_in(self, now: float) -> float:
        """Seconds until the next line."""
        return max(0.0, self._next - now)

    def over(self, now: float) -> float:
        """End the outage; returns the seconds it took, 0 where there was none."""
        took = 0.0 if self._since is None else now - self._since
        self._since = None
        return took
