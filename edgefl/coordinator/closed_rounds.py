"""ClosedRounds: the last rounds that are over, and who counted in them. No I/O. Part of RoundCoordinator.

Under the late policy "fold", and in asynchronous rounds, an update that comes after its round goes into the round that
is open, with less weight (strategies/base.py). It is checked as it would have been in time: its round, that round's
version, whether its device was asked, and whether it has counted already.

An aggregator that starts again reads all of it from the records of the rounds that it committed, so a device counts
once for each of its rounds across restarts too. What was folded into a round that was never committed is in no record,
but saved: it is recalled when the next one opens (reception.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from ..history import RoundRecord
from ..protocol.messages import Draw
from .cohort import Cohort
from .intake import RoundIntake
from .tally import Tally


@dataclass
class ClosedRound:
    """`counted`: device -> the round that its update of this one went into."""

    version: int
    intake: RoundIntake
    cohort: Cohort
    counted: dict[str, int] = field(default_factory=dict)


class ClosedRounds:
    """At most `limit` of them, the newest; none at all under the late policy "drop"."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rounds: dict[int, ClosedRound] = {}

    def close(self, tally: Tally, abandoned: bool) -> None:
        """The open round is over. Of one that was abandoned nothing is in the model: it may all come again."""
        if not self.limit:
            return
        counted = {} if abandoned else dict.fromkeys(tally.counted, tally.round)
        for device, round in tally.folded if abandoned else ():
            if round in self._rounds:
                self._rounds[round].counted.pop(device, None)
        self._keep(tally.round, ClosedRound(tally.version, tally.intake, tally.cohort, counted))
        if tally.mode == "evaluate":  # what comes of it now is of no use
            self._rounds.pop(tally.round, None)

    def recall(self, records: Iterable[RoundRecord], make_intake: Callable[[int, int], RoundIntake]) -> None:
        """What the records say, the oldest first; `make_intake` is told round and version."""
        for record in records:
            committed = record.state == "committed"
            version = record.version - committed
            rule = msgspec.json.decode(record.cohort, type=list[str] | Draw | None)
            cohort = Cohort(record.round, frozenset(rule) if isinstance(rule, list) else rule)
            counted = dict.fromkeys(record.devices, record.round) if committed else {}
            self._keep(record.round, ClosedRound(version, make_intake(record.round, version), cohort, counted))
            for device, round in record.folded if committed else ():
                if round in self._rounds:
                    self._rounds[round].counted[device] = record.round

    def _keep(self, number: int, closed: ClosedRound) -> None:
        self._rounds[number] = closed
        for old in [n for n in self._rounds if n <= number - self.limit]:
            del self._rounds[old]

    def get(self, number: int) -> ClosedRound | None:
        return self._rounds.get(number)

    def partial(self) -> dict[int, RoundIntake]:
        """The intakes with updates under way, by their round, the oldest first."""
        return {n: closed.intake for n, closed in self._rounds.items() if closed.intake.under_way}
