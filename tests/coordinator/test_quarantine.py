"""Devices that are barred: for what they have signed, durably; for noise and floods, for ten minutes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from machines import (
    HASH,
    TOPICS,
    P,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    make_update,
    of,
    open_round,
    report,
    round_in,
    run_out,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.devices.quarantine import Quarantine, Suspect
from edgefl.coordinator.events import Answered, Release, SaveSuspects
from edgefl.coordinator.signing import Open
from edgefl.coordinator.updates.noise import MESSAGES, MUTE_S, REFUSALS, Noise
from edgefl.coordinator.updates.refused import MOST, NAMED, Refused
from edgefl.machine import Connected, Note, Received, Tick, WallTime
from edgefl.protocol.signed_update import NotSigned
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import AdmissionSettings

NAN = make_update()[:40] + np.full(P, np.nan, "<f4").tobytes()
DAY_S = 24 * 3600


class Keys(Open):
    """A roster; updates of `forgers` fail their signature."""

    signed = True

    def __init__(self, *devices, forgers=()):
        self.devices, self.forgers = set(devices), set(forgers)

    def is_enrolled(self, device):
        return device in self.devices

    def check(self, device, round, version, blob):
        if device in self.forgers:
            raise NotSigned("not signed by its device: rejected")


def keyed(*devices, forgers=(), settings=None, **options):
    """Round 1 is open, keys are on, and influence is not bounded."""
    settings = settings or AdmissionSettings(influence="off", refusals=3)
    start = {"admission": settings} | options.pop("start", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgefl.coordinator.state.Open", lambda: Keys(*devices, forgers=forgers))
        coordinator = open_round(*devices, **{"min_reports": 1, "deadline_s": 10.0} | options, start=start)
    feed(coordinator, WallTime(1e9, True))
    return coordinator


def misbehave(coordinator, device, rounds, blob=NAN, others="ab"):
    """So many rounds in which the device reports `blob`, and the others report; all actions."""
    out = []
    for _ in range(rounds):
        now, where = coordinator.tally.opened_at + 1, {"round": coordinator.round, "version": coordinator.version}
        out += report(coordinator, device, now=now, blob=blob, **where)
        for other in others:
            out += report(coordinator, other, now=now, **where)
    return out


def records(actions):
    return [commit.record for commit in map(commit_of, ([a] for a in actions)) if commit is not None]


def test_signed_refusals_in_n_rounds_lead_to_quarantine():
    coordinator = keyed(*"abc")
    out = misbehave(coordinator, "c", 3)
    assert list(coordinator.snapshot().barred) == ["c"]
    assert any("c is in quarantine since round 3: NaN or infinity" in note.text for note in of(out, Note))
    assert records(out)[-1].refused == {"c": {"finite": 1}}
    assert records(out)[-1].barred == {"c": "in quarantine since round 3: NaN or infinity in an update"}
    assert round_in(out).cohort == ["a", "b"], "it is not asked"
    assert "c" not in coordinator.tally.waiting, "nor waited for"


def test_one_refusal_less_is_forgiven():
    coordinator = keyed(*"abc")
    misbehave(coordinator, "c", 2)
    assert coordinator.snapshot().barred == {}


def test_a_round_ends_when_the_last_device_that_it_waits_for_is_barred():
    coordinator = open_round(*"abc", min_reports=2)
    report(coordinator, "a")
    report(coordinator, "b")
    for _ in range(REFUSALS):
        assert not commit_of(feed(coordinator, Received(TOPICS.update("c", 1, 0), b"noise"), now=1.0))
    assert commit_of(feed(coordinator, Received(TOPICS.update("c", 1, 0), b"noise"), now=1.0))


def test_a_device_in_quarantine_is_not_heard():
    coordinator = keyed(*"abc")
    misbehave(coordinator, "c", 3)
    out = report(coordinator, "c", now=coordinator.tally.opened_at, round=4, version=3)
    assert out == []
    assert "c" not in coordinator.tally.unreported
    feed(coordinator, status("c", boot=2))
    assert "c" not in coordinator.tally.waiting


def test_quarantine_is_durable_before_the_round_that_goes_on_without_it():
    coordinator = keyed(*"abc")
    out = misbehave(coordinator, "c", 3)
    (index, save), *_ = [(i, a) for i, a in enumerate(out) if isinstance(a, SaveSuspects) and a.suspects["c"].code]
    assert index < max(i for i, a in enumerate(out) if commit_of([a]))
    suspects = msgspec.json.decode(msgspec.json.encode(save.suspects), type=dict[str, Suspect])
    again = make_coordinator(start={"suspects": suspects, "round": 4, "version": 3, "attempt": 2}, min_reports=2)
    out = feed(again, *map(status, "abc"), Connected())
    assert (round_in(out).cohort, again.tally.waiting) == (["a", "b"], ["a", "b"])


def test_refusals_of_an_earlier_process_count():
    """Two of the three were refused before the restart."""
    coordinator = keyed(*"abc")
    out = misbehave(coordinator, "c", 2)
    suspects = of(out, SaveSuspects)[-1].suspects
    again = keyed(*"abc", start={"suspects": dict(suspects), "round": 3, "version": 2, "attempt": 2})
    misbehave(again, "c", 1)
    assert list(again.snapshot().barred) == ["c"]


def test_quarantine_expires():
    coordinator = keyed(*"abc")
    misbehave(coordinator, "c", 3)
    now = coordinator.tally.opened_at
    feed(coordinator, Tick(), now=now + DAY_S - 60)
    assert list(coordinator.snapshot().barred) == ["c"]
    feed(coordinator, Tick(), now=now + DAY_S + 60)
    assert coordinator.snapshot().barred == {}
    misbehave(coordinator, "c", 2)
    assert coordinator.snapshot().barred == {}, "it is judged anew"


def test_without_a_clock_quarantine_lasts_until_there_is_one():
    quarantine = Quarantine(1, 60.0)
    assert quarantine.refuse("a", 1, "finite", newest=1, unix_s=None)
    assert quarantine.over(None) == []
    assert quarantine.over(1e9) == []
    assert quarantine.over(1e9 + 59) == []
    assert quarantine.over(1e9 + 61) == ["a"]


def test_refusals_of_long_ago_are_forgotten():
    quarantine = Quarantine(2, 60.0)
    assert not quarantine.refuse("a", 1, "finite", newest=1, unix_s=1e9)
    assert not quarantine.refuse("a", 101, "finite", newest=101, unix_s=1e9)
    assert quarantine.refuse("a", 200, "finite", newest=200, unix_s=1e9)


def test_what_has_arrived_of_a_device_is_dropped_when_it_is_barred():
    coordinator = open_round(*"abc", min_reports=3)
    feed(coordinator, update_parts("c", make_update())[0], now=1.0)
    assert coordinator.tally.intake.under_way == 1
    feed(coordinator, *[Received(TOPICS.update("c", 1, 0), b"noise")] * (REFUSALS + 1), now=1.0)
    assert coordinator.snapshot().barred and coordinator.tally.intake.under_way == 0


def test_an_operator_releases_a_device():
    coordinator = keyed(*"abc")
    misbehave(coordinator, "c", 3)
    out = feed(coordinator, Release("1", "c"))
    assert of(out, Answered) == [Answered("1", True, "c is let in again")]
    assert of(out, SaveSuspects)[-1].suspects == {}
    assert coordinator.snapshot().barred == {}
    out = misbehave(coordinator, "a", 1, blob=make_update(), others="b")
    assert round_in(out).cohort is None
    assert feed(coordinator, Release("2", "c"))[-1] == Answered("2", False, "c is neither in quarantine nor muted")


def test_a_device_that_is_muted_too_stays_in_quarantine_when_the_mute_ends():
    coordinator = keyed(*"abc")
    misbehave(coordinator, "c", 3)
    now = coordinator.tally.opened_at
    for number in range(3 * MESSAGES):
        feed(coordinator, status("c", boot=number + 2), now=now)
    assert coordinator.snapshot().barred["c"].startswith("in quarantine") and "c" in coordinator.admission.noise.muted
    feed(coordinator, Tick(), now=now + MUTE_S + 1)
    assert "c" not in coordinator.admission.noise.muted
    assert not coordinator.presence.is_present("c") and "c" in coordinator.snapshot().barred


def test_a_muted_device_that_is_released_begins_anew():
    coordinator = open_round(*"abc", min_reports=2)
    noise = Received(TOPICS.update("c", 1, 0), b"noise")
    feed(coordinator, *[noise] * (REFUSALS + 1), now=1.0)
    feed(coordinator, Release("1", "c"), noise, now=1.0)
    assert coordinator.snapshot().barred == {}


def test_what_is_refused_twice_of_one_round_counts_once():
    """QoS 1 brings it again; or another client publishes what it has recorded."""
    coordinator = keyed(*"abc", min_reports=3)
    for _ in range(10):
        report(coordinator, "c", blob=NAN)
    assert coordinator.admission.quarantine.suspects["c"].rounds == [1]


@pytest.mark.parametrize("late", ["drop", "fold"])
def test_late_and_repeated_parts_never_count(late):
    """A slow link: every part comes three times, and half of the updates after their round."""
    coordinator = keyed(*"abc", goal=2, late=late)
    for _ in range(8):
        now, number, version = coordinator.tally.opened_at + 1, coordinator.round, coordinator.version
        for other in "ab":
            report(coordinator, other, now=now, round=number, version=version)
        for part in update_parts("c", round=number, version=version) * 3:
            feed(coordinator, part, now=now + 1)
    assert (coordinator.snapshot().barred, coordinator.admission.quarantine.suspects) == ({}, {})


def test_nobody_frames_another_device():
    """Whatever can be published without a device's signature leads to no quarantine; a flood of it to a mute."""
    coordinator = keyed(*"abc", forgers="c")
    misbehave(coordinator, "c", 12)
    for number in range(12):
        feed(coordinator, Received(TOPICS.update("c", coordinator.round, 0), b"noise %d" % number))
        feed(coordinator, Received(TOPICS.status("c"), b"{"))
    assert coordinator.admission.quarantine.suspects == {}


