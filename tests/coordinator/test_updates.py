"""RoundCoordinator by hand: updates that count once, and those that must change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import (
    FEDERATION,
    HASH,
    PARAMS,
    PLAN,
    TOPICS,
    P,
    accumulator_of,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    make_update,
    of,
    open_round,
    report,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.events import Evaluate, Evaluated
from edgefl.errors import UsageError
from edgefl.machine import Note, Received, Tick
from edgefl.protocol.envelope import Kind, federation_hash
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.protocol.parts import Splitter
from edgefl.protocol.update_header import UpdateHeader
from edgefl.strategies.server.step import Step

# Counting


def test_receipt_and_counting():
    coordinator = open_round("a", "b")
    out = report(coordinator, "a")
    assert word_to(out, "a") == Receipt(1, 1, "counted")
    assert set(coordinator.tally.counted) == {"a"}


@given(st.permutations([0, 0, 0, 1, 1, 1]))
def test_i01_redelivered_parts_count_once_in_any_order(order):
    coordinator, parts = open_round("a", "b"), update_parts("a")
    once = open_round("a", "b")
    report(once, "a")
    out = feed(coordinator, *(parts[i] for i in order))
    assert accumulator_of(coordinator) == accumulator_of(once)
    assert word_to(out, "a") == Receipt(1, 1, "counted")
    assert coordinator.dropped.total() == 0


def test_i01_another_update_of_a_counted_device_changes_nothing_and_gets_its_receipt():
    coordinator = open_round("a", "b")
    report(coordinator, "a")
    before = accumulator_of(coordinator)
    out = report(coordinator, "a", blob=make_update(9.0))
    assert accumulator_of(coordinator) == before
    assert word_to(out, "a") == Receipt(1, 1, "counted")


UPDATES = {
    d: make_update(v, num_examples=n) for d, v, n in [("a", 0.3, 7), ("b", -1e-3, 600), ("c", 2.5, 1), ("d", -7, 90)]
}


@given(st.permutations([(device, part) for device in UPDATES for part in (0, 1)]))
def test_i02_the_committed_bytes_do_not_depend_on_the_order(order):
    parts = {device: update_parts(device, blob) for device, blob in UPDATES.items()}
    committed = []
    for sequence in (sorted(order), order):
        coordinator = open_round(*UPDATES)
        committed.append(commit_of(feed(coordinator, *(parts[d][i] for d, i in sequence))).params.tobytes())
    assert committed[0] == committed[1] != PARAMS.tobytes()


def test_i03_late_early_and_foreign_updates_change_nothing():
    coordinator = open_round("a", "b")
    before = accumulator_of(coordinator)
    for late in ({"round": 0}, {"round": 2}):
        report(coordinator, "a", **late)
    assert (coordinator.late, coordinator.dropped.total()) == (4, 0)
    for foreign in ({"version": 1}, {"federation": HASH ^ 1}, {"codec": 2}):
        report(coordinator, "a", **foreign)
    assert (coordinator.late, coordinator.dropped["a"]) == (4, 6)
    assert accumulator_of(coordinator) == before


def test_i19_an_update_of_an_earlier_run_is_dropped():
    """Found by simulation: a broker had kept round 1's updates of a run that was begun anew from the same file."""
    coordinator = open_round("a", "b")
    before = accumulator_of(coordinator)
    report(coordinator, "a", federation=federation_hash(FEDERATION, "e" * 16, PLAN.hash))
    assert (coordinator.dropped["a"], accumulator_of(coordinator)) == (2, before)


def test_i03_an_update_after_the_round_is_late():
    coordinator = open_round("a", "b", goal=1, min_reports=1)
    params = commit_of(report(coordinator, "a")).params
    report(coordinator, "b")
    assert coordinator.late == 2
    assert coordinator.params is params


