"""Unopened: what becomes of devices whose sealed seeds a helper can't open. No I/O. Part of RoundCoordinator.

Only the helper sees that a device seals nonsense, and no helper opens a set in which one does. So its signed word is
believed: the device is in quarantine (quarantine.py), and

    one helper          it refused, so it has opened nothing of this round: it is asked for the set without the device
    several helpers     another one may have opened the set already: the round is abandoned
    several groups      the device's own group alone was left out: the round goes on

A helper may lie, and bar honest devices. It could refuse every sum anyway; but by leaving devices out it could also
narrow a set down to few whom it knows. So a set never falls below the least that devices were told, and helpers bar a
quarter of the devices at most. Beyond that no helper is believed, and the operator has to find out which is at fault.
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

CODE = "box"  # protocol/refusals.py
SHARE = 4  # one in so many devices may be barred by the word of helpers; one device always


class Unopened(Barring):
    """Each method adds what the host has to do to `_out`."""

    def _bar_unopened(self, helper: str, named: Collection[str], shown: Collection[str], now: float) -> list[str]:
        """Bar the devices that this helper names of those that it was shown; those that are barred; or
        none, if it is not believed."""
        found = sorted(set(named).intersection(shown))
        before = self.admission.quarantine.count(CODE)
        new = [device for device in found if not self.admission.quarantine.why(device)]
        most = max(1, (len(shown) + before) // SHARE)
        if before + len(new) > most:
            text = (
                f"helper {helper} says that it can't open what {len(new)} of {len(shown)} devices have sealed, after "
                f"{before} before: none of them is barred, since the helper may be at fault. Look at both: revoke "
                "devices that are hostile, or take another helper"
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
