"""What viewers are shown of a federation: rows of devices, the open round, and how often that is published."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from machines import (
    MANIFEST,
    PARAMS,
    TOPICS,
    commit_of,
    feed,
    make_update,
    of,
    received,
    report,
    run_out,
    status,
    update_parts,
)

from edgefl import __version__, strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import Commit
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Disconnected, Publish, Received, Stop, Subscribe, Tick, Unsubscribe, WallTime
from edgefl.protocol.fleet import (
    PAGE_DEVICES,
    SUMMARY_LIMIT,
    DeviceRow,
    FleetPage,
    Summary,
    decode_page,
    decode_summary,
    encode_page,
    encode_summary,
)
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import RoundSettings

UNIX = 1_700_000_000


def watched(*, start=None, **config) -> RoundCoordinator:
    """A coordinator that is not connected, and knows the time."""
    made = RoundCoordinator(
        MANIFEST, RoundSettings(**{"deadline_s": 60.0, "min_reports": 1} | config), strategies.get("fedavg"), PARAMS,
        rng=random.Random(0), watched=True, **(start or {}),
    )  # fmt: skip
    feed(made, WallTime(UNIX), now=0.0)
    return made


def shown(actions) -> Summary | None:
    found = of(actions, Publish, TOPICS.summary)
    assert all(publish.retain for publish in found)
    return decode_summary(found[-1].payload) if found else None


def pages(actions) -> dict[int, FleetPage | None]:
    """The pages that were published, None for one that was cleared."""
    out = {}
    for publish in of(actions, Publish):
        if (number := TOPICS.page_of(publish.topic)) is not None:
            out[number] = decode_page(publish.payload) if publish.payload else None
    return out


def ticks(coordinator, until: float) -> list:
    """All that it does by itself until then."""
    out = []
    while (at := coordinator.wake_at) is not None and at <= until:
        out += feed(coordinator, Tick(), now=at)
    return out


def row_of(coordinator, device) -> DeviceRow:
    (row,) = (row for row in coordinator.rows() if row.id == device)
    return row


def test_a_row_says_what_the_device_and_its_rounds_say():
    coordinator = watched()
    told = Status("ready", 1, 5, agent="0.2.0", celsius=47)
    feed(coordinator, Connected(), received(TOPICS.status("a"), told), status("b"), now=10.0)
    assert row_of(coordinator, "a") == DeviceRow(
        "a", "ready", since=UNIX + 10, seen=UNIX + 10, examples=5, agent="0.2.0", celsius=47
    )
    feed(coordinator, *update_parts("a"), now=20.0)
    run_out(coordinator)
    row = row_of(coordinator, "a")
    assert (row.since, row.seen, row.counted, row.times, row.model) == (UNIX + 10, UNIX + 20, 1, 1, 0)
    assert row.bytes_up > 4000 and row.bytes_down == 100 and row.missed == ""
    lagging = row_of(coordinator, "b")
    assert lagging.counted == 0 and "no update" in lagging.missed
    feed(coordinator, received(TOPICS.status("b"), Status("trouble", 2, 0, "no\x1bfile", "data")), now=100.0)
    lagging = row_of(coordinator, "b")
    assert (lagging.state, lagging.code, lagging.reason, lagging.since) == ("trouble", "data", "no?file", UNIX + 100)


def test_a_retained_status_proves_nothing_of_now():
    coordinator = watched()
    kept = Received(TOPICS.status("a"), status("a").payload, retained=True)
    feed(coordinator, Connected(), kept, now=50.0)
    assert (row_of(coordinator, "a").since, row_of(coordinator, "a").seen) == (0, 0)
    feed(coordinator, status("a"), now=60.0)
    assert (row_of(coordinator, "a").since, row_of(coordinator, "a").seen) == (0, UNIX + 60)
    feed(coordinator, Disconnected(), Connected(), kept, now=90.0)
    assert row_of(coordinator, "a").seen == UNIX + 60


def test_after_a_restart_rows_come_from_the_records():
    record = RoundRecord(7, "committed", 7, 2, ["a", "b"], 9, 0.5, 800, 90, 3.5, accuracy=0.5, closed_at=UNIX - 60)
    late = RoundRecord(
        8, "abandoned", 7, 1, ["a"], 9, 0.5, 8, 9, 3.5, missed={"b": "no update since round 7"}, why="1 of 2"
    )
    coordinator = watched(start={"round": 9, "version": 7, "recent": [record, late]})
    assert coordinator.rows() == []  # neither has announced itself to this aggregator yet
    kept = Received(TOPICS.status("b"), status("b").payload, retained=True)
    feed(coordinator, kept, Connected())
    summary = shown(ticks(coordinator, 1.0))
    row = row_of(coordinator, "b")
    assert (row.counted, row.times, row.seen, row.missed) == (7, 1, UNIX - 60, "no update since round 7")
    assert [(past.round, past.state, past.accuracy) for past in summary.last] == [
        (8, "abandoned", None),
        (7, "committed", 0.5),
    ]
    assert "round 8 was abandoned: 1 of 2" in summary.advice


def test_a_summary_shows_the_open_round_and_what_it_waits_for():
    coordinator = watched(min_reports=3)
    assert shown(feed(coordinator, Connected(), status("a"), now=4.0)) is None  # retained statuses come first
    summary = shown(ticks(coordinator, 5.0))
    assert (summary.phase, summary.total, summary.present, summary.states) == ("waiting", 1, 1, {"ready": 1})
    assert (summary.federation, summary.run, summary.edgefl) == ("tiny", "0" * 16, __version__)
    assert summary.open is None and "1 of 3 devices" in summary.advice[0]
    out = feed(coordinator, status("b"), status("c"), status("d", "lost"), now=6.0)
    assert shown(out) is None  # at most once in five seconds
    feed(coordinator, *update_parts("a"), now=7.0)
    summary = shown(ticks(coordinator, 11.0))
    assert summary.at == UNIX + 10 and summary.phase == "open" and summary.states == {"lost": 1, "ready": 3}
    open = summary.open
    assert (open.round, open.mode, open.opened, open.closes) == (1, "train", UNIX + 6, UNIX + 66)
    assert (open.counted, open.waiting, open.waits_for) == (1, 2, ["b", "c"]) and open.bytes_up > 4000
    assert [row.id for row in summary.troubled] == ["d"] and summary.advice == []


def test_a_quiet_federation_says_once_a_minute_that_it_lives():
    coordinator = watched(min_reports=2)
    feed(coordinator, Connected(), status("a"), now=0.0)
    ticks(coordinator, 5.0)
    summaries = [decode_summary(p.payload) for p in of(ticks(coordinator, 605.0), Publish, TOPICS.summary)]
    assert len(summaries) == 10
    assert {b.at - a.at for a, b in pairwise(summaries)} == {60}
    assert not pages(ticks(coordinator, 900.0))


def test_a_page_is_published_when_a_row_has_changed_at_most_once_a_minute():
    coordinator = watched(min_reports=2)
    feed(coordinator, Connected(), now=0.0)
    ticks(coordinator, 5.0)
    first = pages(feed(coordinator, status("a"), now=100.0))
    assert first[0].at == UNIX + 100 and [row.id for row in first[0].devices] == ["a"]
    published = []
    for second in range(101, 341):
        out = feed(coordinator, Tick(), status("a", boot=second), now=float(second))
        published += [second] * len(pages(out))
    assert published == [160, 220, 280, 340]
    assert pages(ticks(coordinator, 900.0)).keys() == {0}, "what was said last is shown at last"


def test_a_large_fleet_is_shown_a_few_pages_at_a_time_and_devices_stay_on_their_pages():
    coordinator = watched(min_reports=9999)
    names = [f"pi-{i:04d}" for i in range(20 * PAGE_DEVICES)]
    feed(coordinator, *map(status, names), now=0.0)
    feed(coordinator, Connected(), now=1.0)
    assert len(pages(ticks(coordinator, 2.0))) == 8
    rest = ticks(coordinator, 30.0)
    assert len(pages(rest)) == 12 and coordinator.summary(30.0).pages == 20
    out = feed(coordinator, status("pi-0000", "lost"), now=200.0)
    assert pages(out).keys() == {0} and shown(out).states == {"lost": 1, "ready": len(names) - 1}
    cleared = [received(TOPICS.status(name), b"") for name in names[-PAGE_DEVICES:]]
    assert pages([*feed(coordinator, *cleared, now=300.0), *ticks(coordinator, 365.0)])[19] is None
    out = [*feed(coordinator, status("new"), now=400.0), *ticks(coordinator, 420.0)]
    assert [row.id for row in pages(out)[19].devices] == ["new"]


def test_pages_that_an_earlier_aggregator_has_left_are_cleared():
    coordinator = watched()
    old = Summary("tiny", "1" * 16, 5, "stopped", 3, 2, pages=3)
    out = feed(coordinator, Connected(), status("a"))
    assert Subscribe((TOPICS.summary,)) in out
    ticks(coordinator, 5.0)
    out = feed(coordinator, Received(TOPICS.summary, encode_summary(old) + b'\n{"signature":"x"}', True))
    assert Unsubscribe((TOPICS.summary,)) in out and pages(out) == {1: None, 2: None}
    assert Subscribe((TOPICS.summary,)) not in feed(coordinator, Disconnected(), Connected())


def test_everything_is_published_again_on_a_new_connection():
    coordinator = watched(min_reports=2)
    feed(coordinator, Connected(), status("a"))
    ticks(coordinator, 5.0)
    feed(coordinator, Disconnected(), Connected(), now=6.0)
    out = ticks(coordinator, 7.0)
    assert shown(out) is not None and pages(out).keys() == {0}


@pytest.mark.parametrize(("phase", "event"), [("stopped", Stop()), ("done", None)])
def test_the_last_summary_says_how_it_ended(phase, event):
    coordinator = watched(rounds=1)
    out = feed(coordinator, Connected(), status("a"))
    out = feed(coordinator, event, now=1.0) if event else report(coordinator, "a")
    assert shown(out).phase == phase and (phase == "stopped" or of(out, Commit))
    assert shown(out).advice == (["1 round is done"] if phase == "done" else [])


def test_a_barred_device_comes_first_and_its_page_says_so():
    coordinator = watched(min_reports=1)
    feed(coordinator, Connected(), status("a"), status("b", "lost"), now=0.0)
    junk = [received(TOPICS.status("a"), b"rubbish") for _ in range(40)]
    out = [*feed(coordinator, *junk, now=61.0), *ticks(coordinator, 125.0)]
    summary = shown(out)
    assert summary.barred == 1 and [row.id for row in summary.troubled] == ["a", "b"]
    assert summary.troubled[0].barred.startswith("muted") and "edgefl release" in summary.advice[-1]
    assert pages(out)[0].devices[0].barred


def test_a_coordinator_that_nobody_watches_publishes_nothing_of_it():
    coordinator = RoundCoordinator(MANIFEST, RoundSettings(), strategies.get("fedavg"), PARAMS, rng=random.Random(0))
    out = feed(coordinator, Connected(), status("a"), status("b"), Tick(), Stop(), now=9.0)
    assert shown(out) is None and not pages(out) and coordinator.rows() == []


def test_what_many_devices_have_in_common_is_advice():
    coordinator = watched(min_reports=2)
    trouble = [received(TOPICS.status(f"pi-{i}"), Status("trouble", 1, 0, "no such file", "data")) for i in range(3)]
    feed(coordinator, *trouble[:2], status("a"))
    assert not any("'data'" in line for line in coordinator.summary(0.0).advice)
    feed(coordinator, trouble[2])
    owners = [received(TOPICS.status(f"at-{i}"), Status("trouble", 1, 0, "later", "hours")) for i in range(9)]
    feed(coordinator, *owners)
    (line,) = (line for line in coordinator.summary(0.0).advice if "have the trouble" in line)
    assert line == "3 devices have the trouble 'data': correct the device's [data] source, or its file"


def test_a_device_that_is_enrolled_and_was_never_heard_is_absent_until_it_is_revoked():
    coordinator = watched()
    coordinator.roll.enrol(["b", "a"])
    assert [(row.id, row.state) for row in coordinator.rows()] == [("a", "absent"), ("b", "absent")]
    feed(coordinator, Connected(), status("a"), now=3.0)
    assert coordinator.summary(3.0).states == {"absent": 1, "ready": 1}
    feed(coordinator, received(TOPICS.status("a"), b""), now=4.0)
    assert row_of(coordinator, "a").state == "absent" and row_of(coordinator, "a").since == 0
    coordinator.roll.enrol(["b"])
    assert [row.id for row in coordinator.rows()] == ["b"]


def test_names_that_come_and_go_leave_nothing_and_no_page_has_a_device_twice():
    """Where there are no keys, anybody can announce any name, and clear it."""
    coordinator = watched()
    coordinator.presence.most = 3
    feed(coordinator, Connected(), status("a"))
    for number in range(20):
        feed(coordinator, status(f"n{number}"), received(TOPICS.status(f"n{number}"), b""), now=1.0 + number)
    assert len(coordinator.roll._entries) == len(coordinator.roll._room) == 1
    for number in range(5):  # and devices of past rounds, as the records name them, may be as many
        names = [f"m{number}", f"o{number}"]
        coordinator.roll.learn(RoundRecord(number + 1, "committed", 1, 2, names, 9, 0.5, 8, 9, 3.5))
    feed(coordinator, status("b"), status("b", boot=2), status("b", boot=3), now=30.0)
    ticks(coordinator, 200.0)
    assert [row.id for row in coordinator.rows()] == [row.id for row in coordinator.roll.page(0)] == ["a", "b"]


def test_states_that_devices_make_up_do_not_lengthen_the_summary():
    coordinator = watched()
    feed(coordinator, Connected(), status("a"), status("b"))
    for number in range(500):
        feed(coordinator, status(f"n{number}", state=f"state-{number:010}"))
    summary = coordinator.summary(1.0)
    feed(coordinator, status("z", state="other"))
    assert summary.total == 502 and coordinator.summary(1.0).total == 503 and summary.states["ready"] == 2
    assert len(encode_summary(summary)) <= SUMMARY_LIMIT and len(summary.states) <= 16


def test_bytes_that_a_device_makes_up_are_a_number_that_every_reader_knows():
    coordinator = watched()
    feed(coordinator, Connected(), status("a"))
    blob = UpdateHeader(5, 1, 0.5, 1, 2**64 - 1).to_bytes() + make_update()[UpdateHeader.SIZE :]
    out = feed(coordinator, *update_parts("a", blob), now=3.0)
    assert commit_of(out) is not None and row_of(coordinator, "a").bytes_down == 2**53
    made = decode_summary(encode_summary(coordinator.summary(3.0)))
    assert made.last[0].bytes_down == 2**53 and decode_page(encode_page(FleetPage(0, 0, coordinator.rows()))).devices
