"""ClosedRounds: the last rounds that are over, and which devices counted in them. No I/O. Part of RoundCoordinator.

Under the late policy "fold", and in asynchronous rounds, an update that arrives after its round is added to the open
round, with less weight (strategies/base.py). It is checked as it would have been in time: its round, that round's
version, whether its device was asked, and whether its device has counted already.

An aggregator that starts again reads all of this from the records of the rounds that it committed, so a device counts
once for each of its rounds across restarts too. Late updates of a round that was never committed are in no record, but
saved: they are reloaded when the next round opens (reception.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ...history_record import SPENT, RoundRecord
from ...protocol.round import Draw
from ..devices.cohort import Cohort
from .intake import RoundIntake
from .tally import Tally


class ClosedRound:
    """A round that is over. `counted`: device -> the round that its update was added to. `refused`: no model has its
    updates, and none will."""

    def __init__(
        self, version: int, intake: RoundIntake, cohort: Cohort, counted: dict[str, int], refused: bool = False
    ) -> None:
        self.version, self.intake, self.cohort = version, intake, cohort
        self.refused = refused
        self._counted = counted

    def counted_in(self, device: str) -> int | None:
        """The round that the device's update was added to, this one or a later one; None: it has not counted."""
        return self._counted.get(device)

    def count(self, device: str, round: int) -> None:
        """The device's update of this round has been added to `round`."""
        self._counted[device] = round

    def uncount(self, device: str) -> None:
        """The round that the device's update was added to was abandoned."""
        self._counted.pop(device, None)


class ClosedRounds:
    """The newest `limit` rounds; no round under the late policy "drop"."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rounds: dict[int, ClosedRound] = {}

    def close(self, tally: Tally, abandoned: bool) -> None:
        """The open round is over. Updates of an abandoned round are in no model: all of them may come again."""
        if not self._limit:
            return
        for device, round in tally.folded if abandoned else ():
            if round in self._rounds:
                self._rounds[round].uncount(device)
        if tally.mode != "train":  # no other reports are of use later
            self._drop_before(tally.round)
            return
        counted = {} if abandoned else dict.fromkeys(tally.counted, tally.round)
        self._keep(tally.round, ClosedRound(tally.version, tally.intake, tally.cohort, counted))

    def reload(self, records: Iterable[RoundRecord], make_intake: Callable[[int, int], RoundIntake]) -> None:
        """Restore the rounds of `records`, oldest first. `make_intake` is given round and version."""
        for record in records:
            spent = record.state in SPENT
            rule = msgspec.json.decode(record.cohort, type=list[str] | Draw | None)
            cohort = Cohort(record.round, frozenset(rule) if isinstance(rule, list) else rule)
            counted = dict.fromkeys(record.devices, record.round) if spent else {}
            intake = make_intake(record.round, record.base)
            closed = ClosedRound(record.base, intake, cohort, counted, record.state == "refused")
            self._keep(record.round, closed)
            for device, round in record.folded if spent else ():
                if round in self._rounds:
                    self._rounds[round].count(device, record.round)

    def _keep(self, number: int, closed: ClosedRound) -> None:
        self._rounds[number] = closed
        self._drop_before(number)

    def _drop_before(self, number: int) -> None:
        """Drop the rounds that are too old when round `number` is over."""
        for old in [n for n in self._rounds if n <= number - self._limit]:
            del self._rounds[old]

    def get(self, number: int) -> ClosedRound | None:
        return self._rounds.get(number)

    def partial(self) -> dict[int, RoundIntake]:
        """The intakes with updates under way, by round, oldest first."""
        if not any([closed.intake.under_way for closed in self._rounds.values()]):  # as with nearly every message
            return {}
        return {n: closed.intake for n, closed in self._rounds.items() if closed.intake.under_way}
