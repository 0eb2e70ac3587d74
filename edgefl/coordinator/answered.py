"""Answered: the newest round that each helper has answered under its present keys, as far as the records tell. No I/O.

Each ask tells the helper of it. One that knows of less was restored from a backup, might open a round a second time,
and so refuses until it has the keys of another epoch; with those it is believed again. A helper that knows of more
than we do is believed in some epochs of our certificate (leads.py). Part of RoundCoordinator.
"""

from __future__ import annotations

from ..history_record import RoundRecord
from ..protocol.terms import Party


class Answered:
    """`of` tells round and epsilon; 0 and 0.0 of a helper that has answered nothing yet under these keys.
    `signer_epoch`: the newest epoch of our certificate in which a sum was opened. `led`: rounds were left out at a
    helper's word, and no sum was opened since."""

    def __init__(self) -> None:
        self.signer_epoch, self.led = 0, False
        self._newest: dict[str, tuple[int, int, float]] = {}  # name -> epoch, round, epsilon
        self._opened_in: dict[str, int] = {}  # name -> epoch of our certificate

    def learn(self, record: RoundRecord) -> None:
        """A round is over; `helped` has those that opened its sum."""
        for name, epoch in record.helped.items():
            self._newest[name] = epoch, record.round, record.epsilon
            self._opened_in[name] = record.signer_epoch
        self.signer_epoch, self.led = max(self.signer_epoch, record.signer_epoch), record.led

    def has_opened(self, name: str, epoch: int) -> bool:
        """Whether this helper has opened a sum in this epoch of our certificate, under any keys."""
        return self._opened_in.get(name) == epoch

    def of(self, party: Party) -> tuple[int, float]:
        epoch, round, epsilon = self._newest.get(party.name, (0, 0, 0.0))
        return (round, epsilon) if epoch == party.epoch else (0, 0.0)
