"""Guards that keep devices from being taken for gone, or for slow, removed one at a time.

The simulation must notice, or a test of the guard.

Masked schedules do, since a masked round may name the devices that it asks: one that is taken for gone is not asked.
"""

from __future__ import annotations

import math

import pytest
from dst import masked
from guards import breaks
from masked_schedules import broken

from edgefl.coordinator.devices.presence import Presence
from edgefl.coordinator.devices.standing import QUICK_S, Standing
from edgefl.device.status import DeviceStatus
from edgefl.protocol.messages import STARTS, Status


@pytest.fixture(autouse=True)
def no_losses(monkeypatch):
    """Few schedules show that a guard is gone, and these without losses."""
    monkeypatch.setattr(masked, "losses_of", lambda seed: ())


def test_no_status_but_a_will_is_taken_for_an_older_one(monkeypatch):
    def is_older(self, known):
        return self.state == "lost" and self.boot < known.boot

    monkeypatch.setattr(Status, "is_older_than", is_older)
    assert broken(known=4) == "I07"


def test_a_device_that_was_wiped_is_believed_only_at_its_next_start(monkeypatch):
    """It said that it is back, and nobody asked it again."""

    def is_older(self, known):
        return self.boot < known.boot and (self.is_farewell or self.boot // STARTS == known.boot // STARTS)

    monkeypatch.setattr(Status, "is_older_than", is_older)
    named = "coordinator/test_gone::test_i07_a_device_whose_disk_was_restored_or_wiped_is_believed_when_it_lives"
    assert breaks(monkeypatch, named, before=Status("lost", STARTS + 3), state="ready")


def test_an_update_proves_nothing_of_a_device_that_is_taken_for_gone(monkeypatch):
    original = Presence.prove

    def prove(self, device):
        if device not in self.statuses:
            original(self, device)

    monkeypatch.setattr(Presence, "prove", prove)
    monkeypatch.setattr(DeviceStatus, "is_missed", lambda *args: False)  # which would say it again, rounds later
    assert broken(known=1000351) == "I07"


def test_all_devices_are_slow_while_no_time_is_known(monkeypatch):
    original = Standing.working_s

    def working_s(self, times):
        found = original(self, times)
        return QUICK_S if found == math.inf and not times else found

    monkeypatch.setattr(Standing, "working_s", working_s)
    assert breaks(monkeypatch, "coordinator/test_standing::test_i07_while_no_time_is_known_no_device_is_slow")


def test_a_device_that_seems_slow_stays_out_of_step_with_those_that_rest(monkeypatch):
    original = Standing.can_report
    monkeypatch.setattr(
        Standing, "can_report", lambda self, device, within_s: original(self, device, min(within_s, self._limit_s))
    )
    assert broken(known=1001882) == "I07"
