"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from .protocol.messages import Status


class Presence:
    """The newest status of every device that has shown one."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        self._present: set[str] = set()

    def show(self, device: str, status: Status) -> bool:
        """Take a status; False if it is a late will of a session that has been replaced."""
        known = self.statuses.get(device)
        if known is not None and status.state == "lost" and status.boot < known.boot:
            return False
        self.statuses[device] = status
        (self._present.add if status.present else self._present.discard)(device)
        return True

    def hear(self, device: str) -> None:
        """Its update has come. Who was never seen is there all the same: brokers drop statuses of large fleets."""
        if device not in self.statuses:
            self.show(device, Status("ready", 0))

    def forget(self, device: str) -> None:
        """Its retained status has been cleared."""
        self.statuses.pop(device, None)
        self._present.discard(device)

    def is_present(self, device: str) -> bool:
        return device in self._present

    @property
    def count(self) -> int:
        """How many devices can be asked."""
        return len(self._present)

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        return sorted(self._present)
