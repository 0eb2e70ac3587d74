"""Earned: what is known of one device, and what it owes until rounds wait for it. No I/O. Part of Standing.

A device *lapses* when it loses what it had earned. It then owes updates: one after its first lapse, and after each
further one twice as many as the time before, at most `MOST_OWED`. A lapse is forgotten after `UNEARNED_ROUNDS` rounds
without another. So a device that reports and misses by turns makes ever fewer rounds wait in vain.

Every update pays that is whole, valid, and newer than all that have come. While one round is open or awaited, one
update pays at most: the record of a round tells who has paid in it, so a restart knows what is owed.
"""

from __future__ import annotations

import re

import msgspec

from ...protocol.round import UNEARNED_ROUNDS

MOST_OWED = 32

# Why a device is missed, followed by the number of a round: `read` finds both in the records. The first two are said of
# devices that have lost what they earned, and are followed by what they owe after further lapses.
NO_UPDATE, REFUSED = "no update since round", "update refused since round"
NEVER = "no update yet"  # the same of a device of which none has come
LIKE_MOST, LATE = "missed with most others; last update of round", "came too late: update of round"
_OWES = "; has to bring {} more"

_REMEMBERED = (1 << UNEARNED_ROUNDS) - 1


class Entry(msgspec.Struct, gc=False):
    """What is known about a device that was asked. `round` is the newest round of which a whole valid update has come;
    bit i of `counted` says whether that of the i-th round before it counts. `times` are its last two report times in
    seconds, the newest first. `missed`: it has missed a round with most others, and not reported since.

    It `owes` so many updates, of `price` that its last lapse has cost, in the round `lapsed`; `paid` is the round that
    was open, or came next, when an update paid last.
    """

    asked: int = 0
    round: int = 0
    counted: int = 0
    missed: bool = False
    times: tuple[float, ...] = ()
    owes: int = 0
    price: int = 0
    lapsed: int = 0
    paid: int = 0

    @property
    def earned(self) -> bool:
        """Whether the device has earned that rounds wait for it."""
        return not self.owes

    def count(self, round: int, counted: bool) -> None:
        """The update of `round` has come, and counts or not."""
        if round > self.round:
            self.counted = (self.counted << (round - self.round)) & _REMEMBERED
            self.round = round
        bit = 1 << (self.round - round)
        self.counted = (self.counted | bit if counted else self.counted & ~bit) & _REMEMBERED

    def pay(self, round: int, now: int) -> None:
        """The update of `round` has come, while the round `now` is open or comes next."""
        if self.owes and round > self.round and now > self.paid:
            self.owes, self.paid = self.owes - 1, now

    def lapse(self, round: int) -> None:
        """The device has missed `round`."""
        if self.owes:
            return
        known = self.price and round - self.lapsed < UNEARNED_ROUNDS
        self.owes = self.price = min(MOST_OWED, 2 * self.price) if known else 1
        self.lapsed = round

    def why(self, what: str = NO_UPDATE) -> str:
        """Why no round waits for the device."""
        text = f"{what} {self.round}" if self.round or what != NO_UPDATE else NEVER
        return text + (_OWES.format(self.owes) if self.price > 1 else "")

    def read(self, why: str, round: int) -> None:
        """Learn from what the record of `round` has of a device that no round waits for."""
        _, own, owes = parsed(why)
        told = owes or 1
        if self.earned or told > self.owes or (self.owes == 1 and own > self.round):  # it had earned it, and has lapsed
            self.price, self.lapsed = (max(2, told) if owes else 1), round
        self.owes = told
        if own > self.round:
            self.count(own, False)


def parsed(why: str) -> tuple[str, int, int]:
    """What a record has of a device that did not report: the reason, the round of its last update, and how many updates
    it owes, if the record says so; else 0."""
    found = re.fullmatch("(.*?) ([0-9]+)" + f"(?:{_OWES.format('([0-9]+)')})?", why)
    return (why, 0, 0) if found is None else (found[1], int(found[2]), int(found[3] or 0))
