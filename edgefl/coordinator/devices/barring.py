"""Barring: what becomes of devices that admission bars, and of those that it lets in again. No I/O.

Part of RoundCoordinator. A barred device is neither asked nor waited for, and what has arrived of it is dropped.
"""

from __future__ import annotations

from ...machine import Note
from ..events import Answered, Release
from ..state import CoordinatorState


class Barring(CoordinatorState):
    """Each method adds what the host has to do to `_out`."""

    def _bar_pending(self) -> None:
        """Bar the devices that a message has just cost their place."""
        pending, self.admission.pending = self.admission.pending, []
        for device, why in pending:
            self.presence.bar(device)
            self.reception.drop(self.tally, device)
            if self.tally is not None:
                self.tally.set_present(device, False, False)
            kind = self.admission.refused.kind("barred", device)
            self._out.append(
                Note("warning", f"{device} is {why}; it is neither asked, waited for nor heard", kind, device=device)
            )
        if pending:
            self._out += self.admission.suspects()

    def _let_in(self, now: float) -> None:
        """Let the devices in again whose quarantine or mute has ended."""
        for device in self.admission.over(now):
            self.presence.unbar(device)
            kind = self.admission.refused.kind("let in", device)
            self._out.append(Note("warning", f"{device} is let in again: its time is over", kind, device=device))
        self._out += self.admission.suspects()

    def _release(self, order: Release) -> None:
        """Let a device in again at an operator's word."""
        done = self.admission.release(order.device)
        if done:
            self.presence.unbar(order.device)
            self._out.append(Note("warning", f"{order.device} is let in again: it was released", device=order.device))
        self._out += self.admission.suspects()
        text = f"{order.device} is let in again" if done else f"{order.device} is neither in quarantine nor muted"
        self._out.append(Answered(order.order, done, text))
