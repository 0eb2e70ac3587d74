"""Snapshot: what a daemon reads of its coordinator, from the first connection to the end."""

from __future__ import annotations

import dataclasses

import pytest
from machines import feed, make_coordinator, report, status, update_parts

from edgefl.coordinator.snapshot import Snapshot
from edgefl.machine import Connected


def test_a_snapshot_follows_the_rounds():
    coordinator = make_coordinator(min_reports=2, rounds=1, deadline_s=60.0)
    assert coordinator.snapshot() == Snapshot("waiting", 1, 0, 1, held=False, present=0)
    feed(coordinator, status("a"), status("b"), Connected(), now=5.0)
    waiting = Snapshot("open", 1, 0, 1, held=True, present=2, waiting=2, closes_at=65.0)
    assert coordinator.snapshot() == waiting
    part = update_parts("a")[0]
    feed(coordinator, part, now=6.0)
    assert coordinator.snapshot() == dataclasses.replace(waiting, bytes_up=len(part.payload))
    feed(coordinator, *update_parts("a")[1:], now=6.0)
    shot = coordinator.snapshot()
    assert (shot.counted, shot.waiting) == (1, 1)
    report(coordinator, "b", now=7.0)
    done = coordinator.snapshot()
    assert (done.phase, done.version, done.held, done.closes_at) == ("done", 1, False, None)


def test_a_snapshot_is_frozen_and_does_not_change_later():
    coordinator = make_coordinator(min_reports=1)
    before = coordinator.snapshot()
    feed(coordinator, status("a"), Connected())
    assert (before.phase, coordinator.snapshot().phase) == ("waiting", "open")
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.phase = "done"  # type: ignore[misc]
