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
which side is at fault.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ..errors import ProtocolError
from ..history_record import RoundRecord
from ..machine import Note
from ..protocol.topics import UpdateTopic
from .barring import Barring
from .masked_sum import MaskedSum
from .unmasking import NotOpened

CODE, UNLISTED = "box", "roster"  # protocol/refusals.py
ROSTERS = ("unknown", "revoked", "signature")  # refusals of devices that the rosters name differently
SHARE = 4  # one in so many devices may be left out by the word of helpers; one device always


class Unopened(Barring):
    """Each method adds what the host has to do to `_out`."""

    def _leave_out(self, error: NotOpened, shown: Collection[str], now: float) -> list[str]:
        """The devices that a set is to be asked for without, of those that the helper was shown and refuses to open;
        none, if it is not believed."""
        if not error.unopened:
            return []
        if error.code in ROSTERS:
            return self._set_aside(error.helper, error.unopened, shown)
        return self._bar_unopened(error.helper, error.unopened, shown, now)

    @property
    def _left_out(self) -> set[str]:
        """The devices that are left out by the word of helpers, of this round or of others too. A helper that says that
        it has another roster takes none of them back into this round."""
        masked = None if self.tally is None else self.tally.masked
        now = frozenset() if masked is None else masked.left_out
        return {*self.unlisted.devices, *self.admission.quarantine.those(CODE), *now}

    def _is_too_many(self, new: Collection[str], shown: Collection[str]) -> bool:
        """Whether so many `new` ones, of those that were shown, would be more than helpers may leave out. Where too few
        others are there, devices that are left out are shown all the same."""
        out = self._left_out
        return len(out.union(new)) > max(1, len(out.union(shown)) // SHARE)

    def _set_aside(self, helper: str, named: Collection[str], shown: Collection[str]) -> list[str]:
        """Ask none of these devices until a roster is replaced: they're honest, and the helper does not know them."""
        found = sorted(set(named).intersection(shown))
        new = set(found) - self.unlisted.devices
        if self._is_too_many(new, shown):
            text = (
                f"helper {helper} says that its roster has {len(new)} of {len(shown)} devices not as ours has them, "
                f"after {len(self._left_out)} before: none of them is left out, and no sum is opened. Copy the newest "
                "roster.json to its machine, and here; if it says so still, it is at fault"
            )
            self._out.append(Note("error", text, round=self.round))
            return []
        for device in found:
            error = ProtocolError(f"helper {helper}'s roster does not have it as ours has: rejected", UNLISTED)
            self._out += self.reception.receipts.reject(UpdateTopic(device, self.round, 0), error)
        self.unlisted.name(helper, found)
        for text in self.unlisted.advice() if found else ():
            self._out.append(Note("warning", text, f"roster of {helper}", self.round))
        return found

    def _bar_unopened(self, helper: str, named: Collection[str], shown: Collection[str], now: float) -> list[str]:
        """Bar the devices that this helper names of those that it was shown; those that are barred; or
        none, if it is not believed."""
        found = sorted(set(named).intersection(shown))
        new = [device for device in found if not self.admission.quarantine.why(device)]
        if self._is_too_many(new, shown):
            text = (
                f"helper {helper} says that it can't open what {len(new)} of {len(shown)} devices have sealed, after "
                f"{len(self._left_out)} before: none of them is barred, since the helper may be at fault. Look at "
                "both: revoke devices that are hostile, or take another helper"
            )
            self._out.append(Note("error", text, round=self.round))
            return []
        for device in new:
            error = ProtocolError(f"helper {helper} can't open what it has sealed: rejected", CODE)
            self._out += self.reception.receipts.reject(UpdateTopic(device, self.round, 0), error)
            self.admission.bar(device, CODE, now)
        self._bar_pending()
        return found

    def _without(self, devices: Collection[str], now: float) -> tuple[MaskedSum, RoundRecord] | None:
        """The sum of all other devices, and the round's record with it; None if it can't be asked for."""
        unmasking, tally = self._unmasking, self.tally
        if not devices or unmasking is None or tally is None or tally.masked is None or not unmasking.is_alone:
            return None
        left = tally.masked.without(devices)
        least = max(unmasking.terms.least, self._config_of(tally).min_reports)
        if left is None or len(left.entries) < least:
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