def test_without_keys_refusals_lead_to_a_mute_only():
    coordinator = open_round(*"abc", min_reports=2)
    for _ in range(REFUSALS + 1):
        report(coordinator, "c", now=1.0, blob=NAN)
    assert coordinator.snapshot().barred == {"c": "muted: too many refused messages"}
    assert coordinator.admission.quarantine.suspects == {}


def test_a_mute_ends_after_ten_minutes():
    coordinator = open_round(*"abc", min_reports=3, deadline_s=1e4)
    for number in range(REFUSALS + 1):
        out = feed(coordinator, Received(TOPICS.update("c", 1, 0), b"noise"), now=1.0)
        assert bool(of(out, Note)) and coordinator.presence.count == (2 if number == REFUSALS else 3)
    assert report(coordinator, "c", now=2.0) == []
    feed(coordinator, Tick(), now=MUTE_S + 1)
    assert coordinator.snapshot().barred == {} and coordinator.presence.count == 3


def test_a_flood_of_messages_leads_to_a_mute():
    """A thousand valid statuses a second."""
    coordinator = open_round(*"abc", min_reports=3)
    notes, sent = [], 0
    while not coordinator.snapshot().barred:
        sent += 1
        notes += of(feed(coordinator, status("c", boot=sent + 1), now=sent / 1000), Note)
        assert sent < 3 * MESSAGES
    for extra in range(1000):
        notes += feed(coordinator, status("c", boot=sent + extra), now=sent / 1000 + extra / 1000)
    assert [note.text for note in notes] == [
        "c is muted for 10 minutes: too many messages; it is neither asked, waited for nor heard"
    ]
    assert coordinator.admission.refused.take()["c"] == {"muted": 1000, "rate": 1}


