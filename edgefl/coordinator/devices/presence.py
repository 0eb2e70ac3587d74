"""Presence: which devices are there, by their retained status. No I/O. Part of RoundCoordinator.

A status says that a device can be asked. Whether a round waits for the device is decided by its updates (standing.py).

On a broker without an ACL anybody can announce devices. So no more than `MOST` are let in, or twice as many as the
settings expect. All that is known of a device takes about 500 bytes, and 3 kB if it says as much as it may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from ...errors import ProtocolError
from ...protocol.messages import Status

MOST = 100_000  # devices


class Presence:
    """The newest status of every device that has sent one. `count` is the number of devices that can be asked: with
    `only_fresh` those that are present and whose data are new. `expect`: devices in the fleet; 0: unknown.
    `paused`: by an operator, and why."""

    def __init__(self, *, only_fresh: bool = False, expect: int = 0) -> None:
        self.most, self.expect = max(MOST, 2 * expect), expect
        self.statuses: dict[str, Status] = {}
        self.count = 0
        self._only_fresh = only_fresh
        self.paused: dict[str, str] = {}
        self._barred: set[str] = set()
        self._resting: frozenset[str] = frozenset()
        self._lacked: Counter[str] = Counter()  # rounds, by device

    def reconfigure(self, *, only_fresh: bool, expect: int) -> None:
        """Other settings: who can be asked is counted again."""
        self.most, self.expect = max(MOST, 2 * expect), expect
        self._only_fresh = only_fresh
        self.count = sum(map(self.can_be_asked, self.statuses))

    def update(self, device: str, status: Status) -> bool:
        """Store a status; False if it is known already, or is of a connection that has been replaced. ProtocolError if
        there is no room for one more device."""
        self._let_in(device)
        known = self.statuses.get(device)
        if known == status or (known is not None and status.is_older_than(known)):
            return False
        self.drop(device)
        self.statuses[device] = status
        self.count += self.can_be_asked(device)
        return True

    def know(self, statuses: Mapping[str, Status]) -> None:
        """The devices that have sent these before the start, in the place of their messages."""
        self.statuses.update(statuses)
        self.count = sum(map(self.can_be_asked, self.statuses))

    def _let_in(self, device: str) -> None:
        """ProtocolError if the device is not known, and there is no room for one more."""
        if device not in self.statuses and len(self.statuses) >= self.most:
            raise ProtocolError(
                f"{self.most} devices are known, and no other one is let in: clear the retained statuses of those that "
                "are gone, and have the broker's ACL let no device announce others: dropped",
                "room",
            )

    def prove(self, device: str) -> None:
        """An update proves presence, even if the broker dropped the device's status: brokers do in large fleets. So a
        device that is taken for gone is back; what it says itself, such as that it is paused, stands."""
        known = self.statuses.get(device)
        if known is None:
            self.update(device, Status("ready", 0))
        elif known.is_farewell:
            self.update(device, replace(known, state="ready", reason="", code=""))

    def drop(self, device: str) -> None:
        """The device's retained status has been cleared."""
        self.count -= self.can_be_asked(device)
        self.statuses.pop(device, None)

    def bar(self, device: str) -> None:
        """The device does not count as present until it is let in again, whatever it says (admission.py)."""
        self.count -= self.can_be_asked(device)
        self._barred.add(device)

    def unbar(self, device: str) -> None:
        if device in self._barred:
            self._barred.discard(device)
            self.count += self.can_be_asked(device)

    def pause(self, device: str, why: str) -> None:
        """An operator has paused the device: it is not asked until it is resumed, whatever it says."""
        self.count -= self.can_be_asked(device)
        self.paused[device] = why

    def resume(self, device: str) -> bool:
        """Whether the device was paused. It is not any more."""
        if self.paused.pop(device, None) is None:
            return False
        self.count += self.can_be_asked(device)
        return True

    def rest(self, devices: frozenset[str]) -> None:
        """These devices, and no others any more, are present and not asked (resting.py)."""
        if devices != self._resting:
            self._resting = devices
            self.count = sum(map(self.can_be_asked, self.statuses))

    @property
    def count_with_rest(self) -> int:
        """The number of devices that could be asked if none rested."""
        return len(self.could_ask()) if self._resting else self.count

    def _is_out(self, device: str) -> bool:
        return device in self._barred or device in self.paused

    def could_ask(self) -> list[str]:
        """The devices that could be asked if none rested, in no order."""
        return [
            device for device, status in self.statuses.items() if self._is_wanted(status) and not self._is_out(device)
        ]

    @property
    def hides(self) -> bool:
        """Whether a device would be asked if it were neither barred nor paused, and did not rest."""
        out = (device for some in (self._barred, self.paused, self._resting) for device in some)
        return any(device in self.statuses and self.statuses[device].present for device in out)

    def is_present(self, device: str) -> bool:
        status = self.statuses.get(device)
        return status is not None and status.present and not self._is_out(device)

    def can_be_asked(self, device: str) -> bool:
        status = self.statuses.get(device)
        return status is not None and self._is_wanted(status) and not (self._is_out(device) or device in self._resting)

    def present(self) -> list[str]:
        """The devices that can be asked, sorted."""
        wanted = (device for device, status in self.statuses.items() if self._is_wanted(status))
        return sorted(device for device in wanted if not (self._is_out(device) or device in self._resting))

    def _is_wanted(self, status: Status) -> bool:
        """Whether the next round wants the device. One that rests says so of a round that it was asked in; by the next
        it may be free (resting.py)."""
        return (status.present or status.code == "rests") and (status.fresh or not self._only_fresh)

    def wants_manifest(self) -> bool:
        """Whether the manifest is to come with the round that opens now: in the first, second, fourth, eighth and so on
        of all rounds in which the same device has said that it has not come."""
        lacking = [name for name, said in self.statuses.items() if said.code == "missing" and not self._is_out(name)]
        for name in [name for name in self._lacked if name not in self.statuses]:
            del self._lacked[name]
        self._lacked.update(lacking)
        return any(self._lacked[name].bit_count() == 1 for name in lacking)

    @property
    def without_news(self) -> int:
        """How many devices are present whose data are not new, where that matters."""
        return sum(status.present and not self._is_wanted(status) for status in self.statuses.values())

    def budgets(self) -> dict[str, int]:
        """What the owners' byte budgets allow the updates of devices that have one; 0: the device sits out."""
        told = ((device, status.max_bytes, status.code) for device, status in self.statuses.items())
        return dict(sorted((device, allowed) for device, allowed, code in told if allowed or code == "budget"))
