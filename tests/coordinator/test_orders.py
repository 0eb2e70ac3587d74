"""An operator pauses a device, resumes it, and removes one that is gone."""

from __future__ import annotations

import random

import msgspec
import pytest
from machines import (
    MANIFEST,
    PARAMS,
    TOPICS,
    commit_of,
    feed,
    of,
    open_round,
    report,
    round_in,
    run_out,
    status,
    update_parts,
)

from edgefl import strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.devices.quarantine import Suspect
from edgefl.coordinator.events import Answered, Commit, Erase, Forget, Pause, Release, Resume, SavePaused
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Publish, Tick, WallTime
from edgefl.protocol.fleet import decode_page, decode_summary
from edgefl.settings import RoundSettings


def answer(actions) -> Answered:
    (found,) = of(actions, Answered)
    return found


def watched(**start) -> RoundCoordinator:
    made = RoundCoordinator(
        MANIFEST, RoundSettings(deadline_s=60.0, min_reports=1), strategies.get("fedavg"), PARAMS,
        rng=random.Random(0), watched=True, **start,
    )  # fmt: skip
    feed(made, WallTime(1_700_000_000))
    return made


def test_a_paused_device_is_neither_waited_for_nor_asked_nor_counted():
    coordinator = open_round("a", "b", "c", min_reports=1)
    feed(coordinator, update_parts("c")[0], now=1.0)
    out = feed(coordinator, Pause("1", "c", "winter"), now=1.0)
    assert of(out, SavePaused)[-1].paused == {"c": "winter"}
    assert answer(out).done and "winter" in answer(out).text
    feed(coordinator, *update_parts("c"), *update_parts("a"), now=2.0)
    record = commit_of(report(coordinator, "b", now=3.0)).record  # the round waits for no c
    assert record.devices == ["a", "b"]
    assert coordinator.tally.cohort.message == ["a", "b"] and coordinator.snapshot().present == 2
    assert round_in(feed(coordinator, status("c", boot=2), now=4.0)) is None
    feed(coordinator, *update_parts("c", round=2, version=1), now=4.0)
    assert coordinator.tally.num_counted == 0


def test_what_it_has_sent_in_time_counts_and_a_round_closes_if_it_waits_for_nobody_else():
    coordinator = open_round("a", "b", min_reports=1)
    report(coordinator, "a")
    record = commit_of(feed(coordinator, Pause("1", "b"), now=2.0)).record
    assert record.devices == ["a"]
    coordinator = open_round("a", "b", min_reports=1)
    report(coordinator, "a")
    feed(coordinator, Pause("1", "a"), now=2.0)
    assert commit_of(report(coordinator, "b", now=3.0)).record.devices == ["a", "b"]


def test_a_resumed_device_is_asked_again_and_the_pause_outlives_a_restart():
    coordinator = watched(paused={"a": "winter"})
    feed(coordinator, Connected(), status("a"), status("b"))
    assert coordinator.phase == "open" and coordinator.tally.opening.asked == ["b"]
    (row,) = (row for row in coordinator.rows() if row.id == "a")
    assert row.paused == "winter" and row.state == "ready" and coordinator.summary(0.0).paused == 1
    out = feed(coordinator, Resume("2", "a"), now=1.0)
    assert of(out, SavePaused)[-1].paused == {} and answer(out).done
    report(coordinator, "b", now=2.0)
    assert coordinator.tally.opening.asked == ["a", "b"]
    assert "not paused" in answer(feed(coordinator, Resume("3", "a"), now=3.0)).text


def test_a_pause_does_not_end_with_a_quarantine_nor_a_quarantine_with_a_pause():
    coordinator = watched(suspects={"a": Suspect([1], "finite", 1, 2**40)})
    feed(coordinator, Connected(), status("a"), status("b"), Pause("1", "a"))
    assert coordinator.presence.count == 1
    feed(coordinator, Release("2", "a"))
    assert coordinator.presence.count == 1 and not coordinator.presence.is_present("a")
    feed(coordinator, Resume("3", "a"))
    assert coordinator.presence.count == 2 and coordinator.presence.is_present("a")


def test_if_all_are_paused_no_round_opens_and_viewers_are_told_why():
    coordinator = watched()
    feed(coordinator, Connected(), status("a"), Pause("1", "a"), now=0.0)
    record = commit_of(run_out(coordinator)).record
    assert record.why == "0 of 1 reports (a: paused by an operator)"
    assert coordinator.phase == "waiting" and "edgefl resume" in coordinator.summary(0.0).advice[0]
    feed(coordinator, Resume("2", "a"), now=501.0)
    assert coordinator.phase == "open"