def test_a_flood_of_bytes_leads_to_a_mute():
    noise = Noise(10_000)
    heard = [noise.hear("a", 2**16, 0.0, 1) for _ in range(40)]
    assert heard[:10] == [""] * 10 and heard[-1] == "too many bytes"


def test_a_slow_link_is_no_flood():
    """The longest update in its shortest parts, each of them twice, at 9.6 kbit/s."""
    longest = 340_000
    noise, parts = Noise(longest), longest // 256
    assert not any(noise.hear("a", 300, number * 0.25, 1) for number in range(2 * parts))


def test_fast_rounds_are_no_flood():
    """A simulation, or a benchmark: ten messages a round, and no time passes."""
    noise = Noise(1000)
    assert not any(noise.hear("a", 1000, 0.0, number // 10) for number in range(10_000))


def test_the_tables_are_bounded():
    noise, refused = Noise(1000), Refused()
    for number in range(11_000):
        noise.hear(f"d{number}", 10, 0.0, 1)
        refused.add(f"d{number}", "crc")
    assert len(noise._budgets) == 10_000
    counts = refused.take()
    assert (len(counts), counts["?"]["crc"]) == (MOST + 1, 11_000 - MOST)
    assert len({refused.kind("dropped from", f"d{n}") for n in range(5000)}) == NAMED + 1


def test_suspects_are_bounded(monkeypatch):
    monkeypatch.setattr("edgefl.coordinator.devices.quarantine.MOST", 50)
    quarantine = Quarantine(1, 60.0)
    for number in range(200):
        quarantine.refuse(f"d{number}", 1, "finite", newest=1, unix_s=1e9)
    assert len(quarantine.suspects) == 50
    assert quarantine.over(1e9) == [f"d{number}" for number in range(150)], "what there is no room for is let in again"


def test_mutes_are_bounded(monkeypatch):
    monkeypatch.setattr("edgefl.coordinator.updates.noise.MOST", 50)
    noise = Noise(1000)
    for number in range(60):
        noise.mute(f"d{number}", "too many messages", 0.0)
    assert (len(noise.muted), noise.over(1.0)) == (50, [f"d{number}" for number in range(10)])


def test_an_unknown_device_is_not_heard():
    coordinator = keyed(*"ab")
    out = feed(coordinator, status("x")) + report(coordinator, "x")
    assert "x" not in coordinator.presence.statuses
    assert {note.kind for note in of(out, Note)} == {"dropped from x"}
    record = commit_of(report(coordinator, "a") + report(coordinator, "b")).record
    assert record.refused == {"x": {"unknown": 3}}


def test_a_claim_above_what_is_allowed_is_refused():
    coordinator = open_round("a", "b", start={"admission": AdmissionSettings(max_examples=100)})
    out = report(coordinator, "a", blob=make_update(num_examples=101))
    assert "101 examples, at most 100 are allowed" in word_to(out, "a").reason
    assert coordinator.tally.counted == []
    report(coordinator, "a", blob=make_update(num_examples=100))
    assert coordinator.tally.counted == ["a"]


def test_a_claim_of_held_out_examples_above_what_is_allowed_is_refused():
    coordinator = open_round(
        "a", "b", manifest=make_manifest(holdout=0.5), evaluate_every=2,
        start={"admission": AdmissionSettings(max_examples=100), "round": 2, "version": 1},
    )  # fmt: skip
    for num_eval, counted in ((101, []), (100, ["a"])):
        header = UpdateHeader(0, 0, 0.0, 0, 100, num_eval, 0.5, None)
        report(coordinator, "a", blob=header.to_bytes(), round=2, version=1)
        assert coordinator.tally.counted == counted


@pytest.mark.parametrize(
    "parts, code",
    [
        (update_parts("a", b"\0" * 4000), "header"),
        (update_parts("a", NAN), "finite"),
        (update_parts("a", make_update()[:-4]), "length"),
        (update_parts("a", make_update() + b"\0" * 400), "size"),
        (update_parts("a", version=7), "round"),
        (update_parts("a", codec=3), "codec"),
        (update_parts("a", federation=HASH + 1), "round"),
        ([Received(TOPICS.update("a", 1, 0), b"noise")], "malformed"),
        ([Received(p.topic, p.payload[:-1] + b"?") for p in update_parts("a")], "crc"),
        ([Received(TOPICS.status("a"), b"{")], "malformed"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_code(parts, code):
    coordinator = open_round("a", "b", min_reports=1)
    feed(coordinator, *parts)
    record = commit_of(run_out(coordinator)) or commit_of(report(coordinator, "b"))
    assert set(record.record.refused["a"]) == {code}
