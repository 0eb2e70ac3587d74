"""Answered: the newest round that each helper has answered under its present keys, as far as the records tell. No I/O.

Each ask tells the helper of it. One that knows of less was restored from a backup, might open a round a second time,
and so refuses until it has the keys of another epoch; with those it is believed again. A helper that knows of more
than we do is believed in some epochs of our certificate, as far as the time allows since our newest sum (leads.py).
Part of RoundCoordinator.
"""

from __future__ import annotations

from math import inf, log

from ...history_record import RoundRecord
from ...protocol.terms import Party


class Answered:
    """`of` tells round and epsilon; 0 and 0.0 of a helper that has answered nothing yet under these keys.
    `signer_epoch`: the newest epoch of our certificate in which a sum was asked for that was opened. `led`: rounds were
    left out at a helper's or the operator's word, and no sum was opened since. `newest`: the newest sum's round."""

    def __init__(self) -> None:
        self.signer_epoch, self.led, self.newest = 0, False, 0
        self._newest: dict[str, tuple[int, int, float]] = {}  # name -> epoch, round, epsilon
        self._opened_in: dict[str, int] = {}  # name -> epoch of our certificate
        self._opened, self._opened_at = 0, 0  # the round of the newest sum, and when it was, in seconds after 1970
        self._quickest_s = inf  # of the rounds whose sums were opened

    def learn(self, record: RoundRecord) -> None:
        """A round is over; `helped` has those that opened its sum."""
        for name, epoch in record.helped.items():
            self._newest[name] = epoch, record.round, record.epsilon
            self._opened_in[name] = record.signer_epoch
        self.newest = max(self.newest, record.round if record.helped else 0)
        if record.helped and record.closed_at:
            self._opened, self._opened_at = record.round, record.closed_at
            self._quickest_s = min(self._quickest_s, record.seconds)
        self.signer_epoch, self.led = max(self.signer_epoch, record.signer_epoch), record.led

    def has_opened(self, name: str, epoch: int) -> bool:
        """Whether this helper has opened a sum in this epoch of our certificate, under any keys."""
        return self._opened_in.get(name) == epoch

    def accounts_for(self, rounds: int | None, unix_s: float | None, *, rest: int = 1, lr_decay: float = 1.0) -> float:
        """The newest round that another process can have run since our newest sum: none was quicker than any of ours.
        As devices rest, one in `rest` may be run, and the others passed over. Once they have rested after it, half of
        all `rounds` that were left are left still, or, if they have no number, at least half of the learning rate;
        infinite if that stays. 0 if we know of no sum, or of no time."""
        if rounds is None and lr_decay == 1:
            return inf
        if unix_s is None or not self._opened_at:
            return 0
        run = max(0, int((unix_s - self._opened_at) / max(1.0, self._quickest_s)))  # records have whole seconds
        spare = int(log(1 / 2) / log(lr_decay)) if rounds is None else (rounds - self._opened) // 2
        return self._opened + min(run * rest, max(0, spare + 1 - rest))

    def of(self, party: Party) -> tuple[int, float]:
        epoch, round, epsilon = self._newest.get(party.name, (0, 0, 0.0))
        return (round, epsilon) if epoch == party.epoch else (0, 0.0)
