"""Devices that rest, where a separation lies between two rounds of one: which may count, and which rounds open."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from machines import TOPICS, commit_of, feed, received, status
from masked_rounds import (
    PRIVACY,
    answer_of,
    asked,
    make_helper,
    make_masked,
    masked_parts,
    open_masked,
    round_in,
    saved_in,
    word,
)

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import Commit
from edgefl.helper.helper import Helper
from edgefl.machine import Action, Connected, Received, Tick
from edgefl.protocol.messages import Status
from edgefl.protocol.terms import Terms

APART = msgspec.structs.replace(PRIVACY, separation=3, least=2)


def says(device: str, code: str) -> Received:
    return received(TOPICS.status(device), Status("trouble", 1, code=code))


def test_i38_a_device_that_has_forgotten_that_it_rests_does_not_count_before_its_time():
    """Its disk was wiped. A draw asks it all the same, since it names nobody."""
    coordinator, terms = open_masked(*"abcd", privacy=APART, cohort="draw", goal=2)
    out = [action for device in "ab" for action in feed(coordinator, *masked_parts(terms, device), now=1.0)]
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    second = round_in(out)
    assert (second.round, second.cohort) == (2, None)
    terms = Terms.read(second.terms)
    out = feed(coordinator, *masked_parts(terms, "a"), now=3.0)
    told = word(out, "a")
    assert (told.outcome, told.reason) == ("rejected", "this device has taken part less than 3 rounds ago")
    assert coordinator.admission.barred == {}, "it is no fault of its own"
    out = [action for device in "cd" for action in feed(coordinator, *masked_parts(terms, device), now=3.0)]
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=4.0)
    assert commit_of(out).record.devices == ["c", "d"]


def test_i38_devices_of_a_set_that_was_asked_for_rest_though_its_sum_is_of_no_use():
    """The newest model was damaged, so the sum is of another one. A helper may have opened it."""
    coordinator, terms = open_masked(*"abcd", privacy=APART, cohort="draw", goal=2)
    out = [action for device in "ab" for action in feed(coordinator, *masked_parts(terms, device), now=1.0)]
    saved = saved_in(out)
    again = make_masked(APART, start={"attempt": 2, "asked": saved, "version": 7})
    assert (again.phase, again.round) == ("waiting", 1)
    assert [again.resting.at(round) for round in (1, 2, 3, 4)] == [frozenset(), {"a", "b"}, {"a", "b"}, frozenset()]
    asked_later = replace(saved, record=msgspec.structs.replace(saved.record, round=4))
    before = msgspec.structs.replace(saved.record, state="abandoned")
    for round in (2, 5):  # the second has passed it over, since its noise was paid for
        again = make_masked(APART, start={"asked": asked_later, "round": round, "recent": [before], "version": 7})
        assert (again.phase, again.resting.at(5)) == ("waiting", {"a", "b"}), round


def test_i07_a_device_that_says_that_it_rests_is_not_waited_for_and_is_wanted_in_the_next_round():
    """A draw asks it, since it names nobody. By the next round it may have rested enough."""
    coordinator, _ = open_masked(*"abcd", privacy=APART, cohort="draw", goal=4)
    feed(coordinator, *(says(device, "rests") for device in "ab"), now=1.0)
    assert not any(coordinator.presence.is_present(device) for device in "ab")
    assert coordinator.presence.present() == list("abcd") and coordinator.presence.count == 4
    feed(coordinator, *(says(device, "policy") for device in "ab"), now=2.0)
    assert coordinator.presence.present() == list("cd") and coordinator.presence.count == 2


def over(
    coordinator: RoundCoordinator, helper: Helper, out: list[Action], *devices: str
) -> tuple[Commit, list[Action]]:
    """The end of the open round, to which these devices report, and what the coordinator does then."""
    round, sent = round_in(out), []
    for device in devices:
        sent += feed(coordinator, *masked_parts(Terms.read(round.terms), device), now=coordinator.wake_at - 1)
    if coordinator.phase == "unmasking":
        sent += feed(coordinator, *answer_of(helper, asked(sent)), now=coordinator.wake_at - 1)
    while coordinator.round == round.round:
        sent += feed(coordinator, Tick(), now=coordinator.wake_at)
    return commit_of(sent), sent


def test_i07_devices_that_rest_out_of_step_come_together_again_though_one_never_reports():
    """Else each would be alone with the one that does not report, in rounds of two, and rest after each of them."""
    coordinator, helper = make_masked(APART, min_reports=2), make_helper()
    out = feed(coordinator, *map(status, "abl"), Connected(), now=0.0)
    records, last = [], {"a": -9, "b": -9}
    for late in ("b", "a", "", "", "", ""):  # in the first two rounds one of both is late
        number = round_in(out).round
        able = [device for device in last if number - last[device] >= APART.separation and device != late]
        commit, out = over(coordinator, helper, out, *able)
        last.update(dict.fromkeys(able, number))
        records.append((commit.record.state, commit.record.devices))
    assert records[:2] == [("abandoned", ["a"]), ("abandoned", ["b"])]
    assert records[-2:] == [("committed", ["a", "b"])] * 2


def test_i07_devices_that_rest_out_of_step_come_together_again_though_the_clock_leapt_while_one_reported():
    """Its report seems to have taken longer than a deadline, so no round waits for it. It comes back in step."""
    coordinator, helper = make_masked(APART, min_reports=2), make_helper()
    out = feed(coordinator, *map(status, "abl"), Connected(), now=0.0)
    out += feed(coordinator, Tick(), now=1.0 + coordinator.config.deadline_s)
    assert coordinator.round == 1, "it goes on: two devices are still at work"
    records = []
    for device in ("a", "b"):
        commit, out = over(coordinator, helper, out, device)
        records.append(commit.record)
    commit, out = over(coordinator, helper, out, "a", "b")
    assert [(record.round, record.state) for record in [*records, commit.record]] == [
        (1, "abandoned"), (2, "abandoned"), (5, "committed"),
    ]  # fmt: skip
