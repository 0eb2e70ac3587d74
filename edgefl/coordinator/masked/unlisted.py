"""Unlisted: devices that a helper does not know as we do, so no round asks them. No I/O. Part of RoundCoordinator.

A helper learns of devices from its own copy of the roster, which its operator replaces by hand. While one of the two
copies is older, the helper refuses every set with a device that they name differently. It tells with each answer which
roster it goes by. So a device that it has named is asked again once it goes by another one, or once we do. This is in
memory alone: after a restart the device is asked once more, and the helper names it again.
"""

from __future__ import annotations

from collections.abc import Collection

NAMED = 12  # devices in a line
REMEDY = "until the newest roster.json, as `edgefl keys` writes it, is in the folder of keys of both"


class Unlisted:
    """`devices`: those that no round asks."""

    def __init__(self) -> None:
        self._by_helper: dict[str, tuple[int, set[str]]] = {}  # the serial of its roster, and what that lacks

    @property
    def devices(self) -> frozenset[str]:
        return frozenset(device for _, lacking in self._by_helper.values() for device in lacking)

    def hear(self, helper: str, roster: int) -> list[str]:
        """The helper goes by the roster of this serial: the devices that it may know now. An older one than before is
        that of a helper that has lost its state: the newest that it has after that may have a number that we know."""
        serial, lacking = self._by_helper.get(helper, (0, set()))
        if roster == serial:
            return []
        self._by_helper[helper] = roster, set()
        return sorted(lacking)

    def name(self, helper: str, devices: Collection[str]) -> None:
        """The helper, whose roster `hear` knows, does not know these devices as we do."""
        self._by_helper.setdefault(helper, (0, set()))[1].update(devices)

    def forget(self, device: str) -> None:
        """Nothing is known of the device any more."""
        for _, lacking in self._by_helper.values():
            lacking.discard(device)

    def clear(self) -> None:
        """Our own roster is another one."""
        self._by_helper.clear()

    def advice(self) -> list[str]:
        """What an operator can do, a line for each helper that lacks devices."""
        return [
            f"helper {helper} has another roster than this aggregator: no round asks {some(lacking)} {REMEDY}"
            for helper, (_, lacking) in sorted(self._by_helper.items())
            if lacking
        ]


def some(devices: Collection[str]) -> str:
    """The devices in one line, and how many more there are."""
    told, more = sorted(devices)[:NAMED], len(devices) - NAMED
    return ", ".join([*told, f"{more} more"] if more > 0 else told)
