"""A broker without an ACL lets anybody announce devices: what the aggregator knows of them is bounded in bytes."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from machines import TOPICS, feed, make_coordinator, of, received, report, status

from edgefl.coordinator.devices import presence
from edgefl.coordinator.devices.presence import Presence
from edgefl.coordinator.updates import receipts
from edgefl.machine import Connected, Note
from edgefl.protocol.messages import Status


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(presence, "MOST", 3)
    monkeypatch.setattr(receipts, "MOST_SENDERS", 3)


def test_when_too_many_devices_are_known_no_other_one_is_let_in(few):
    coordinator = make_coordinator(min_reports=2)
    feed(coordinator, Connected(), *map(status, "abc"))
    (note,) = of(feed(coordinator, status("d")), Note)
    assert note.level == "warning" and "3 devices are known" in note.text and "clear" in note.text
    feed(coordinator, status("b", "lost"), status("b", boot=2))
    report(coordinator, "d")
    tally = coordinator.tally
    assert coordinator.snapshot().present == 3 and tally.num_counted == 0 and "d" not in tally.unreported
    feed(coordinator, received(TOPICS.status("c"), b""), status("d"))
    assert coordinator.presence.present() == ["a", "b", "d"], "a cleared status makes room"
    report(coordinator, "d")
    assert tally.counted == ["d"]


def test_a_fleet_may_be_as_large_as_the_settings_expect():
    assert Presence(expect=10**6).most == 2 * 10**6


def test_violations_of_ever_new_senders_are_counted_together(few):
    coordinator = make_coordinator()
    feed(coordinator, Connected(), *(received(TOPICS.status(f"x{i}"), b"rubbish") for i in range(9)))
    assert coordinator.dropped == {"x0": 1, "x1": 1, "x2": 1, "?": 6}


@pytest.mark.parametrize("state", ["ready", "lost"])
def test_i13_all_that_is_known_of_forged_devices_takes_300_mb_at_most(state):
    devices = 400
    coordinator = make_coordinator(start={"watched": True})
    feed(coordinator, Connected())
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(devices):
            told = Status(state, i, 5, "\U0001f600" * 500, "x" * 16)
            feed(coordinator, received(TOPICS.status(f"device-{i:057d}"), told))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / devices * presence.MOST < 300e6
