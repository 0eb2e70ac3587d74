"""Resting: which devices no round asks, because they have counted a while ago. No I/O. Part of RoundCoordinator.

Where sums have noise, the epsilon that is told may rest on a *separation*: that no device takes part again before so
many rounds have passed. Devices see to that themselves (device/trust.py), and a round that asked all of them would
wait for devices that refuse. A device whose disk was wiped does not know that it rests, so its update is refused
(masked_sum.py). What is known here comes from the records: a restart knows of the last hundred rounds.
"""

from __future__ import annotations

from ...history_record import RoundRecord


class Resting:
    """`separation`: the least number of rounds from one participation of a device to its next; 0: any."""

    def __init__(self, separation: int) -> None:
        self._separation = separation
        self._last: dict[str, int] = {}  # the round in which a device counted last

    def learn(self, record: RoundRecord) -> None:
        """A round is over, or was: its devices have taken part, whatever has become of its sum."""
        if self._separation > 1:
            self._last |= {device: max(record.round, self._last.get(device, 0)) for device in record.devices}

    def at(self, round: int) -> frozenset[str]:
        """The devices that this round must not ask. One that is opened anew may ask those that it has asked before."""
        self._last = {device: last for device, last in self._last.items() if round - last < self._separation}
        return frozenset(device for device, last in self._last.items() if last != round)

    def until(self, device: str) -> int:
        """The first round that may ask the device."""
        return self._last[device] + self._separation if device in self._last else 0