@pytest.mark.parametrize("name", ["", "+", "a/b", "aggregator", "x" * 65, "#"])
@pytest.mark.parametrize("order", [Pause, Resume, Forget])
def test_an_order_about_a_name_that_no_device_has_is_refused(order, name):
    coordinator = open_round("a", "b")
    out = feed(coordinator, order("1", name))
    assert not answer(out).done and not of(out, Publish) and not of(out, SavePaused) and not of(out, Erase)


def test_a_device_that_is_there_is_not_removed():
    coordinator = open_round("a", "b")
    for state in ("ready", "training", "paused", "trouble"):
        feed(coordinator, status("c", state))
        out = feed(coordinator, Forget("1", "c"))
        assert not answer(out).done and "stop its agent" in answer(out).text and not of(out, Erase)


def test_nothing_is_left_of_a_device_that_is_removed():
    record = RoundRecord(1, "committed", 1, 2, ["gone", "b"], 9, 0.5, 8, 9, 3.5, closed_at=5)
    failed = RoundRecord(0, "abandoned", 0, 0, [], 0, None, 0, 0, 60.0, why="0 of 1 reports (gone: at work)")
    coordinator = watched(
        round=2,
        version=1,
        recent=[failed, record],
        paused={"gone": "winter"},
        suspects={"gone": Suspect([1], "finite", 1, 9)},
    )
    feed(coordinator, status("gone"), status("b"), Connected())
    feed(coordinator, Resume("0", "gone"), Release("0", "gone"), status("gone", "ready", 2))
    feed(coordinator, *update_parts("gone", round=2, version=1), status("gone", "lost", 2), now=1.0)
    out = feed(coordinator, Pause("1", "gone"), Forget("2", "gone"), now=2.0)
    cleared = [p.topic for p in of(out, Publish) if not p.payload and p.retain]
    assert TOPICS.status("gone") in cleared and TOPICS.inbox("gone") in cleared
    order = [type(action) for action in out]
    assert order.index(Erase) < order.index(Publish) and of(out, Erase) == [Erase("gone")]
    assert of(out, SavePaused)[-1].paused == {}
    shown = of(out, Publish, TOPICS.summary)[-1].payload + of(out, Publish, TOPICS.fleet(0))[-1].payload
    assert b"gone" not in shown and decode_summary(of(out, Publish, TOPICS.summary)[-1].payload).total == 1
    assert [row.id for row in decode_page(of(out, Publish, TOPICS.fleet(0))[-1].payload).devices] == ["b"]
    record = commit_of(feed(coordinator, *update_parts("b", round=2, version=1), now=3.0)).record
    assert record.round == 2 and b"gone" not in msgspec.json.encode(record)
    assert coordinator.standing.is_new("gone") and "gone" not in coordinator.presence.statuses


def test_the_record_of_the_round_that_was_open_does_not_name_it():
    coordinator = open_round("gone", "b", min_reports=1)
    report(coordinator, "gone")
    feed(coordinator, status("gone", "lost"), Forget("1", "gone"), now=2.0)
    record = commit_of(report(coordinator, "b", now=3.0)).record
    assert (record.devices, record.reported, b"gone" in msgspec.json.encode(record)) == (["b"], 2, False)
    feed(coordinator, status("gone", boot=9), now=4.0)  # it was enrolled again
    feed(coordinator, *update_parts("gone", round=2, version=1), now=5.0)
    assert coordinator.tally.counted == ["gone"]


def test_a_device_that_is_removed_between_rounds_and_comes_back_is_in_the_next_record():
    coordinator = watched()
    feed(coordinator, Connected(), status("a", "lost"), now=0.0)
    assert answer(feed(coordinator, Forget("1", "a"), now=2.0)).done and coordinator.phase == "waiting"
    feed(coordinator, status("a", boot=9), now=3.0)  # it was enrolled again
    record = commit_of(feed(coordinator, *update_parts("a"), now=4.0)).record
    assert record.devices == ["a"] and record.reported == 1


def test_a_device_that_comes_back_in_the_round_that_it_was_removed_in_is_in_its_record():
    coordinator = open_round("gone", "b", min_reports=1)
    feed(coordinator, status("gone", "lost"), Forget("1", "gone"), status("gone", boot=9), now=2.0)
    feed(coordinator, *update_parts("gone"), now=3.0)
    assert commit_of(report(coordinator, "b", now=3.0)).record.devices == ["b", "gone"]


