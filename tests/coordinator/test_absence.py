"""What the aggregator's log and records say about devices that are missing."""

from __future__ import annotations

import pytest
from machines import TOPICS, commit_of, feed, make_coordinator, of, open_round, received, report, status, update_parts

from edgefl.coordinator.absence import NAMED, duration
from edgefl.machine import Connected, Disconnected, Note, Tick
from edgefl.protocol.messages import Status
from edgefl.protocol.trouble import REMEDIES

HUNG = "its data source does not answer"


def told(device: str, state: str, reason: str = "", code: str = "", boot: int = 1):
    return received(TOPICS.status(device), Status(state, boot, 0, reason, code))


def lines(actions) -> list[str]:
    return [note.text for note in of(actions, Note) if note.text.startswith("waiting:")]


def test_while_too_few_are_there_a_line_at_once_and_then_one_a_minute():
    coordinator = make_coordinator(min_reports=4)
    feed(coordinator, status("pi-02"), status("pi-03"), status("pi-04"), now=0.0)
    feed(coordinator, told("pi-01", "trouble", "its data can't be used: line 13", "data"), told("pi-03", "lost"))
    out = feed(coordinator, Connected(), now=3 * 3600.0)
    text = "waiting: 2 of 4 devices (pi-01: its data can't be used: line 13; pi-03: lost 3 h ago)"
    assert [(note.level, note.text) for note in of(out, Note)] == [("info", text)]
    levels = []
    for second in range(1, 301):
        out = feed(coordinator, Tick(), told("pi-02", "ready", str(second)), now=3 * 3600.0 + second)
        levels += [note.level for note in of(out, Note)]
    assert levels == ["warning"] * 5
    assert coordinator.wake_at <= 3 * 3600.0 + 360


def test_the_line_says_that_no_device_has_ever_announced_itself():
    coordinator = make_coordinator(min_reports=2)
    (line,) = lines(feed(coordinator, Connected()))
    assert line == (
        "waiting: 0 of 2 devices: no device has announced itself on edgefl/2/tiny/d/+/status yet: check the "
        "federation's name, [mqtt] root and the broker's ACL"
    )
    feed(coordinator, status("a"), now=1.0)
    assert lines(feed(coordinator, Tick(), now=60.0)) == [
        "waiting: 1 of 2 devices: no other device has announced itself"
    ]


def test_the_first_round_says_for_how_long_it_waits_for_those_expected():
    coordinator = make_coordinator(expect=3, min_reports=1, deadline_s=100)
    assert lines(feed(coordinator, status("a"), Connected()))[0].startswith("waiting: 1 of 3 devices: ")
    (line,) = lines(feed(coordinator, Tick(), now=60.0))
    assert line.endswith("; the round opens without them in 40 s")


def test_a_fleet_that_flaps_writes_a_line_a_minute_at_most():
    coordinator = make_coordinator(min_reports=2)
    feed(coordinator, status("a"), status("b"), Connected())
    found = []
    for second in range(600):
        state = "lost" if second % 2 else "ready"
        out = feed(coordinator, told("b", state, boot=second), Tick(), now=float(second))
        out += feed(coordinator, Disconnected(), Connected(), now=float(second)) if second % 10 == 3 else []
        found += lines(out)
        if coordinator.phase == "open":
            report(coordinator, "a", round=coordinator.round, version=coordinator.version)
            report(coordinator, "b", round=coordinator.round, version=coordinator.version)
    assert 5 <= len(found) <= 10


def test_trouble_is_told_at_once_while_rounds_go_on_and_again_after_an_hour():
    coordinator = open_round("a", "b", "c", min_reports=2, goal=2)
    assert of(feed(coordinator, told("c", "trouble", HUNG, "hung"), now=1.0), Note) == [
        Note("warning", f"c is in trouble: {HUNG}; {REMEDIES['hung']}", "trouble of c", device="c")
    ]
    again = feed(coordinator, status("c", boot=2), told("c", "trouble", HUNG, "hung", boot=2), now=3600.0)
    assert not of(again, Note)
    again = feed(coordinator, status("c", boot=3), told("c", "trouble", HUNG, "hung", boot=3), now=3601.0)
    assert [note.text for note in of(again, Note)] == [f"c is in trouble: {HUNG}; {REMEDIES['hung']}"]
    (note,) = of(feed(coordinator, told("c", "trouble", "", "new-code", boot=3), now=3602.0), Note)
    assert note.text == "c is in trouble: code new-code"


@pytest.mark.parametrize("code", ["budget", "hours", "rejected"])
def test_what_its_owner_wants_and_what_was_told_already_is_no_trouble_to_tell(code):
    coordinator = open_round("a", "b", "c", min_reports=2, goal=2)
    assert not of(feed(coordinator, told("c", "trouble", "until tomorrow", code)), Note)


