"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator.

A device that dies while the MQTT broker is down leaves no will: its status says "ready" for ever. So one that was
waited for until the deadline of `SILENT_ROUNDS` rounds and sent nothing is *silent*: still asked, but no longer waited
for, until it shows itself, by a status that it did not have or by a part of an update.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..protocol.messages import Status

SILENT_ROUNDS = 2
ASK_AGAIN_S = 30.0  # before asking who is there, while too few are


class Presence:
    """The newest status of every device that has shown one."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        self.ask_at: float | None = None
        self.count = 0  # how many devices can be asked
        self._heard: set[str] = set()  # since the open round began, of those it waits for
        self._silent_rounds: Counter[str] = Counter()

    def show(self, device: str, status: Status) -> bool:
        """Take a status; False if it is no news, or a late will of a session that has been replaced."""
        known = self.statuses.get(device)
        if known == status or (known is not None and status.state == "lost" and status.boot < known.boot):
            return False
        self.forget(device)
        self.statuses[device] = status
        self.count += status.present
        return True

    def meet(self, device: str) -> None:
        """Its update has come. Who was never seen is there all the same: brokers drop statuses of large fleets."""
        if device not in self.statuses:
            self.show(device, Status("ready", 0))

    def forget(self, device: str) -> None:
        """Its retained status has been cleared."""
        self.count -= self.is_present(device)
        self.statuses.pop(device, None)
        self.hear(device)

    def ask_again(self, now: float) -> bool:
        """Too few are there: whether it is time to ask again. A broker whose queue is shorter than the fleet drops
        statuses, a will may come late, and a device that waits for a round has no reason to repeat its own."""
        due = self.ask_at is not None and now >= self.ask_at
        if due or self.ask_at is None:
            self.ask_at = now + ASK_AGAIN_S
        return due

    def is_present(self, device: str) -> bool:
        status = self.statuses.get(device)
        return status is not None and status.present

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        return sorted(device for device, status in self.statuses.items() if status.present)

    def hear(self, device: str, waited_for: bool = True) -> None:
        """The device has shown itself. Whom the round no longer waits for needs no memory of it."""
        self._silent_rounds.pop(device, None)
        (self._heard.add if waited_for else self._heard.discard)(device)

    def worth_waiting(self, asked: Iterable[str]) -> list[str]:
        """Those of `asked` who are not silent; what is heard counts anew, for the round that begins."""
        self._heard = set()
        return [device for device in asked if self._silent_rounds.get(device, 0) < SILENT_ROUNDS]

    def count_silence(self, waiting: Iterable[str]) -> None:
        """A round had to wait for these until its deadline."""
        self._silent_rounds.update(device for device in waiting if device not in self._heard)
