"""Inquiring: a round with noise that may be the first one waits for what helpers know (inquiry.py). No I/O.

So does one after a sum for which a helper was silent. A round is paid for before helpers are asked, so a helper that is
off line for a night would cost the whole budget. After sums that were refused it waits for a while (in_vain.py).

Part of RoundCoordinator.
"""

from __future__ import annotations

import msgspec

from ...core.seeds import derived_seed
from ...machine import Note, Received
from ...protocol.topics import HelperTopic
from ...settings import Mode
from .asking import Asking
from .inquiry import Inquiry
from .leads import Leads
from .terms import SEEDS
from .unlisted import some


class Inquiring(Leads):
    """Each method adds what the host has to do to `_out`."""

    def _inquires(self, mode: Mode, now: float) -> bool:
        """Whether no round may open yet, since helpers have still to say what they know: they are asked."""
        masked, first = self.masked, self._may_lead and self._inquired != self.signing.epoch
        due = masked is not None and masked.mechanism is not None and mode != "evaluate"
        if masked is not None and due and self._in_vain.waits(masked.helpers, now):
            self._inquiry = None
            return True
        if masked is None or not due or not (first or self._unheard):
            self._inquiry = None
            return False
        inquiry = self._inquiry
        if inquiry is None or inquiry.terms.helpers != masked.helpers:
            terms = masked.terms(
                round=self.round, version=self.version, model_sha256=self.announcer.downlink.sha256,
                manifest=self.announcer.manifest_id, mode=mode,
            )  # fmt: skip
            # Else an answer to an earlier question, kept by somebody, would be one to this.
            self._questions += 1
            seed = derived_seed("known", self._questions, self.fence.instance) % SEEDS
            terms = msgspec.structs.replace(terms, seed=seed)
            inquiry = self._inquiry = Inquiry(
                terms, self.topics, hash=self.announcer.hash, patience_s=masked.settings.helper_s, now=now
            )
        if now >= inquiry.wake_at:
            self._ask_what_is_known(inquiry, now)
        return True

    def _ask_what_is_known(self, inquiry: Inquiry, now: float) -> None:
        if now >= inquiry.closes_at:
            self._out.append(Note("warning", inquiry.silence, round=self.round))
            if not self._announced_wait:  # devices still know of an earlier round
                self._announced_wait = True
                self._out.append(self._publish_round(now))
        attempt, part_bytes = self.fence.attempt, self.announcer.manifest.part_bytes
        self._out += inquiry.ask_all(self.signing, attempt, self._answered, part_bytes, now)

    def _on_known(self, inquiry: Inquiry, where: HelperTopic, event: Received, now: float) -> None:
        """A part of what a helper knows."""
        inquiry.hear(where, event.payload)
        self._hear_roster(inquiry, where.helper)
        if inquiry.silent:
            return
        self._inquiry, self._inquired, self._unheard = None, self.signing.epoch, False
        self._hear(inquiry, asked_round=0)
        self._skip(inquiry, self._newest_known, now)

    def _hear_roster(self, asking: Asking, helper: str) -> None:
        """Devices that the helper may know by now are asked again."""
        serial = asking.rosters.get(helper)
        if serial is not None and (again := self.unlisted.hear(helper, serial)):
            text = f"helper {helper} has another roster: rounds ask {some(again)} again"
            self._out.append(Note("info", text, round=self.round))
