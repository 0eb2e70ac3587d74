"""Pace: how a round's devices spread their reports, so that they come no faster than they can be taken. No I/O.

    spread_s   each device waits a random share of it before it reports
    back_s     who has nothing to report, and was away, takes a random share of it to come back
    unasked    so many of an update's parts go at once, the others when they are asked for (intake.py)

After the pace steering of Bonawitz et al. 2019 (arXiv:1902.01046, section 2.3). Part of RoundCoordinator.
"""

from __future__ import annotations

from typing import Any

from .intake import WINDOW

MARGIN = 2.0  # reports come at half the rate that can be taken: chance bunches them
LEAST_S = 0.1  # a spread that would make no difference is none
SHARE = 0.25  # of the deadline, at most
CONNECTIONS_PER_S = 50.0  # that a broker on one core of a Pi takes with TLS on both sides: a guess, on the safe side


class Pace:
    """`update_s` is what one update takes, a guess until one is learnt (0: none). `updates_per_s` overrules both."""

    def __init__(self, update_s: float, updates_per_s: float | None) -> None:
        self.update_s = update_s
        self._updates_per_s = updates_per_s

    def learn(self, update_s: float) -> None:
        """What an update took in the last round."""
        self.update_s = (self.update_s + update_s) / 2 if self.update_s else update_s

    def announce(self, asked: int, present: int, deadline_s: float) -> dict[str, Any]:
        """The fields of a Round that asks so many of those present."""
        spread_s, back_s = self.spread_s(asked, deadline_s), self.back_s(present, deadline_s)
        return {"spread_s": spread_s, "unasked": self.unasked(asked), "back_s": back_s}

    def spread_s(self, asked: int, deadline_s: float) -> float:
        """Seconds over which `asked` devices spread their reports."""
        each_s = 1.0 / self._updates_per_s if self._updates_per_s else MARGIN * self.update_s
        wanted = asked * each_s
        return 0.0 if wanted < LEAST_S else min(wanted, SHARE * deadline_s)

    def back_s(self, present: int, deadline_s: float) -> float:
        """Seconds in which a fleet of `present` devices comes back to a broker that was away."""
        wanted = present / CONNECTIONS_PER_S
        return 0.0 if wanted < 1.0 else min(wanted, SHARE * deadline_s)

    def unasked(self, asked: int) -> int:
        """Parts that each of `asked` devices may send at once: all together within the window."""
        return max(1, WINDOW // max(1, asked))
