"""Deadlines below training time: a round goes on while devices that it needs are at work, and later rounds know."""

from __future__ import annotations

from late import FOLD
from machines import (
    TOPICS,
    accumulator_of,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    make_update,
    of,
    open_round,
    received,
    report,
    round_in,
    run_out,
    status,
    word_to,
)

from edgefl.coordinator.events import Commit, LateUpdate, Pause, ReloadedLate, ReloadLate, SaveLate
from edgefl.coordinator.updates import late_table
from edgefl.coordinator.updates.late_table import LateTable
from edgefl.coordinator.updates.receipts import NOT_KEPT
from edgefl.machine import Connected, Note, Publish, Tick
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader


def test_the_same_round_goes_on_while_devices_that_it_needs_are_at_work():
    coordinator = open_round("a", "b", "c", min_reports=2, deadline_s=60)
    report(coordinator, "a", now=1.0)
    before = accumulator_of(coordinator)
    out = feed(coordinator, Tick(), now=60.0)
    (note,) = of(out, Note)
    assert note.level == "warning"
    assert note.text == "round 1 goes on, in deadline 2 of at most 8: 1 of 2 reports, at work: b, c"
    told = [TOPICS.round, TOPICS.manifest]
    assert [p.topic for p in of(out, Publish)] == told, "a broker's full queue may have dropped both, and statuses"
    assert (coordinator.round, accumulator_of(coordinator), coordinator.wake_at) == (1, before, 120.0)
    assert coordinator.snapshot().deadlines == 2
    report(coordinator, "b", now=100.0)
    commit = commit_of(feed(coordinator, Tick(), now=120.0))
    assert (commit.record.devices, commit.record.deadlines, commit.record.seconds) == (["a", "b"], 2, 120.0)


def test_after_a_round_with_too_few_reports_devices_are_asked_which_of_them_are_there():
    """Found by simulation: late wills had hidden two healthy devices, and each round asked the same hung one."""
    coordinator = open_round("a", "b", min_reports=2, deadline_s=60)
    out = [action for number in range(1, 9) for action in feed(coordinator, Tick(), now=60.0 * number)]
    assert coordinator.round > 1
    assert [p.topic for p in of(out, Publish)][-1] == TOPICS.manifest


def test_a_deadline_that_passed_long_ago_begins_a_whole_one():
    """The aggregator was off line meanwhile, and its devices could not report."""
    coordinator = open_round("a", deadline_s=60)
    feed(coordinator, Tick(), now=1000.0)
    assert (coordinator.round, coordinator.wake_at, coordinator.tally.deadlines) == (1, 1060.0, 2)


def test_i04_a_round_that_can_not_reach_its_minimum_any_more_is_abandoned_at_its_deadline():
    for gone in ([status("b", "lost")], [status("b", "paused")], [status("b", "trouble")]):
        coordinator = open_round("a", "b", "c", min_reports=3, deadline_s=60)
        report(coordinator, "a", now=1.0)
        feed(coordinator, *gone, now=2.0)
        record = commit_of(feed(coordinator, Tick(), now=60.0)).record
        assert (record.state, record.deadlines) == ("abandoned", 1)


def test_i04_a_device_whose_update_was_refused_is_not_at_work():
    coordinator = open_round("a", "b", deadline_s=60)
    report(coordinator, "a", now=1.0)
    report(coordinator, "b", blob=b"\1" * 4032, now=1.0)
    assert commit_of(feed(coordinator, Tick(), now=60.0)).record.state == "abandoned"


def test_i04_a_device_that_has_lost_what_it_earned_keeps_no_round_going():
    coordinator = open_round("a", "b", min_reports=2, deadline_s=60)
    for _ in range(2):
        number = coordinator.round
        report(coordinator, "a", round=number, now=coordinator.tally.opened_at)
        record = commit_of(run_out(coordinator)).record
    assert (record.state, record.deadlines, record.missed) == ("abandoned", 1, {"b": "no update yet"})


