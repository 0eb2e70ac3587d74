"""Shares: what the open round has of each device, and which ones it waits for. No I/O. Part of Tally."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..devices.cohort import Cohort


class Share(msgspec.Struct, gc=False):
    """One device's part in the open round.

    `waiting`: the round waits for the device's update, which is neither counted nor rejected yet; `waited`: it has
    waited for it. `folded`: a late update of it counts as its report, in an asynchronous round. `bytes_up` is None
    until a part of an update has arrived; `bytes_down` comes from the header of the update that was counted. `seconds`
    is the report time of the last whole valid update that arrived.
    """

    waiting: bool = False
    waited: bool = False
    counted: bool = False
    rejected: bool = False
    folded: bool = False
    bytes_up: int | None = None
    bytes_down: int = 0
    seconds: float | None = None


class Shares:
    """The devices of the open round, which asks the `cohort` and waits for `waiting` when it opens. With `any_round`,
    no device has two updates in one round, late or not."""

    def __init__(self, waiting: Iterable[str], cohort: Cohort, *, any_round: bool) -> None:
        self.cohort = cohort
        self._any_round = any_round
        # One entry a device, so that each name is kept once: every topic brings a new string.
        self._shares = {device: Share(waiting=True, waited=True) for device in waiting}
        self._num_waiting = len(self._shares)
        self._num_counted = 0

    def _share(self, device: str) -> Share:
        share = self._shares.get(device)
        if share is None:
            share = self._shares[device] = Share()
        return share

    def _wait_for(self, share: Share) -> None:
        if not (share.waiting or share.counted or share.rejected or share.folded):
            share.waiting = share.waited = True
            self._num_waiting += 1

    def _stop_waiting(self, share: Share | None) -> None:
        if share is not None and share.waiting:
            share.waiting = False
            self._num_waiting -= 1

    def is_waiting_for(self, device: str) -> bool:
        share = self._shares.get(device)
        return share is not None and share.waiting

    def counted_in(self, device: str) -> int | None:
        """0, for a round that is open, if the device's update of this round is counted; else None."""
        share = self._shares.get(device)
        return 0 if share is not None and share.counted else None

    @property
    def waiting(self) -> list[str]:
        """Devices that the round waits for."""
        return [device for device, share in self._shares.items() if share.waiting]

    @property
    def counted(self) -> list[str]:
        """Devices whose update of this round is counted."""
        return [device for device, share in self._shares.items() if share.counted]

    @property
    def times(self) -> list[float]:
        """The report times of these."""
        return [share.seconds for share in self._shares.values() if share.counted and share.seconds is not None]

    @property
    def rejected(self) -> list[str]:
        """Devices with an update of this round that was rejected."""
        return [device for device, share in self._shares.items() if share.rejected]

    def is_full(self, device: str) -> bool:
        """Whether this round takes in no further update of the device: it has one, and is asynchronous."""
        share = self._shares.get(device)
        return self._any_round and share is not None and (share.counted or share.folded)

    def lacks(self, device: str, is_worth: bool) -> bool:
        """Whether a report of this device, which is present, may still be waited for."""
        share = self._shares.get(device)
        if share is not None and (share.counted or share.rejected or share.folded or share.waiting):
            return share.waiting
        return is_worth and self.cohort.asks(device)

    @property
    def waited(self) -> list[str]:
        """Devices that the round has waited for, even if they are gone by now."""
        return [device for device, share in self._shares.items() if share.waited]

    @property
    def unreported(self) -> list[str]:
        """Devices whose update the round has waited for, or has begun to receive, and has not counted."""
        return [device for device, share in self._shares.items() if not share.counted]

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    @property
    def num_counted(self) -> int:
        return self._num_counted

    def times_json(self) -> msgspec.Raw:
        """{device: seconds} as JSON."""
        told = {device: round(share.seconds, 3) for device, share in self._shares.items() if share.seconds is not None}
        return msgspec.Raw(msgspec.json.encode(told, order="sorted"))
