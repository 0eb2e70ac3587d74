"""Pace: how the devices of a round spread their reports, so that the aggregator can keep up with them. No I/O.

    spread_s   each device waits for a random share of this time before it reports
    unasked    number of parts of its update that a device sends at once; it sends the others when asked (intake.py)
    back_s     a device that has nothing to report and lost its connection waits for a random share of this time

After the pace steering of Bonawitz et al. 2019 (arXiv:1902.01046, section 2.3). Part of RoundCoordinator.
"""

from __future__ import annotations

from dataclasses import dataclass

from .intake import WINDOW

MARGIN = 2.0  # plan for half the rate that the aggregator can process: reports bunch by chance
LEAST_S = 0.1  # a shorter spread is treated as 0
SHARE = 0.25  # largest spread, as a share of the deadline
CONNECTIONS_PER_S = 50.0  # what a broker on one core of a Pi accepts with TLS on both sides: a cautious guess


@dataclass(frozen=True)
class Pacing:
    """What a round says about its pace: three fields of the message Round, and their defaults there."""

    spread_s: float = 0.0
    unasked: int = 65535
    back_s: float = 0.0


class Pace:
    """`update_s`: the time that one update takes, a guess until it is measured; 0: unknown. `updates_per_s` from the
    settings overrules it."""

    def __init__(self, update_s: float, updates_per_s: float | None) -> None:
        self.update_s = update_s
        self.updates_per_s = updates_per_s

    def learn(self, update_s: float) -> None:
        """Average in the time that an update took in the last round."""
        self.update_s = (self.update_s + update_s) / 2 if self.update_s else update_s

    def plan(self, asked: int, present: int, deadline_s: float) -> Pacing:
        """The pacing of a round that asks `asked` of `present` devices."""
        return Pacing(self.spread_s(asked, deadline_s), self.unasked(asked), self.back_s(present, deadline_s))

    def spread_s(self, asked: int, deadline_s: float) -> float:
        """Seconds over which `asked` devices spread their reports."""
        each_s = 1.0 / self.updates_per_s if self.updates_per_s else MARGIN * self.update_s
        wanted = asked * each_s
        return 0.0 if wanted < LEAST_S else min(wanted, SHARE * deadline_s)

    def back_s(self, present: int, deadline_s: float) -> float:
        """Seconds over which `present` devices reconnect to a broker that was away."""
        wanted = present / CONNECTIONS_PER_S
        return 0.0 if wanted < 1.0 else min(wanted, SHARE * deadline_s)

    def unasked(self, asked: int) -> int:
        """Parts that each of `asked` devices may send at once: all of them together fit into the window."""
        return max(1, WINDOW // max(1, asked))