def test_i04_a_slow_device_that_has_earned_waiting_keeps_a_round_going_that_needs_it():
    """Found by simulation: after a restart one device's time was known, and longer than the deadline."""
    coordinator = make_coordinator(min_reports=2, deadline_s=20)
    coordinator.standing.report("b", 1, 47.0, counted=False)
    feed(coordinator, status("a"), status("b"), Connected())
    assert coordinator.tally.waiting == ["a"]
    report(coordinator, "a", now=1.0)
    (note,) = of(feed(coordinator, Tick(), now=20.0), Note)
    assert note.text == "round 1 goes on, in deadline 2 of at most 8: 1 of 2 reports, at work: b"
    feed(coordinator, Tick(), now=40.0)
    assert commit_of(report(coordinator, "b", now=47.0)).record.devices == ["a", "b"]


def test_i04_no_round_waits_for_a_device_that_takes_longer_than_all_deadlines():
    coordinator = make_coordinator(min_reports=2, deadline_s=20)
    coordinator.standing.report("b", 1, 200.0, counted=False)
    feed(coordinator, status("a"), status("b"), Connected())
    report(coordinator, "a", now=1.0)
    assert commit_of(feed(coordinator, Tick(), now=20.0)).record.state == "abandoned"


def test_a_device_that_was_not_asked_is_not_at_work():
    coordinator = make_coordinator(fraction=0.5, min_reports=2, deadline_s=60)
    feed(coordinator, *map(status, "abcd"))
    asked = round_in(feed(coordinator, Connected())).cohort
    feed(coordinator, status(asked[0], "lost"), now=1.0)
    assert commit_of(feed(coordinator, Tick(), now=60.0)).record.deadlines == 1


def test_i04_where_others_could_be_asked_slow_devices_are_left_behind():
    """Found by simulation: one hung device in a drawn cohort cost eight deadlines."""
    for seconds, deadlines in ((5.9, 1), (6.1, 2)):
        coordinator = make_coordinator(fraction=0.5, min_reports=2, deadline_s=60)
        feed(coordinator, *map(status, "abcd"))
        first, _ = round_in(feed(coordinator, Connected())).cohort
        report(coordinator, first, now=seconds)
        feed(coordinator, Tick(), now=60.0)
        assert (coordinator.round, coordinator.tally.deadlines) == ((2, 1) if deadlines == 1 else (1, 2))


def test_a_round_that_only_evaluates_goes_on_too():
    scores = UpdateHeader(0, 0, 0.0, 0, 9, 5, 0.5, 0.5).to_bytes()
    manifest = make_manifest(holdout=0.2)
    coordinator = make_coordinator(manifest=manifest, evaluate_every=2, min_reports=2, deadline_s=60)
    feed(coordinator, *map(status, "ab"), Connected())
    own = {"federation": coordinator.announcer.hash}
    for device in "ab":
        report(coordinator, device, now=1.0, **own)
    report(coordinator, "a", blob=scores, round=2, version=1, now=2.0, **own)
    assert commit_of(feed(coordinator, Tick(), now=61.0)) is None
    record = commit_of(report(coordinator, "b", blob=scores, round=2, version=1, now=90.0, **own)).record
    assert (record.state, record.deadlines) == ("evaluated", 2)


def test_later_rounds_start_from_the_learned_time():
    coordinator = open_round("a", "b", "c", min_reports=2, deadline_s=30)
    took = []
    for number in range(1, 6):
        for device, seconds in (("a", 50.0), ("b", 55.0), ("c", 59.0)):
            now = coordinator.tally.opened_at + seconds
            while coordinator.wake_at < now:
                feed(coordinator, Tick(), now=coordinator.wake_at)
            out = report(coordinator, device, round=number, version=number - 1, now=now)
        record = commit_of(out).record
        took.append((record.seconds, record.deadlines, record.devices))
    assert took == [(59.0, 2, ["a", "b", "c"])] + [(59.0, 6, ["a", "b", "c"])] * 4
    assert round_in(feed(coordinator, Connected())).deadline_s == 3 * 55.0


