"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator.

A device that dies while the MQTT broker is down leaves no will: its status says "ready" until it comes back. A device
that sent nothing until the deadline of `SILENT_ROUNDS` rounds is therefore *silent*. Rounds still ask it, but wait for
it again only after a sign of life: a new status, or a part of an update.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..protocol.messages import Status

SILENT_ROUNDS = 2


class Presence:
    """The newest status of every device that has sent one. `count` is the number of devices that can be asked."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        self.count = 0
        self._alive: set[str] = set()  # devices that gave a sign of life while the open round waited for them
        self._silent_rounds: Counter[str] = Counter()

    def update(self, device: str, status: Status) -> bool:
        """Store a status; False if it is known already, or is the late will of a connection that has been replaced."""
        known = self.statuses.get(device)
        if known == status or (known is not None and status.state == "lost" and status.boot < known.boot):
            return False
        self.drop(device)
        self.statuses[device] = status
        self.count += status.present
        return True

    def prove(self, device: str) -> None:
        """An update proves presence, even if the broker dropped the device's status: brokers do in large fleets."""
        if device not in self.statuses:
            self.update(device, Status("ready", 0))

    def drop(self, device: str) -> None:
        """The device's retained status has been cleared."""
        self.count -= self.is_present(device)
        self.statuses.pop(device, None)
        self.note_life(device)

    def is_present(self, device: str) -> bool:
        status = self.statuses.get(device)
        return status is not None and status.present

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        return sorted(device for device, status in self.statuses.items() if status.present)

    def note_life(self, device: str, waited_for: bool = True) -> None:
        """The device has given a sign of life; only for devices that the round waits for does it have to be kept."""
        self._silent_rounds.pop(device, None)
        (self._alive.add if waited_for else self._alive.discard)(device)

    def begin_round(self, asked: Iterable[str]) -> list[str]:
        """The devices of `asked` that a new round should wait for: all that are not silent."""
        self._alive = set()
        return [device for device in asked if self._silent_rounds.get(device, 0) < SILENT_ROUNDS]

    def count_silence(self, waiting: Iterable[str]) -> None:
        """The round has reached its deadline while it waited for these devices."""
        self._silent_rounds.update(device for device in waiting if device not in self._alive)
