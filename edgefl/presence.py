"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from .protocol.messages import Status


class Presence:
    """The newest status of every device that has shown one."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}

    def show(self, device: str, status: Status) -> bool:
        """Take a status; False if it is a late will of a session that has been replaced."""
        known = self.statuses.get(device)
        if known is not None and status.state == "lost" and status.boot < known.boot:
            return False
        self.statuses[device] = status
        return True

    def is_present(self, device: str) -> bool:
        status = self.statuses.get(device)
        return status is not None and status.present

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        return sorted(device for device, status in self.statuses.items() if status.present)
