"""Rounds that ask for new data only, at the aggregator: they open when enough devices have some."""

from __future__ import annotations

import pytest
from machines import TOPICS, feed, make_coordinator, of, received, report, round_in

from edgefl.coordinator.events import Commit
from edgefl.machine import Connected, Note, Tick
from edgefl.protocol.messages import Status
from edgefl.simulation.simulate import simulate


def status(device, fresh=True, state="ready", boot=1):
    return received(TOPICS.status(device), Status(state, boot, 5, fresh=fresh))


def begin(*events, **options):
    coordinator = make_coordinator(**{"only_new_data": True, "min_reports": 2} | options)
    return coordinator, feed(coordinator, *events, Connected(), now=0.0)


def test_a_round_opens_when_enough_devices_have_new_data_and_waits_for_no_other():
    coordinator, out = begin(status("a"), status("b", False), status("c", False))
    assert coordinator.snapshot().phase == "waiting" and coordinator.snapshot().present == 1
    assert "waiting: 1 of 2 devices (2 without new data)" in of(out, Note)[-1].text
    opened = round_in(feed(coordinator, status("c"), now=5.0))
    assert opened.state == "open" and opened.only_new_data
    feed(coordinator, status("b", False, boot=2), now=6.0)
    report(coordinator, "a", now=7.0)
    assert of(report(coordinator, "c", now=8.0), Commit)[0].record.devices == ["a", "c"]


def test_a_device_whose_data_change_while_a_round_is_open_takes_part():
    coordinator, _ = begin(status("a"), status("b"), status("c", False))
    feed(coordinator, status("c"), now=1.0)
    report(coordinator, "a")
    assert not of(report(coordinator, "b"), Commit)
    assert of(report(coordinator, "c"), Commit)


def test_devices_are_told_what_became_of_the_round_when_the_next_one_does_not_open():
    """Those of an abandoned round have new data still, and know it only then."""
    coordinator, _ = begin(status("a"), status("b"), deadline_s=10.0)
    report(coordinator, "a")
    feed(coordinator, status("a", False), now=2.0)
    out = []
    while coordinator.snapshot().phase == "open":
        out = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert of(out, Commit)[0].record.state == "abandoned"
    assert (round_in(out).state, round_in(out).round, round_in(out).version) == ("waiting", 2, 0)
    assert round_in(feed(coordinator, status("a"), now=200.0)).state == "open"


def test_a_round_goes_on_while_an_update_is_on_its_way_whose_device_has_told_that_its_data_are_not_new_any_more():
    coordinator, _ = begin(status("a"), status("b"), deadline_s=10.0)
    report(coordinator, "a")
    feed(coordinator, status("b", False), now=2.0)
    out = feed(coordinator, Tick(), now=10.0)
    assert [note.text for note in of(out, Note)] == [
        "round 1 goes on, in deadline 2 of at most 8: 1 of 2 reports, at work: b"
    ]
    assert of(report(coordinator, "b", now=15.0), Commit)[0].record.devices == ["a", "b"]


@pytest.mark.parametrize("fraction, rounds", [(1.0, 1), (0.5, 4)])
def test_a_simulation_ends_when_all_data_have_counted(fraction, rounds):
    notes = []
    history = simulate(
        "mlp:64-10", "digits", devices=4, rounds=50, only_new_data=True, min_reports=1, fraction=fraction,
        note=lambda name, note: notes.append(note),
    )  # fmt: skip
    assert 1 <= len(history.rounds) <= rounds
    assert sorted(device for record in history.rounds for device in record.devices) == [f"dev-{i}" for i in range(4)]
    assert any("simulated data never change" in note.text for note in notes if note.level == "warning")