def test_i03_an_update_while_evaluating_is_late():
    coordinator = open_round("a", "b", goal=1, min_reports=1)
    for part in update_parts("a"):
        out = coordinator.step(part, 1.0)
    assert (coordinator.phase, coordinator.wake_at) == ("evaluating", None)
    assert isinstance(out[-1], Evaluate)
    report(coordinator, "b")
    assert (coordinator.late, coordinator.tally.num_counted) == (2, 1)
    assert commit_of(coordinator.step(Evaluated(), 2.0)).record.devices == ["a"]


# What is refused


def broken(**changes):
    blob = bytearray(make_update())
    for offset, raw in changes.values():
        blob[offset : offset + len(raw)] = raw
    return bytes(blob)


HEAD = UpdateHeader.SIZE
BAD_UPDATES = {
    "nan in the delta": broken(x=(HEAD + 40, np.float32(np.nan).tobytes())),
    "infinity in the delta": broken(x=(HEAD, np.float32(-np.inf).tobytes())),
    "absurd scale": broken(x=(HEAD, np.float32(3e38).tobytes())),
    "absurd weight and scale": broken(x=(HEAD, np.float32(1e4).tobytes()), n=(4, (2**24).to_bytes(4, "little"))),
    "no examples": broken(n=(4, bytes(4))),
    "too many examples": broken(n=(4, b"\xff" * 4)),
    "nan loss": broken(loss=(12, np.float32(np.nan).tobytes())),
    "short": make_update()[:-4],
    "header only": make_update()[:HEAD],
    "no header": make_update()[: HEAD - 1],
}


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_i16_bad_updates_are_rejected_with_every_bit_as_it_was(name):
    coordinator = open_round("a", "b")
    report(coordinator, "b")
    before = accumulator_of(coordinator)
    out = report(coordinator, "a", blob=BAD_UPDATES[name])
    assert accumulator_of(coordinator) == before
    assert word_to(out, "a").outcome == "rejected"
    assert "rejected" in of(out, Note)[0].text
    assert (coordinator.dropped, coordinator.tally.rejected) == ({"a": 1}, ["a"])


def test_i16_a_model_that_would_not_be_finite_is_not_committed():
    coordinator = open_round("a", params=np.full(P, 3.4e38, np.float32))
    coordinator.strategy.server = Step(1e36)
    with np.errstate(over="ignore"):
        out = report(coordinator, "a", blob=make_update(1000.0))
    commit = commit_of(out)
    assert (commit.record.state, commit.record.version, commit.params) == ("abandoned", 0, None)
    assert coordinator.version == 0


def test_i17_an_update_longer_than_the_codec_can_make_is_refused_at_its_first_part():
    coordinator = open_round("a")
    report(coordinator, "a", blob=make_update() + bytes(UpdateHeader.MAX_SIZE - UpdateHeader.SIZE + 1))
    assert coordinator.tally.intake._reserved == 0
    assert coordinator.dropped["a"] == 3


def test_i18_a_part_that_says_another_round_or_part_than_its_topic_is_dropped():
    coordinator = open_round("a", "b")
    first, second = update_parts("a")
    feed(coordinator, Received(first.topic, second.payload), Received(TOPICS.update("a", 1, 7), second.payload))
    feed(coordinator, Received(TOPICS.update("a", 1, 0), update_parts("a", round=2)[0].payload))
    assert coordinator.dropped["a"] == 3
    assert coordinator.tally.intake._reserved == 0


def test_i18_identity_comes_from_the_topic():
    coordinator = open_round("a", "b")
    payloads = [m.payload for m in update_parts("a")]
    out = feed(coordinator, *(Received(TOPICS.update("b", 1, i), payload) for i, payload in enumerate(payloads)))
    assert set(coordinator.tally.counted) == {"b"}
    assert word_to(out, "a") is None


def test_a_models_part_is_no_update():
    coordinator = open_round("a")
    part = Splitter(make_update(), 8192, kind=Kind.MODEL, codec=1, federation=HASH, round=1, version=0).part(0)
    assert "does not belong" in feed(coordinator, Received(TOPICS.update("a", 1, 0), part))[0].text


