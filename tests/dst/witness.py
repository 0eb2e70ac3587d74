"""Witness: what hosts tell of themselves. This one notes nothing; checker.py compares with what must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefl_broker.store import State

from edgefl.device.events import Outbox, TrainJob
from edgefl.machine import Publish, Subscribe
from edgefl.profiles import Profile
from edgefl.protocol.round import Round

if TYPE_CHECKING:
    from .hosts import AggregatorHost, DeviceHost, Host


class Witness:
    """Called before and after each step of a machine, and before what a host does to disk and network."""

    def before(self, host: Host) -> object:
        """What `after` wants to compare with."""

    def after(self, host: Host, event: object, before: object, damaged: bool) -> None:
        """A step is done; `damaged`: its message had lost a bit on the way."""

    def publishes(self, host: Host, action: Publish) -> None:
        """About to be sent."""

    def subscribes(self, host: Host, action: Subscribe) -> None:
        """About to be sent."""

    def resumes(self, host: AggregatorHost, state: State, damaged: bool) -> None:
        """An aggregator has started; `damaged`: its newest model had lost a bit."""

    def stops(self, host: AggregatorHost, reason: str) -> None:
        """An aggregator has found another one."""

    def trains(self, host: DeviceHost, job: TrainJob) -> None:
        """A job is begun."""

    def trained(self, host: DeviceHost, job: TrainJob, blob: bytes) -> None:
        """A job is done; its machine does not know yet."""

    def saves(self, host: DeviceHost, outbox: Outbox) -> None:
        """About to be saved."""

    def keeps(self, host: DeviceHost, round: Round) -> None:
        """The model of that round is about to become the device's file."""

    def profiles(self, host: AggregatorHost, profile: Profile) -> None:
        """About to be shown to the operator."""

    def drops(self, host: DeviceHost, applied: bool) -> None:
        """The saved update is about to be dropped."""
