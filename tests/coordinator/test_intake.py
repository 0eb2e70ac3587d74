"""Flow control: parts are asked for as there is room, within a budget of memory and a window of parts."""

from __future__ import annotations

import pytest
from flow import PART, many, parts_of, requests, serve
from machines import (
    commit_of,
    feed,
    make_coordinator,
    make_update,
    of,
    open_round,
    report,
    round_in,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.updates import intake as intake_module
from edgefl.machine import Connected, Publish, Tick


def test_in_a_small_fleet_nobody_waits_to_be_asked():
    coordinator = make_coordinator(min_reports=2)
    message = round_in(feed(coordinator, status("a"), status("b"), Connected()))
    assert (message.unasked, message.spread_s) == (250, 0.0)
    out = feed(coordinator, *parts_of("a"))
    assert word_to(out, "a").outcome == "counted"
    assert requests(out) == {}


def test_in_a_large_fleet_the_first_part_is_answered_by_a_request_for_the_others():
    _, coordinator = many(600)
    first = feed(coordinator, parts_of("d0000")[0], now=1.0)
    assert requests(first) == {"d0000": list(range(1, 16))}
    assert feed(coordinator, *parts_of("d0000")[1:8], now=1.0) == []
    assert word_to(feed(coordinator, *parts_of("d0000")[8:], now=1.0), "d0000").outcome == "counted"


def test_no_more_parts_are_owed_than_the_window_and_who_came_first_is_asked_first():
    devices, coordinator = many(600)
    out = feed(coordinator, *(parts_of(device)[0] for device in devices), now=1.0)
    intake = coordinator.tally.intake
    asked = requests(out)
    assert list(asked) == devices[: len(asked)]
    assert 16 * len(asked) >= 500 and sum(map(len, asked.values())) <= intake._window < 600
    assert (intake.waiting, intake.deferred) == (600 - len(asked), 600 - len(asked))
    commit = commit_of(serve(coordinator, out, 2.0))
    assert (commit.record.reported, commit.record.deferred) == (600, 600 - len(asked))
    assert (intake.waiting, intake._owed, intake._reserved, intake.wake_at) == (0, 0, 0, None)


def test_i13_what_is_under_way_stays_within_the_budget(monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 10_000)  # two updates
    devices, coordinator = many(600)
    intake = coordinator.tally.intake
    out = feed(coordinator, *(parts_of(device)[0] for device in devices))
    assert list(requests(out)) == devices[:2]
    while asked := requests(out):
        out = feed(coordinator, *(parts_of(d)[i] for d, wanted in asked.items() for i in wanted))
        assert sum(a.assembler.buffered for a in intake._arrivals.values()) <= intake._reserved <= 10_000
    assert commit_of(out).record.reported == 600


def test_one_update_above_the_budget_is_still_taken(monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 1000)
    assert commit_of(report(open_round("a"), "a"))


def test_a_device_that_is_deferred_may_send_its_unasked_parts_in_vain(monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 5000)  # one update
    coordinator = open_round("a", "b")
    feed(coordinator, *parts_of("a")[:4], *parts_of("b"), now=0.0)
    intake = coordinator.tally.intake
    assert (intake.waiting, intake.deferred, coordinator.dropped.total()) == (1, 1, 0)
    out = feed(coordinator, *parts_of("a")[4:], now=1.0)
    assert requests(out) == {"b": list(range(16))}
    assert commit_of(feed(coordinator, *parts_of("b"), now=1.0)).record.reported == 2


def test_who_stays_silent_makes_way_for_those_who_wait(monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 5000)
    coordinator = open_round("a", "b", deadline_s=1000.0)
    feed(coordinator, *parts_of("a")[:4], *parts_of("b"), now=0.0)
    asked = []
    for now in range(5, 55, 5):
        assert coordinator.wake_at == now
        asked += [(now, device) for device in requests(feed(coordinator, Tick(), now=float(now)))]
    assert asked == [(5, "a"), (15, "a"), (30, "a"), (50, "b")]
    assert word_to(feed(coordinator, *parts_of("b"), now=51.0), "b").outcome == "counted"
    assert word_to(feed(coordinator, *parts_of("a"), now=52.0), "a").outcome == "counted"


def test_a_slow_device_keeps_its_place_and_is_asked_less_often_once_its_pace_is_known(monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 5000)
    coordinator = open_round("a", "b", deadline_s=3600.0)
    parts, asked, now = parts_of("a"), [], 0.0
    feed(coordinator, parts[0], *parts_of("b"), now=now)
    for part in parts[1:]:
        for _ in range(45):
            now += 1.0
            asked += [(now, device) for device in requests(feed(coordinator, Tick(), now=now))]
        out = feed(coordinator, part, now=now)
    assert word_to(out, "a").outcome == "counted"
    assert asked == [(5.0, "a"), (15.0, "a"), (30.0, "a")]
    assert requests(out) == {"b": list(range(16))}


def test_an_update_that_is_cut_into_other_parts_begins_again():
    """A device that has restarted may know its link's rate now."""
    coordinator = open_round("a")
    feed(coordinator, *parts_of("a")[:5], now=0.0)
    again = update_parts("a", part_bytes=2 * PART)
    feed(coordinator, *again[:2], *parts_of("a")[5:6], now=1.0)
    assert word_to(feed(coordinator, *again, now=2.0), "a").outcome == "counted"
    assert coordinator.dropped.total() == 0


def test_who_has_gone_loses_its_turn(monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 5000)
    coordinator = open_round("a", "b", "c")
    feed(coordinator, parts_of("a")[0], parts_of("b")[0], parts_of("c")[0])
    feed(coordinator, status("b", "lost"))
    assert requests(feed(coordinator, *parts_of("a")[1:])) == {"c": list(range(16))}
    assert coordinator.tally.intake.waiting == 0


def test_a_device_whose_status_was_lost_is_asked_all_the_same():
    """A broker whose queue is full drops statuses too."""
    _, coordinator = many(600)
    assert requests(feed(coordinator, parts_of("stranger")[0])) == {"stranger": list(range(1, 16))}
    assert coordinator.presence.is_present("stranger")


def test_a_long_update_is_asked_for_in_pieces(monkeypatch):
    monkeypatch.setattr(intake_module, "REQUEST", 6)
    _, coordinator = many(600)
    first = parts_of("d0000")[0]
    assert requests(feed(coordinator, first)) == {"d0000": [1, 2, 3, 4, 5, 6]}
    assert feed(coordinator, *parts_of("d0000")[1:6]) == []
    assert requests(feed(coordinator, parts_of("d0000")[6])) == {"d0000": [7, 8, 9, 10, 11, 12]}


def test_the_window_grows_with_what_comes_and_is_halved_when_parts_are_lost():
    _, coordinator = many(600)
    intake = coordinator.tally.intake
    intake._window = 1600.0
    feed(coordinator, parts_of("d0000")[0], parts_of("d0000")[1], now=0.0)
    assert intake._window == pytest.approx(1600.2)
    feed(coordinator, Tick(), now=5.0)
    assert intake._window == pytest.approx(800.1)
    feed(coordinator, Tick(), now=15.0)
    assert intake._window == intake_module.WINDOW


def test_a_counted_update_that_begins_again_is_answered_once():
    coordinator = open_round("a", "b")
    report(coordinator, "a")
    again = feed(coordinator, *parts_of("a"))
    assert len(of(again, Publish)) == 1
    assert word_to(again, "a").outcome == "counted"


def test_a_part_of_another_attempt_starts_the_update_over():
    _, coordinator = many(600)
    feed(coordinator, *parts_of("d0000")[:5])
    other = update_parts("d0000", make_update(1.0), part_bytes=PART)
    serve(coordinator, feed(coordinator, other[0]), 0.0)
    out = feed(coordinator, Tick(), now=5.0)
    assert requests(out) == {"d0000": list(range(1, 16))}
    assert word_to(feed(coordinator, *other[1:], now=6.0), "d0000").outcome == "counted"
    assert coordinator.tally.intake._reserved == 0


def owed_and_window(coordinator):
    intake = coordinator.tally.intake
    return intake._owed, intake._window


def test_those_who_waited_are_let_in_as_the_window_has_room(monkeypatch):
    """One whose parts come opens the window for one more, not for all."""
    monkeypatch.setattr(intake_module, "WINDOW", 50)
    devices, coordinator = many(600)
    devices = devices[:60]
    asked = requests(feed(coordinator, *(parts_of(device)[0] for device in devices)))
    order = list(asked)
    assert 1 < len(order) < 5
    while asked:
        device = next(iter(asked))
        for part in asked.pop(device):
            more = requests(feed(coordinator, parts_of(device)[part], now=1.0))
            assert len(more) < 3
            order += more
            asked |= more
            owed, window = owed_and_window(coordinator)
            assert owed <= window
    assert order == devices


def test_a_device_that_is_asked_in_pieces_waits_for_room_between_them(monkeypatch):
    monkeypatch.setattr(intake_module, "WINDOW", 20)
    monkeypatch.setattr(intake_module, "REQUEST", 6)
    devices, coordinator = many(600)
    intake = coordinator.tally.intake
    asked = requests(feed(coordinator, *(parts_of(device)[0] for device in devices[:3])))
    assert list(asked) == devices[:3]
    for device in devices[:3]:
        feed(coordinator, *(parts_of(device)[i] for i in asked[device][:5]))
    intake._window = 14.0  # as after a loss
    ends = [requests(feed(coordinator, parts_of(d)[asked[d][5]])) for d in devices[:3]]
    assert [len(end) for end in ends] == [1, 1, 0]
    assert list(intake._to_ask) == devices[2:3]
    out = feed(coordinator, *(parts_of(devices[0])[i] for i in range(7, 13)))
    assert requests(out)[devices[2]] == [7, 8, 9, 10, 11, 12]


def test_quiet_devices_are_asked_again_within_the_window(monkeypatch):
    """A link that failed for all of them: what they owe is not asked for at once."""
    devices, coordinator = many(600)
    intake = coordinator.tally.intake
    intake._window = 9600.0
    assert len(requests(feed(coordinator, *(parts_of(device)[0] for device in devices)))) == 600
    now, again = 5.0, {}
    asked = requests(feed(coordinator, Tick(), now=now))
    assert intake._window == pytest.approx(4830)
    assert 0 < sum(map(len, asked.values())) <= intake._window
    for _ in range(10):
        again |= asked
        owed, window = owed_and_window(coordinator)
        assert owed <= window
        assert coordinator.wake_at == now + 5.0
        now = coordinator.wake_at
        asked = requests(feed(coordinator, Tick(), now=now))
    assert list(again) == devices, "each device has its turn, however many stay silent"


def test_one_may_always_be_asked(monkeypatch):
    monkeypatch.setattr(intake_module, "WINDOW", 3)
    monkeypatch.setattr(intake_module, "GROWTH", 0.0)
    devices, coordinator = many(600)
    out = feed(coordinator, *(parts_of(device)[0] for device in devices[:60]), now=1.0)
    assert requests(out) == {"d0000": list(range(1, 16))}
    serve(coordinator, out, 2.0)
    assert coordinator.tally.reports == 60


def test_who_waits_to_be_asked_is_not_taken_for_quiet(monkeypatch):
    monkeypatch.setattr(intake_module, "WINDOW", 20)
    monkeypatch.setattr(intake_module, "REQUEST", 6)
    devices, coordinator = many(600)
    intake = coordinator.tally.intake
    feed(coordinator, *(parts_of(device)[0] for device in devices[:3]))
    intake._window = 6.0
    feed(coordinator, *(parts_of(devices[2])[i] for i in range(1, 7)))
    assert list(intake._to_ask) == [devices[2]]
    for part, now in ((1, 4.0), (2, 8.0), (3, 12.0)):
        feed(coordinator, Tick(), parts_of(devices[0])[part], parts_of(devices[1])[part], now=now)
    assert list(intake._to_ask) == [devices[2]]
    assert (intake._arrivals[devices[2]].in_vain, coordinator.wake_at) == (0, 17.0)


def test_a_device_that_went_away_while_it_waited_to_be_asked_is_asked_when_it_is_back(monkeypatch):
    monkeypatch.setattr(intake_module, "REQUEST", 6)
    coordinator = open_round("a", "b", deadline_s=1000.0)
    intake = coordinator.tally.intake
    intake._unasked = 1
    feed(coordinator, parts_of("a")[0])
    feed(coordinator, status("a", "paused", boot=2))
    assert requests(feed(coordinator, *parts_of("a")[1:7])) == {}
    assert coordinator.wake_at == 5.0
    assert requests(feed(coordinator, Tick(), now=5.0)) == {}
    feed(coordinator, status("a", boot=3), now=6.0)
    assert intake._window > intake_module.WINDOW, "nobody lost a part"
    assert coordinator.wake_at == 10.0
    assert requests(feed(coordinator, Tick(), now=10.0)) == {"a": [7, 8, 9, 10, 11, 12]}


def test_a_part_costs_the_same_whether_ten_or_ten_thousand_wait(monkeypatch):
    """`ask` runs after every part: it looks at those whose turn it is, and at the first of the others."""
    looks = 0

    def is_present(device):
        nonlocal looks
        looks += 1
        return True

    devices, coordinator = many(600)
    monkeypatch.setattr(coordinator.presence, "is_present", is_present)
    feed(coordinator, *(parts_of(device)[0] for device in devices))
    before = looks
    feed(coordinator, *(parts_of("d0000")[i] for i in range(1, 15)))
    assert looks - before <= 2 * 14


def test_who_comes_with_a_longer_update_has_to_find_room_for_it(monkeypatch):
    """Or small first parts would let anything in."""
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 5000)  # one update, or many small ones
    devices, coordinator = many(600)
    intake = coordinator.tally.intake
    small = [update_parts(device, bytes(600), part_bytes=PART) for device in devices[:4]]
    asked = requests(feed(coordinator, *(parts[0] for parts in small)))
    assert list(asked) == devices[:4]
    for device in devices[:4]:
        feed(coordinator, parts_of(device)[0])
        assert intake._reserved <= 5000
    assert (list(intake._arrivals), list(intake._waiting)) == (devices[:4], devices[1:4])
    serve(coordinator, feed(coordinator, *parts_of(devices[0])), 1.0)
    assert coordinator.tally.reports == 4
    assert (intake._reserved, intake.buffered, intake._owed) == (0, 0, 0)


def test_a_part_that_belongs_nowhere_does_not_cost_a_device_what_has_come():
    _, coordinator = many(600)
    feed(coordinator, *parts_of("d0000")[:8])
    foreign = update_parts("d0000", bytes(600), part_bytes=PART, federation=1)
    feed(coordinator, foreign[0])
    assert coordinator.dropped["d0000"] == 1
    assert word_to(feed(coordinator, *parts_of("d0000")[8:]), "d0000").outcome == "counted"
