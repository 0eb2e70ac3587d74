"""Unopened: what becomes of devices with which a helper opens no set. No I/O. Part of RoundCoordinator.

Only the helper sees that a device seals nonsense, or that its roster has no such device or another key of it, and no
helper opens a set with one. So its signed word is believed. A device that seals nonsense is in quarantine
(quarantine.py); one that the rosters name differently is asked again once one of them is replaced (unlisted.py). And

    one helper          it refused, so it has opened nothing of this round: it is asked for the set without the device
    several helpers     another one may have opened the set already: the round is abandoned
    several groups      of one that seals nonsense, its own group alone was left out: the round goes on

A helper may lie, and name honest devices. It could refuse every sum anyway; but by leaving devices out it could also
narrow a set down to a few devices that it knows. So a set never falls below the least that devices were told, and
helpers leave out a quarter of the devices at most. Beyond that no helper is believed, and the operator has to find out
which side is at fault. Nor can it hold a round up by naming device after device: an honest one names all of a kind at
once, up to MAX_NAMED, so it is asked for SMALLER smaller sets at most.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from ...errors import ProtocolError
from ...history_record import RoundRecord
from ...machine import Note
from ...protocol.topics import UpdateTopic
from ..devices.barring import Barring
from ..updates.masked_sum import MaskedSum
from .unmasking import NotOpened

OF_ROSTERS = ("unknown", "revoked", "signature")  # refusals of devices that the rosters name differently
SHARE = 4  # one in so many devices may be left out by the word of helpers; one device always
SMALLER = 3  # sets in a round, each without the devices that the helper has named: by roster, signature and box
ALL_AT_ONCE = "an honest helper names all of a kind at once, up to a hundred; look at it if that goes on"


class Fault(NamedTuple):
    """Why a helper opens no set with some devices. `code`: of their updates (protocol/refusals.py). `refused` is for
    the device; `says` and `remedy` are for the operator, where the helper names too many."""

    code: str
    refused: str
    says: str
    remedy: str


BOXES = Fault(
    "box", "can't open what it has sealed", "it can't open what {} have sealed",
    "none of them is barred, since the helper may be at fault. Look at both: revoke devices that are hostile, or take "
    "another helper",
)  # fmt: skip
ROSTERS = Fault(
    "roster", "does not have it in its roster as ours has it", "its roster has {} not as ours has them",
    "none of them is left out, and no sum is opened. Copy the newest roster.json to its machine, and here; if it says "
    "so still, it is at fault",
)  # fmt: skip


class Unopened(Barring):
    """Each method adds what the host has to do to `_out`."""

    def _leave_out(self, error: NotOpened, shown: Collection[str], now: float) -> tuple[list[str], str]:
        """The devices that a set is to be asked for without, of those that the helper was shown and refuses to open;
        none, if it is not believed, and then why."""
        if not error.unopened:
            return [], ""
        return self._believe(ROSTERS if error.code in OF_ROSTERS else BOXES, error.helper, error.unopened, shown, now)

    @property
    def _left_out(self) -> set[str]:
        """The devices that are left out by the word of helpers, of this round or of others too. A helper that says that
        it has another roster takes none of them back into this round."""
        masked = None if self.tally is None else self.tally.masked
        now = frozenset() if masked is None else masked.left_out
        return {*self.unlisted.devices, *self.admission.quarantine.those(BOXES.code), *now}

    def _is_too_many(self, new: Collection[str], shown: Collection[str]) -> bool:
        """Whether so many `new` ones, of those that were shown, would be more than helpers may leave out. Where too few
        others are there, devices that are left out are shown all the same."""
        out = self._left_out
        return len(out.union(new)) > max(1, len(out.union(shown)) // SHARE)

    def _believe(
        self, fault: Fault, helper: str, named: Collection[str], shown: Collection[str], now: float
    ) -> tuple[list[str], str]:
        """Leave out the devices that the helper names of those that it was shown, and refuse their updates. Returns
        these devices; none, if it is not believed, and then why."""
        found = sorted(set(named).intersection(shown))
        known = self.unlisted.devices if fault is ROSTERS else self.admission.quarantine.inside
        new = [device for device in found if device not in known]
        if self._is_too_many(new, shown):
            which, before = f"{len(new)} of {len(shown)} devices", len(self._left_out)
            most = f"more than a quarter{f', with {before} before' if before else ''}"
            why = f"helper {helper} says that {fault.says.format(which)}: {most}, so {fault.remedy}"
            self._out.append(Note("error", why, f"too many of {helper}", self.round))
            return [], why
        for device in found if fault is ROSTERS else new:
            error = ProtocolError(f"helper {helper} {fault.refused}: rejected", fault.code)
            self._out += self.reception.receipts.reject(UpdateTopic(device, self.round, 0), error)
        if fault is ROSTERS:
            self._set_aside(helper, found)
        else:
            self._bar_at_once(new, now)
        return found, ""

    def _set_aside(self, helper: str, devices: Collection[str]) -> None:
        """Ask none of these devices until a roster is replaced: they're honest, and the helper does not know them."""
        self.unlisted.name(helper, devices)
        for text in self.unlisted.advice() if devices else ():
            self._out.append(Note("warning", text, f"roster of {helper}", self.round))

    def _bar_at_once(self, devices: Collection[str], now: float) -> None:
        for device in devices:
            self.admission.bar(device, BOXES.code, now)
        self._bar_pending()

    def _without(self, devices: Collection[str], now: float) -> tuple[MaskedSum, RoundRecord] | None:
        """The sum of all other devices, and the round's record with it; None if it can't be asked for."""
        unmasking, tally = self._unmasking, self.tally
        if not devices or unmasking is None or tally is None or tally.masked is None or not unmasking.is_alone:
            return None
        left = tally.masked.without(devices)
        least = max(unmasking.terms.least, self._config_of(tally).min_reports)
        if left is None or len(left.entries) < least or not left.is_openable:
            return None
        for device in devices:
            tally.withdraw(device, tally.round)
            self.standing.count(device, tally.round, counted=False)
        tally.masked = left
        again = tally.record(self._update_size, least, now)
        return left, msgspec.structs.replace(
            unmasking.saved.record, devices=again.devices, reported=again.reported, rejected=again.rejected,
            float32_bytes=again.float32_bytes,
        )  # fmt: skip