def test_of_many_devices_in_trouble_a_dozen_have_a_line_of_their_own_each_minute():
    coordinator = open_round("a", "b", min_reports=2)
    kinds = []
    for number in range(100):
        kinds += [n.kind for n in of(feed(coordinator, told(f"x{number}", "trouble", HUNG), now=float(number)), Note)]
    assert len(kinds) == 100 and len(set(kinds)) == 2 * NAMED + 1


def test_at_most_a_dozen_devices_are_named_those_in_trouble_first():
    coordinator = make_coordinator(min_reports=2)
    gone = [told(f"lost-{n:04d}", "lost") for n in range(2000)]
    (line,) = lines(feed(coordinator, *gone, told("zzz", "trouble", "x" * 500, "disk"), Connected()))
    assert line.startswith("waiting: 0 of 2 devices (zzz: xxx") and line.endswith("; 1989 more)")
    assert line.count(";") == NAMED and len(line) < 600


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (("paused", "/run/pause exists"), "paused: /run/pause exists"),
        (("disconnected",), "stopped"),
        (("trouble", "", "new-code"), "code new-code"),
        (("asleep",), "asleep"),
        (("trouble", "a\n2026 ERROR forged\x1b[2J"), "a?2026 ERROR forged?[2J"),
    ],
)
def test_every_state_is_told_on_one_line(message, text):
    coordinator = make_coordinator(min_reports=1)
    assert lines(feed(coordinator, told("a", *message), Connected())) == [f"waiting: 0 of 1 device (a: {text})"]


def test_a_device_that_was_gone_before_this_start_was_lost_no_one_knows_when():
    coordinator = make_coordinator(min_reports=1)
    assert lines(feed(coordinator, told("a", "lost"), Connected())) == ["waiting: 0 of 1 device (a: lost)"]
    (line,) = lines(feed(coordinator, Tick(), now=300.0))
    assert line == "waiting: 0 of 1 device (a: lost more than 5 min ago)"


def test_a_round_that_is_abandoned_says_what_became_of_each_device():
    coordinator = open_round("pi-01", "pi-02", "pi-03", "pi-04", "pi-05", min_reports=3, deadline_s=300)
    report(coordinator, "pi-01")
    feed(coordinator, told("pi-02", "trouble", "its data can't be used: line 13", "data"), now=10.0)
    feed(coordinator, told("pi-03", "lost"), now=60.0)
    feed(coordinator, *update_parts("pi-05", b"\0" * 4096))
    out = feed(coordinator, Tick(), now=300.0)
    for _ in range(8):  # while devices are at work the same round may go on
        if not commit_of(out):
            out = feed(coordinator, Tick(), now=coordinator.wake_at)
    record = commit_of(out).record
    assert record.state == "abandoned"
    assert record.why.startswith(
        "1 of 3 reports (pi-02: its data can't be used: line 13; pi-03: lost 4 min ago; pi-04: "
    )
    assert record.why.endswith("still at work after 5 min; pi-05: its update was rejected)")
    assert f"round 1 abandoned: {record.why}" in [note.text for note in of(out, Note)]


def test_a_round_that_is_abandoned_names_a_device_that_it_did_not_wait_for():
    coordinator = open_round("a", "b", "c", min_reports=2, deadline_s=30)
    report(coordinator, "a")
    report(coordinator, "b")
    feed(coordinator, Tick(), now=30.0)  # without c, which loses what it had earned
    report(coordinator, "a", now=31.0, round=2, version=1)
    feed(coordinator, told("b", "lost"), now=32.0)
    out = []
    while not commit_of(out):
        out = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert commit_of(out).record.why == "1 of 2 reports (b: lost 28 s ago; c: not waited for: no update yet)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (2 * 86400, "2 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_targets_that_do_not_fit_the_loss_are_told_once_for_the_federation_with_the_remedy():
    coordinator = open_round("a", "b", "c", min_reports=1, goal=3)
    loss = coordinator.readiness.absence.mismatch
    assert loss.advice(coordinator.presence.statuses.values()) == []
    (note,) = of(feed(coordinator, told("b", "trouble", "y is numbers", "values"), now=1.0), Note)
    assert note.level == "error" and note.text.startswith("b can't train with loss ") and 'loss = "mse"' in note.text
    for hour in range(1, 5):
        again = [told(name, "trouble", f"y is numbers {hour}", "values", boot=hour) for name in ("b", "c")]
        assert not [note for note in of(feed(coordinator, *again, now=3600.0 * hour), Note) if "loss" in note.text]
    (advice,) = loss.advice(coordinator.presence.statuses.values())
    assert advice.startswith("2 devices can't train with loss") and 'set loss = "mse"' in advice
    feed(coordinator, told("b", "ready", boot=9), told("c", "ready", boot=9))
    assert not loss.advice(coordinator.presence.statuses.values())
