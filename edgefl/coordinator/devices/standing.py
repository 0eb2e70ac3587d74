"""Standing: which devices a round waits for, by the updates that have come of them. No I/O. Part of RoundCoordinator.

Waiting is earned by updates. A device is *worth waiting for* if

    it has earned it:   no round has asked it before, or whole valid updates of it, counted or late, have come since it
                        last missed a round: one, or more of a device that misses rounds again and again (earned.py)
    it is not slow:     its last report took at most `PATIENCE` times the others' median, and no longer than the
                        deadline; a report within `QUICK_S` is never slow

A device *misses* a round that waited for it, if its update is neither counted nor on the way to count when the round
ends. In a round in which fewer than half of those waited for report, an outage that all share is likelier than that
many broken devices: there only a device that missed the last round too loses what it had earned. A round that closes at
its goal proves nothing about the others.

Statuses and single parts of an update earn nothing: a device that is hung, or means ill, can send those all day. A
device that is not waited for is still asked, and its update counts if it comes in time. If it comes late, it earns
waiting again (credits.py). After a restart, all of this is read from the records.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from statistics import median

from ...history_record import RoundRecord
from ...protocol.round import MAX_UNEARNED, UNEARNED_ROUNDS
from .earned import LATE, LIKE_MOST, NEVER, NO_UPDATE, REFUSED, Entry, parsed

PATIENCE = 10.0
QUICK_S = 1.0
SLACK = 3.0  # a round waits so many times as long as the slowest device that it waits for took
MOST_AWAY = 10_000  # devices that are away and known: names that come and go fill no memory
LEAST_WAIT_S = 10.0  # and never less than this: a busy machine alone makes no device miss


@dataclass(frozen=True)
class Survey:
    """The devices that are present, before a round opens: those `worth` waiting for, and why not the others.

    `deadline_s`: the round's first deadline, in which as many devices as it needs can report.
    """

    worth: list[str]
    skipped: dict[str, str]
    deadline_s: float


@dataclass(frozen=True)
class Outcome:
    """What a round has shown when it is over, by device. `at_goal`: it ended before all had the time to report."""

    round: int
    waited: Collection[str]
    counted: Collection[str]
    rejected: Collection[str] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    at_goal: bool = False


class Standing:
    """Every present device that was asked, and every other one that the last `UNEARNED_ROUNDS` rounds have asked."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._now = 0  # the open round, or the next one
        self._limit_s = self._deadline_s = float("inf")  # of the round that opened last: longer reports are slow
        self._typical_s = math.inf  # no time is known
        self._turns: dict[str, int] = {}  # named devices, and since which round
        self._last_named = ""

    # Before a round

    def survey(self, present: list[str], deadline_s: float, *, rank: int, most_s: float) -> Survey:
        """Judge the devices that are present. `rank`: of how many, counted from the fastest, a round needs reports. If
        the quicker one of the `rank`-th's last two took longer than `deadline_s` allows, the round's first deadline is
        later, at most `most_s`."""
        entries = [entry for device in present if (entry := self._entries.get(device)) is not None and entry.times]
        earned = [entry for entry in entries if entry.earned]  # one that stopped reporting may have been quick once
        quickest = sorted(min(entry.times) for entry in (earned if len(earned) >= rank else entries))
        if len(quickest) >= rank:
            deadline_s = max(deadline_s, min(most_s, SLACK * quickest[rank - 1]))
        times = [entry.times[0] for entry in earned] or quickest
        self._typical_s = median(times) if times else math.inf
        self._deadline_s = deadline_s
        self._limit_s = min(deadline_s, self.working_s([]))
        skipped = {device: self._why_not(device) for device in present if not self.is_worth(device)}
        worth = [device for device in present if device not in skipped] if skipped else present
        return Survey(worth, skipped, deadline_s)

    def is_worth(self, device: str) -> bool:
        """Whether a round waits for this device, by the other devices' times when the last round opened."""
        return self.can_report(device, self._limit_s)

    def can_report(self, device: str, within_s: float) -> bool:
        """Whether the device has earned waiting, and took no longer than `within_s` last."""
        entry = self._entries.get(device)
        return entry is None or (entry.earned and (not entry.times or entry.times[0] <= within_s))

    def able(self, devices: Iterable[str], least: int, most_s: float) -> list[str]:
        """Those that are worth waiting for; if they are fewer than `least`, also the slow ones that can report within
        `most_s`, as at a deadline (closing.py): a clock that leapt may have made them slow."""
        found = [*devices]
        worth = [*filter(self.is_worth, found)]
        return worth if len(worth) >= least else [device for device in found if self.can_report(device, most_s)]

    def _why_not(self, device: str) -> str:
        entry = self._entries[device]
        if not entry.earned:
            return entry.why()
        if entry.times[0] > self._deadline_s:
            return f"takes {_seconds(entry.times[0])}, the deadline is {_seconds(self._deadline_s)}"
        return f"takes {_seconds(entry.times[0])}, the others {_seconds(self._typical_s)}"

    def working_s(self, times: list[float]) -> float:
        """How long a device may be at work until it is slow; `times` are the report times in this round so far."""
        return max(QUICK_S, PATIENCE * (median(times) if times else self._typical_s))

    def patience_s(self, waiting: Iterable[str]) -> float:
        """How long a round waits for those of these devices whose time is known."""
        slowest = max((max(self._entries[device].times) for device in waiting if not self.is_new(device)), default=0.0)
        return max(LEAST_WAIT_S, SLACK * slowest)

    def is_new(self, device: str) -> bool:
        """Whether it is not known how long the device takes."""
        entry = self._entries.get(device)
        return entry is None or not entry.times

    def owes(self, device: str) -> int:
        """How many updates have to come until the device has earned waiting."""
        entry = self._entries.get(device)
        return 0 if entry is None else entry.owes

    def name(self, round: int, unearned: Collection[str]) -> list[str]:
        """The devices of `unearned` that the round names. If they are too many they take turns: each is named for as
        many rounds as a late update is of use, so that it can finish what it has begun."""
        for device, since in list(self._turns.items()):
            if device not in unearned or round - since >= UNEARNED_ROUNDS:
                del self._turns[device]
        ring = sorted(unearned)
        start = bisect_right(ring, self._last_named)
        for device in ring[start:] + ring[:start]:
            if len(self._turns) >= MAX_UNEARNED:
                break
            if device not in self._turns:
                self._turns[device] = round
                self._last_named = device
        return sorted(self._turns)

    def unearned(self, round: int, present: list[str]) -> list[str]:
        """The devices that the announcement of `round` names before it opens."""
        return self.name(round, [device for device in present if not self.is_worth(device)])

    def ask(self, round: int, asked: Iterable[str], present: Collection[str]) -> None:
        """The round has opened, and asks these of the devices that are present. Devices that are away, and were not
        asked for a long time, are dropped; all that are away, if they are many. A present one is not, since a round
        that asks few may ask it seldom."""
        self._now = round
        for device in asked:
            self._entry(device).asked = round
        many = len(self._entries) > MOST_AWAY + 2 * len(present)
        if many or round % UNEARNED_ROUNDS == 0:
            here, oldest = frozenset(present), round if many else round - UNEARNED_ROUNDS
            entries = self._entries.items()
            self._entries = {d: e for d, e in entries if d in here or e.asked >= oldest}

    def _entry(self, device: str) -> Entry:
        entry = self._entries.get(device)
        if entry is None:
            entry = self._entries[device] = Entry()
        return entry

    # Updates

    def report(
        self, device: str, round: int, seconds: float | None, counted: bool = True, *, resumed: bool = False
    ) -> None:
        """A whole valid update of `round` has come, `seconds` after that round opened; None: that is not known.

        `resumed`: another process had opened the round that is open, so that its devices began earlier than we know.
        """
        entry = self._entry(device)
        if round == entry.round and not resumed:  # it has come before, and its round was abandoned
            seconds = None
        entry.missed = False
        entry.pay(round, self._now)
        entry.count(round, counted)
        if resumed and seconds is not None:
            seconds = max(seconds, entry.times[0]) if entry.times else None
        if seconds is not None:
            entry.times = (seconds, *entry.times[:1])

    def count(self, device: str, round: int, counted: bool) -> None:
        """What is known of the device's update of `round`: it counts, or it does not any more."""
        self._entry(device).count(round, counted)

    def settled(self, device: str, round: int) -> bool | None:
        """Whether the device's update of `round` counts; None: it is newer than all that have come."""
        entry = self._entries.get(device)
        if entry is None or round > entry.round:
            return None
        return bool(entry.counted >> (entry.round - round) & 1)

    def forget(self, device: str) -> None:
        """The device is gone for good."""
        self._entries.pop(device, None)
        self._turns.pop(device, None)

    # After a round

    def close(self, outcome: Outcome) -> dict[str, str]:
        """Learn from a round that is over. Returns why devices that it asked did not report, or were not waited for."""
        self._now = outcome.round
        waited = () if outcome.at_goal else outcome.waited
        missed = [device for device in waited if device not in outcome.counted]
        shared = 2 * (len(waited) - len(missed)) < len(waited)
        why = {d: self._skipped(d, told) for d, told in outcome.skipped.items() if d not in outcome.counted}
        for device in missed:
            why[device] = self._miss(device, shared, device in outcome.rejected)
        self._now += 1
        return dict(sorted(why.items()))

    def _skipped(self, device: str, told: str) -> str:
        """Why a device was not waited for; its update of an earlier round may have come meanwhile."""
        entry = self._entry(device)
        if not entry.earned:
            return entry.why()
        return f"{LATE} {entry.round}" if told.startswith((NO_UPDATE, NEVER)) else told

    def _miss(self, device: str, shared: bool, rejected: bool) -> str:
        entry = self._entry(device)
        if shared and entry.earned and not entry.missed:
            entry.missed = True
            return f"{LIKE_MOST} {entry.round}"
        entry.lapse(self._now)
        return entry.why(REFUSED if rejected else NO_UPDATE)

    def restore(self, record: RoundRecord) -> None:
        """Learn from the record of a round that another process has closed; records come in their order."""
        self._now = record.round
        times = record.times
        mine = [(device, record.round) for device in record.devices]
        for device, own in [*record.folded, *mine]:  # a late one that was folded in stays saved until a commit has it
            self.report(device, own, times.get(device), own < record.round or record.state == "committed")
            self._entry(device).asked = record.round
        for device, why in record.missed.items():
            self._entry(device).asked = record.round
            self._read(device, why, record)
        self._now += 1

    def _read(self, device: str, why: str, record: RoundRecord) -> None:
        """Learn why the device did not report to the round of this record, or was not waited for."""
        entry, (what, own, _) = self._entry(device), parsed(why)
        if what == LATE:
            self.report(device, own, record.times.get(device), counted=bool(self.settled(device, own)))
            entry.owes = 0
        elif what in (NO_UPDATE, REFUSED, NEVER):
            entry.read(why, record.round)
        elif what == LIKE_MOST:
            if own > entry.round:
                self.report(device, own, None, counted=False)
            entry.missed = True


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