def test_a_device_is_removed_only_when_the_broker_can_be_cleared_and_has_told_who_is_there():
    """The order lies in its file, so it may come before the connection; what is published then is lost."""
    coordinator = watched()
    assert not of(feed(coordinator, Forget("1", "a"), Forget("2", "b"), now=1.0), Answered | Erase)
    out = feed(coordinator, Connected(), status("a"), status("b", "lost"), now=2.0)
    assert not of(out, Erase) and coordinator.wake_at is not None and coordinator.wake_at <= 3.0
    out = feed(coordinator, Tick(), now=3.0)
    assert len(of(out, Answered)) == 1 and coordinator.wake_at <= 3.0, "one at a time"
    out += feed(coordinator, Tick(), now=3.0)
    answers = {found.order: found for found in of(out, Answered)}
    assert not answers["1"].done and "stop its agent" in answers["1"].text
    assert answers["2"].done and of(out, Erase) == [Erase("b")]
    assert TOPICS.status("b") in [p.topic for p in of(out, Publish) if not p.payload]


def test_a_record_without_a_device_keeps_its_sums():
    record = RoundRecord(
        3, "abandoned", 2, 2, ["pi-1", "pi-11"], 9, 0.5, 8, 9, 3.5, folded=[("pi-1", 2), ("pi-2", 2)],
        by_device=msgspec.Raw(b'{"pi-1":[5,6],"pi-11":[3,3]}'), cohort=msgspec.Raw(b'["pi-1","pi-11"]'),
        why="1 of 2 reports (pi-1: lost 3 min ago; pi-11: still at work)", missed={"pi-1": "late"},
        budgets={"pi-1": 0}, by_time=msgspec.Raw(b'{"pi-1":1.5}'), refused={"pi-1": {"crc": 1}},
        barred={"pi-1": "muted"}, lowered={"pi-1": 3},
        by_influence=msgspec.Raw(b'{"pi-1":[1,2.0]}'),
    )  # fmt: skip
    left = record.without_device("pi-1")
    raw = msgspec.json.encode(left)
    assert b'"pi-1"' not in raw and b"pi-1:" not in raw and b"pi-11" in raw
    assert (left.devices, left.folded, left.traffic) == (["pi-11"], [("pi-2", 2)], {"pi-11": (3, 3)})
    assert (left.reported, left.bytes_up, left.num_examples) == (2, 8, 9)
    assert left.why == "1 of 2 reports (a device that was removed: lost 3 min ago; pi-11: still at work)"
    assert msgspec.json.decode(raw, type=RoundRecord) == left and left.without_device("pi-1") == left
    drawn = msgspec.structs.replace(record, cohort=msgspec.Raw(b'{"seed":7,"probability":0.5}'))
    assert drawn.without_device("pi-1").cohort == drawn.cohort


@pytest.mark.parametrize("seed", range(60))
def test_in_any_order_of_events_no_paused_device_counts_and_the_count_of_present_ones_is_right(seed):
    rng = random.Random(seed)
    coordinator = watched(suspects={"c": Suspect([1], "finite", 1, 2**40)})
    feed(coordinator, Connected())
    paused: dict[str, int] = {}  # device -> the first round that must do without it
    now = 0.0
    for step in range(120):
        now += rng.choice((0.1, 1.0, 20.0))
        device, kind = rng.choice("abcd"), rng.randrange(8)
        if kind < 2:
            event = status(device, rng.choice(("ready", "training", "lost", "trouble")), boot=step + 2)
            out = feed(coordinator, event, now=now)
        elif kind < 4:
            out = feed(
                coordinator, *update_parts(device, round=coordinator.round, version=coordinator.version), now=now
            )
        elif kind == 4:
            out = feed(coordinator, Pause("1", device), now=now)
            paused.setdefault(device, coordinator.round + (coordinator.phase == "open"))
        elif kind == 5:
            out = feed(coordinator, Resume("2", device), now=now)
            paused.pop(device, None)
        elif kind == 6:
            out = feed(coordinator, Release("3", "c"), now=now)
        else:
            out = feed(coordinator, Tick(), now=now)
        for commit in of(out, Commit):
            assert not [d for d in commit.record.devices if commit.record.round >= paused.get(d, 10**9)]
        presence = coordinator.presence
        assert presence.count == len(presence.present()) == sum(map(presence.can_be_asked, presence.statuses))
        assert not set(presence.present()) & set(paused) and set(presence.paused) == set(paused)
        assert coordinator.summary(now).paused == len(paused)
