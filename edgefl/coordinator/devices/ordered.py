"""Ordered: what an operator's orders about one device do: pause it, resume it, remove what is known of it. No I/O.

Part of RoundCoordinator. A paused device is neither asked nor waited for, and its updates are not read; its statuses
are, so that viewers see it. All is durable: the host saves it before the answer.

A device that is removed must be gone: it would announce itself again. Only the broker knows that, and an order may come
before the connection, so it waits for the retained statuses. Then what the device has left on the broker is cleared,
the host erases it from its records, and the record of the round that is open will not name it, unless it comes back.
"""

from __future__ import annotations

from ...errors import UsageError
from ...history_record import RoundRecord
from ...machine import Note, Publish
from ...protocol.topics import check_device_id
from ..events import Answered, Erase, Forget, Pause, Resume, SavePaused
from .barring import Barring

MOST_PAUSED = 10_000
NO_REASON = "no reason was given"
GONE = ("lost", "disconnected")  # states of a device that is not connected


class Ordered(Barring):
    """Each method adds what the host has to do to `_out`."""

    def _on_order(self, order: Pause | Resume | Forget, now: float) -> None:
        try:
            check_device_id(order.device)
            match order:
                case Pause():
                    text = self._pause(order)
                case Resume():
                    text = self._resume(order)
                case Forget():
                    self._check_gone(order.device)
                    if not self._may_remove(now):
                        self._removals.append(order)
                        return
                    text = self._forget(order.device, now)
        except UsageError as error:
            self._out.append(Answered(order.order, False, str(error)))
            return
        if text:
            self._out.append(Note("warning", text))
        self._out.append(Answered(order.order, True, text or f"{order.device} is not paused: nothing was changed"))

    def _pause(self, order: Pause) -> str:
        device, presence = order.device, self.presence
        if len(presence.paused) >= MOST_PAUSED and device not in presence.paused:
            raise UsageError(f"{MOST_PAUSED} devices are paused: resume or remove some first")
        presence.pause(device, order.why or NO_REASON)
        self._leave(device)
        self._out.append(SavePaused(dict(presence.paused)))
        known = "" if device in presence.statuses else "; it was never heard: check its name"
        return f"{device} is paused by an operator ({presence.paused[device]}): no round asks it{known}"

    def _resume(self, order: Resume) -> str:
        if not self.presence.resume(order.device):
            return ""
        self._out.append(SavePaused(dict(self.presence.paused)))
        return f"{order.device} is not paused any more: the next round asks it again"

    def _leave(self, device: str) -> None:
        """The open round, if there is one, goes on without the device."""
        self.reception.drop(self.tally, device)
        if self.tally is not None:
            self.tally.set_present(device, False, False)

    def _carry_out_removals(self, now: float) -> None:
        """An order that has waited for the retained statuses. One at a time: the host writes all records anew."""
        if self._removals and self._may_remove(now):
            self._on_order(self._removals.popleft(), now)

    def _may_remove(self, now: float) -> bool:
        return self.fence.held and now >= self._settled_at

    def _check_gone(self, device: str) -> None:
        status = self.presence.statuses.get(device)
        if status is not None and status.state not in GONE:
            raise UsageError(
                f"{device} is there ({status.state}), and would announce itself again: stop its agent, or revoke it, "
                "and then remove it"
            )

    def _forget(self, device: str, now: float) -> str:
        if self.presence.resume(device):
            self._out.append(SavePaused(dict(self.presence.paused)))
        self._leave(device)
        self.presence.drop(device)
        self.presence.unbar(device)
        self.admission.forget(device)
        self.unlisted.forget(device)
        if self.selection is not None:
            self.selection.forget(device)
        self.standing.forget(device)
        self.readiness.absence.heard(device, True, now)
        if self.phase != "waiting":
            self._forgotten.add(device)
        self._out += [*self.admission.suspects(), Erase(device)]
        topics = (self.topics.status(device), self.topics.inbox(device))
        self._out += [Publish(topic, b"", retain=True) for topic in topics]
        if self.roll is not None and self.bulletin is not None:
            self.bulletin.hurry(self.roll.drop(device), now)
        still = f"; it is still enrolled: `edgefl keys revoke DIR {device}`" if device in self.signing.enrolled else ""
        return f"{device} is removed: nothing on the broker or in the aggregator's records names it{still}"

    def _without_forgotten(self, record: RoundRecord) -> RoundRecord:
        """The record of a round, which is over, without the devices that were removed while it was open, and have not
        come back."""
        for device in self._forgotten - self.presence.statuses.keys():
            record = record.without_device(device)
        self._forgotten.clear()
        return record
