"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from .protocol.messages import Status

ASK_AGAIN_S = 30.0  # before asking who is there, while too few are


class Presence:
    """The newest status of every device that has shown one."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        self.ask_at: float | None = None
        self._present: set[str] = set()

    def show(self, device: str, status: Status) -> bool:
        """Take a status; False if it is a late will of a session that has been replaced."""
        known = self.statuses.get(device)
        if known is not None and status.state == "lost" and status.boot < known.boot:
            return False
        self.statuses[device] = status
        (self._present.add if status.present else self._present.discard)(device)
        return True

    def forget(self, device: str) -> None:
        """Its retained status has been cleared."""
        self.statuses.pop(device, None)
        self._present.discard(device)

    def ask_again(self, now: float) -> bool:
        """Too few are there: whether it is time to ask again. A broker whose queue is shorter than the fleet drops
        statuses, a will may come late, and a device that waits for a round has no reason to repeat its own."""
        due = self.ask_at is not None and now >= self.ask_at
        if due or self.ask_at is None:
            self.ask_at = now + ASK_AGAIN_S
        return due

    def is_present(self, device: str) -> bool:
        return device in self._present

    @property
    def count(self) -> int:
        """How many devices can be asked."""
        return len(self._present)

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        return sorted(self._present)
