"""Devices that are taken for gone: by which statuses, and what proves that they are not."""

from __future__ import annotations

import pytest
from machines import TOPICS, commit_of, feed, open_round, received, report, status, update_parts
from masked_rounds import answer_of, asked, make_helper, make_masked, masked_parts, round_in

from edgefl.coordinator.events import Pause
from edgefl.machine import Connected
from edgefl.protocol.messages import STARTS, Status
from edgefl.protocol.terms import Terms

STATES = ["ready", "training", "paused", "trouble", "sleeping", "disconnected", "lost"]
FAREWELLS = ["disconnected", "lost"]


def known(*statuses: Status, device: str = "b") -> Status:
    """What is known of the device after these statuses of it."""
    coordinator = open_round("a", device, min_reports=1)
    feed(coordinator, *(received(TOPICS.status(device), each) for each in statuses))
    return coordinator.presence.statuses[device]


@pytest.mark.parametrize("state", STATES)
def test_i07_within_a_start_a_status_of_an_earlier_connection_says_nothing_of_the_new_one(state):
    """Found by simulation: a repeated "ready" made the late will of the connection between look new."""
    newest = Status("ready", 2 * STARTS + 2)
    assert known(newest, Status(state, 2 * STARTS), Status("lost", 2 * STARTS + 1)) == newest


@pytest.mark.parametrize("state", FAREWELLS)
def test_i07_a_late_farewell_of_an_earlier_start_says_nothing_of_the_new_one(state):
    newest = Status("ready", 3 * STARTS)
    assert known(newest, Status(state, 2 * STARTS + 7)) == newest


@pytest.mark.parametrize("state", [state for state in STATES if state not in FAREWELLS])
@pytest.mark.parametrize(
    "before", [Status("ready", 5 * STARTS + 3), *(Status(gone, STARTS + 3) for gone in ("lost", "trouble"))]
)
def test_i07_a_device_whose_disk_was_restored_or_wiped_is_believed_when_it_lives(before, state):
    """It counts its starts again: from an earlier one, or from the one that it was in."""
    lives, over = Status(state, STARTS), Status("lost", STARTS)
    assert known(before, lives) == lives
    assert known(before, lives, over) == over


def test_an_agent_that_can_not_start_is_believed_though_it_counts_no_start():
    why = Status("trouble", 0, code="settings")
    assert known(Status("lost", 5 * STARTS), why) == why


@pytest.mark.parametrize("state", FAREWELLS)
def test_i07_an_update_brings_a_device_back_that_is_taken_for_gone(state):
    """Found by simulation: a broker whose queue was full had dropped the statuses of a device that was back."""
    coordinator = open_round("a", "b", "c", min_reports=1)
    feed(coordinator, status("b", state), now=1.0)
    assert coordinator.presence.present() == ["a", "c"] and coordinator.tally.waiting == ["a", "c"]
    first, *others = update_parts("b")
    feed(coordinator, first, now=2.0)
    assert coordinator.presence.present() == ["a", "b", "c"] and coordinator.presence.count == 3
    assert coordinator.tally.waiting == ["a", "b", "c"]
    feed(coordinator, *others, now=2.0)
    report(coordinator, "a", now=3.0)
    assert commit_of(report(coordinator, "c", now=3.0)).record.devices == ["a", "b", "c"]


@pytest.mark.parametrize("state", ["paused", "trouble", "sleeping"])
def test_an_update_does_not_overrule_what_its_device_says_itself(state):
    coordinator = open_round("a", "b", "c", min_reports=1)
    feed(coordinator, status("b", state), *update_parts("b"), now=1.0)
    assert coordinator.presence.present() == ["a", "c"] and coordinator.presence.statuses["b"].state == state


def test_i07_a_device_is_asked_again_that_repeats_an_update_while_its_round_ends():
    """A round names the devices that it asks, since one is paused. So no update of its own would bring it back."""
    coordinator, helper = make_masked(min_reports=2), make_helper()
    out = feed(coordinator, *map(status, "abcd"), Pause("1", "d"), Connected(), now=0.0)
    terms = Terms.read(round_in(out).terms)
    sent = [action for device in "abc" for action in feed(coordinator, *masked_parts(terms, device), now=1.0)]
    assert coordinator.phase == "unmasking"
    feed(coordinator, status("b", "disconnected"), masked_parts(terms, "b")[0], now=2.0)
    out = feed(coordinator, *answer_of(helper, asked(sent)), now=3.0)
    assert round_in(out).cohort == ["a", "b", "c"]