class Host:
    """What a host does with late updates: it keeps them, and gives them back."""

    def __init__(self, coordinator):
        self.coordinator, self.late, self.records = coordinator, {}, []

    def feed(self, *events, now):
        return self.carry_out(feed(self.coordinator, *events, now=now), now)

    def carry_out(self, out, now):
        for action in out:
            if isinstance(action, SaveLate):
                self.late[action.update.device, action.update.round] = action.update
            elif isinstance(action, Commit):
                self.records.append(action.record)
                for key in action.drop:
                    del self.late[key]
            elif isinstance(action, ReloadLate):
                out = [*out, *self.feed(ReloadedLate(list(self.late.values())), now=now)]
        return out

    @property
    def bytes(self):
        return sum(len(update.blob) for update in self.late.values())


def slow_fleet(rounds, **config):
    """Every device needs two deadlines for an update, and begins the open round when it has reported."""
    coordinator = make_coordinator(**({"deadline_s": 30, "min_reports": 2} | config))
    host, now, work = Host(coordinator), 0.0, {}
    host.feed(*map(status, "abc"), Connected(), now=now)
    while len(host.records) < rounds:
        for device in "abc":
            work.setdefault(device, (coordinator.round, coordinator.version, now + 60.0))
        device = min(work, key=lambda name: work[name][2])
        number, version, done = work[device]
        if coordinator.wake_at is not None and coordinator.wake_at <= done:
            now = max(now, coordinator.wake_at)
            host.feed(Tick(), now=now)
        else:
            now = done
            host.carry_out(report(coordinator, device, round=number, version=version, now=now), now)
            del work[device]
        yield host


def test_with_a_deadline_at_half_of_the_training_time_commits_go_on():
    for config in ({"late": "drop"}, FOLD | {"min_reports": 2, "deadline_s": 30}):
        *_, host = slow_fleet(12, **config)
        assert [record.state for record in host.records] == ["committed"] * 12
        assert not host.late


# What is kept of late updates


def abandoning(host, device, number):
    """One round in which only this device reports; what the aggregator says to its update, which comes late."""
    now = host.coordinator.tally.opened_at
    host.carry_out(run_out(host.coordinator), now)
    opened = host.coordinator.tally.opened_at
    out = report(host.coordinator, device, round=number, now=opened + 1)
    host.carry_out(out, opened + 1)
    return word_to(out, device)


def test_i13_one_late_update_of_a_device_and_model_is_kept():
    host = Host(make_coordinator(**(FOLD | {"min_reports": 2, "late_rounds": 9})))
    host.feed(*map(status, "ab"), Connected(), now=0.0)
    assert abandoning(host, "a", 1) == Receipt(1, 1, "counted", folded=2)
    refused = abandoning(host, "a", 2)
    assert refused.outcome == "rejected"
    assert refused.reason == f"{NOT_KEPT}: the device's update of round 1 from the same model waits for the next commit"
    assert list(host.late) == [("a", 1)]
    assert host.coordinator.standing._entry("a").earned, "it has earned waiting all the same"


def test_i06_i13_what_is_kept_of_late_updates_is_bounded_in_bytes_over_500_rounds(monkeypatch):
    size = len(LateUpdate("a", 1, 0, 1, make_update()).blob)
    monkeypatch.setattr(late_table, "LATE_BYTES", 5 * size)
    devices = [f"d{i}" for i in range(12)]
    host = Host(make_coordinator(**(FOLD | {"min_reports": 12, "late_rounds": 2})))
    host.feed(*map(status, devices), Connected(), now=0.0)
    counted, refused, most = set(), 0, 0
    for number in range(1, 501):
        device = devices[number % 12]
        receipt = abandoning(host, device, number)
        if receipt.outcome == "counted":
            counted.add((device, receipt.round))
        else:
            refused += 1
            assert "wait" in receipt.reason
        most = max(most, host.bytes)
        assert counted == set(host.late), "I06: what has a receipt is kept"
        assert host.coordinator.reception.late_table.bytes == host.bytes
    assert most == 5 * size and refused == 500 - 5
    assert {record.state for record in host.records} == {"abandoned"}