def test_a_blob_that_is_not_what_its_parts_say_is_dropped_and_asked_again():
    coordinator = open_round("a")
    mixed = [update_parts("a")[0], update_parts("a", make_update(1.0))[1]]
    feed(coordinator, *mixed)
    assert coordinator.tally.counted == []
    assert word_to(feed(coordinator, Tick(), now=5.0), "a") == Missing(1, [0])


# Parts


def test_a_device_that_goes_quiet_is_asked_for_the_rest():
    coordinator = open_round("a", "b")
    parts = update_parts("a", part_bytes=256)
    feed(coordinator, *parts[3:9], now=10.0)
    assert coordinator.wake_at == 15.0
    assert feed(coordinator, Tick(), now=14.9) == []
    out = feed(coordinator, Tick(), now=15.0)
    assert word_to(out, "a") == Missing(1, [0, 1, 2, *range(9, 16)])
    assert coordinator.wake_at == 20.0
    feed(coordinator, *parts[:3], *parts[9:], now=16.0)
    assert (coordinator.wake_at, set(coordinator.tally.counted)) == (60.0, {"a"})


def test_a_device_that_has_gone_is_not_asked_for_the_rest():
    coordinator = open_round("a", "b")
    feed(coordinator, *update_parts("a", part_bytes=256)[3:9], now=10.0)
    feed(coordinator, status("a", "lost"), now=11.0)
    assert feed(coordinator, Tick(), now=15.0) == []  # the broker would keep each request for it
    feed(coordinator, status("a"), now=16.0)
    assert word_to(feed(coordinator, Tick(), now=20.0), "a") == Missing(1, [0, 1, 2, *range(9, 16)])


# Any bytes


TOPIC_POOL = [
    TOPICS.status("a"), TOPICS.update("a", 1, 0), TOPICS.update("b", 1, 1), TOPICS.inbox("a"), TOPICS.round,
    f"{TOPICS.base}/d/.A/status", f"{TOPICS.base}/d/a/u/1/x", "\n", "",
]  # fmt: skip
REAL = [m.payload for m in (*update_parts(), *update_parts(codec=2), status("a"), status("a", "lost"))]


@given(st.lists(st.tuples(st.sampled_from(TOPIC_POOL), st.binary(max_size=80) | st.sampled_from(REAL)), max_size=20))
def test_i15_any_bytes_on_any_topic_never_raise_and_are_counted_with_their_sender(messages):
    coordinator = open_round("a", "b", "c")
    for topic, payload in messages:
        before = coordinator.dropped.total()
        out = feed(coordinator, Received(topic, payload), now=1.0)
        notes = [n for n in of(out, Note) if n.level == "warning"]
        assert coordinator.dropped.total() - before == len(notes)
        assert all((TOPICS.device_of(topic) or "?") in n.text for n in notes)
        assert all(n.text.isprintable() for n in notes)


def test_i15_every_kind_of_rubbish_is_counted_and_named():
    coordinator = open_round("a")
    for count, tail in enumerate(["status", "inbox", "u/1/0", "u/1/x", "u/1"], 1):
        (note,) = feed(coordinator, Received(f"{TOPICS.base}/d/a/{tail}", b"\0\xff"))
        assert coordinator.dropped["a"] == count
        assert f"message number {count} dropped from a" in note.text
    feed(coordinator, Received(f"{TOPICS.base}/d/+/status", b"{}"), Received("x", b"?"))
    assert coordinator.dropped["?"] == 2


def test_a_plan_too_large_for_a_retained_message_is_refused():
    with pytest.raises(UsageError, match="smaller model"):
        make_coordinator(manifest=make_manifest(codec_options={"max_bytes" + "s" * 61_000: 1}))


def test_foreign_events_are_a_programming_error():
    with pytest.raises(TypeError, match="not expected here"):
        make_coordinator().step(object(), 0.0)
