"""Two hours of the day that `make soak-day` simulates, with half of its devices; and that its checks can fail."""

from __future__ import annotations

import pytest
import soak_day

from edgefl.coordinator.devices.standing import Standing


def test_i13_rounds_keep_their_pace_and_count_every_healthy_device_while_others_come_and_go():
    day = soak_day.run(devices=30, hours=2.0, seed=1)
    soak_day.check(day)
    assert len(day.records) > 100
    assert any(len(spans) > 1 for spans in day.present.values()), "no device came and went"
    assert len(day.healthy) < 30


def test_if_every_device_is_waited_for_the_day_is_slow(monkeypatch):
    monkeypatch.setattr(Standing, "is_worth", lambda self, device: True)
    with pytest.raises(AssertionError, match="the median round took 241 s"):
        soak_day.check(soak_day.run(devices=30, hours=1.0, seed=1))