def test_the_bound_is_known_again_after_a_restart(monkeypatch):
    monkeypatch.setattr(late_table, "LATE_BYTES", 2 * len(make_update()))
    host = Host(make_coordinator(**(FOLD | {"min_reports": 3})))
    host.feed(*map(status, "abc"), Connected(), now=0.0)
    for device, number in (("a", 1), ("b", 2)):
        assert abandoning(host, device, number).outcome == "counted"
    start = {"round": host.coordinator.round, "attempt": 2, "recent": host.records}
    again = Host(make_coordinator(start=start, **(FOLD | {"min_reports": 3})))
    again.late = dict(host.late)
    again.feed(*map(status, "abc"), Connected(), now=0.0)
    assert again.coordinator.reception.late_table.bytes == again.bytes == 2 * len(make_update())
    assert "no room for more" in word_to(report(again.coordinator, "c", round=2, now=1.0), "c").reason


def test_a_table_by_hand(monkeypatch):
    monkeypatch.setattr(late_table, "LATE_BYTES", 10)
    table = LateTable()
    large = LateUpdate("a", 1, 0, 1, bytes(20))
    assert table.refuses(large) == "", "one update may always be kept"
    table.keep(large)
    table.keep(large)
    assert table.bytes == 20
    assert table.refuses(large) == "" and table.refuses(LateUpdate("b", 1, 0, 1, b"x")) != ""
    assert list(table.reload([LateUpdate("b", 1, 0, 1, b"xy")])) and table.bytes == 2
    assert table.refuses(LateUpdate("b", 2, 1, 1, b"x")) == "", "it is from another model"
    table.drop([("b", 1), ("c", 9)])
    assert table.bytes == 0 and table.refuses(large) == ""


def test_i06_a_start_learns_which_late_updates_are_kept_before_any_round_adds_them():
    """Found by simulation, seed 607695: a kept update was refused as too late in a round that only evaluates."""
    coordinator = make_coordinator(**FOLD)
    assert of(feed(coordinator, Connected()), ReloadLate)
    feed(coordinator, ReloadedLate([LateUpdate("b", 1, 0, 1, make_update())]))
    assert coordinator.phase == "waiting" and coordinator.reception.late_table.keeps("b", 1)
    assert not coordinator.reception.late_table.keeps("b", 2)


def test_i07_the_manifest_comes_with_rounds_while_a_device_says_that_it_lacks_it_and_ever_more_seldom():
    """Not at once, nor each time, for each device that says so: anybody could have it sent to all."""
    coordinator = open_round("a", "b", min_reports=1)

    def lacks(device):
        said = Status("trouble", 1, reason="it has not come", code="missing")
        return received(TOPICS.status(device), said)

    def come(rounds):
        """In which of these rounds the manifest comes, always before the round."""
        found = []
        for number in rounds:
            out = report(coordinator, "a", round=number - 1, version=number - 2)
            topics = [message.topic for message in of(out, Publish)]
            if TOPICS.manifest in topics[: topics.index(TOPICS.round)]:
                found.append(number)
        return found

    assert not of(feed(coordinator, lacks("b")), Publish, TOPICS.manifest)
    assert come(range(2, 11)) == [2, 3, 5, 9]
    feed(coordinator, lacks("c"))
    assert come(range(11, 13)) == [11, 12], "another device is not to wait for it"
    feed(coordinator, Pause("", "c", "it only says so"))
    assert come(range(13, 16)) == []
    feed(coordinator, status("b", boot=2), status("b", "paused", boot=2))
    assert come(range(16, 20)) == []
