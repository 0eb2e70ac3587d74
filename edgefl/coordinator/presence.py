"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator.

A status says that a device can be asked. Whether a round waits for the device is decided by its updates (standing.py).
"""

from __future__ import annotations

from ..protocol.messages import Status


class Presence:
    """The newest status of every device that has sent one. `count` is the number of devices that can be asked."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        self.count = 0

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

    def is_present(self, device: str) -> bool:
        status = self.statuses.get(device)
        return status is not None and status.present

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        return sorted(device for device, status in self.statuses.items() if status.present)

    def budgets(self) -> dict[str, int]:
        """What the owners' byte budgets allow the updates of devices that have one; 0: the device sits out."""
        told = ((device, status.max_bytes, status.code) for device, status in self.statuses.items())
        return dict(sorted((device, allowed) for device, allowed, code in told if allowed or code == "budget"))
