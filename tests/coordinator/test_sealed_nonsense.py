"""A device that seals nonsense costs its own update, and no other device's round; and what a lying helper can do."""

from __future__ import annotations

import msgspec
import pytest
from machines import TOPICS, commit_of, feed, of, status
from masked_rounds import (
    DEVICES,
    FIVE,
    PRIVACY,
    answer_of,
    asked,
    device_key,
    expected,
    make_helper,
    make_masked,
    masked_blob,
    masked_parts,
    open_masked,
    resigned,
    round_in,
    said,
    saved_in,
)

from edgefl.coordinator.events import Release, SaveAsk, SaveSuspects
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.core.params import params_to_bytes
from edgefl.machine import Connected, Note, Publish, Received, Tick, WallTime
from edgefl.masking.exchange import Answer
from edgefl.masking.update import _AT_BOXES, signed
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader


def nonsense(terms: Terms, device: str) -> bytes:
    """The device's update, right in all but its first box."""
    blob = masked_blob(terms, device)
    payload = blob[UpdateHeader.size_of(blob) :]
    size = int.from_bytes(payload[_AT_BOXES : _AT_BOXES + 2], "little")
    broken = payload[: _AT_BOXES + 2] + bytes(size) + payload[_AT_BOXES + 2 + size :]
    bare = UpdateHeader.masked().to_bytes() + signed(broken, device_key(device))
    return resigned(bare, device, round=terms.round, version=terms.version)


def closed(hostile, devices=FIVE, **options):
    """A coordinator that waits for its helpers after a round of these devices; its terms, and what it did."""
    coordinator, terms = open_masked(*devices, **options)
    feed(coordinator, WallTime(1e9, True))
    return coordinator, terms, report(coordinator, terms, hostile, devices)


def report(coordinator, terms, hostile, devices, now=1.0):
    out = []
    for device in devices:
        out += feed(
            coordinator,
            *masked_parts(terms, device, nonsense(terms, device) if device in hostile else None),
            now=now,
        )
    assert coordinator.phase == "unmasking"
    return out


def refusal(coordinator, named, name: str = "north", set_digest: bytes | None = None) -> Received:
    unmasking = coordinator._unmasking
    digest = unmasking.set_digest if set_digest is None else set_digest
    answer = Answer(unmasking.terms.digest, digest, 0, 0.0, reason="box: as it says", unopened=tuple(sorted(named)))
    return said(coordinator, answer, name)


def test_one_device_that_seals_nonsense_costs_no_other_device_its_round():
    coordinator, terms, out = closed("b")
    helper = make_helper()
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    assert commit_of(out) is None and coordinator.phase == "unmasking", "it is asked again"
    out = feed(coordinator, *answer_of(helper, asked(out)), now=3.0)
    commit, left = commit_of(out), ["a", "c", "d", "e"]
    assert params_to_bytes(commit.params) == expected(terms, left)
    record = commit.record
    assert (record.devices, record.reported, record.rejected, record.helpers_s) == (left, 4, 1, 2.0)
    assert record.refused == {"b": {"box": 1}}
    why = "in quarantine since round 1: a sealed seed that its helper can't open, or that is of another device"
    assert record.barred == {"b": why}
    assert round_in(out).cohort == left, "and it is in no further round"


def test_the_bar_and_the_smaller_set_are_durable_before_the_helper_is_shown_it():
    coordinator, _, out = closed("b")
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    kinds = [
        type(a).__name__
        for a in out
        if isinstance(a, SaveAsk | SaveSuspects) or (isinstance(a, Publish) and TOPICS.ask_part(a.topic))
    ]
    assert kinds[:2] == ["SaveSuspects", "SaveAsk"] and set(kinds[2:]) == {"Publish"}
    assert sorted(saved_in(out).entries) == ["a", "c", "d", "e"]
    again = SavedAsk.from_bytes(saved_in(out).to_bytes())
    assert (again.sums[0] == saved_in(out).sums[0]).all() and again.record == saved_in(out).record
    told = "update of b rejected: helper north can't open what it has sealed"
    assert any(told in note.text for note in of(out, Note))


def test_all_that_seal_nonsense_are_left_out_at_once():
    coordinator, terms, out = closed("bf", DEVICES[:9])
    helper = make_helper()
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=3.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, list("acdeghi"))
    assert list(coordinator.snapshot().barred) == ["b", "f"]


def test_where_too_few_are_left_the_round_is_abandoned_and_the_next_goes_on_without_it():
    coordinator, _, out = closed("b", DEVICES[:4], privacy=msgspec.structs.replace(PRIVACY, least=4))
    feed(coordinator, status("e"), now=1.5)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    commit = commit_of(out)
    assert commit.params is None and "box: b: sealed seed that this key does not open" in commit.record.why
    assert round_in(out).cohort == ["a", "c", "d", "e"]


def test_of_several_helpers_another_may_have_opened_the_set_so_the_round_is_abandoned():
    privacy = msgspec.structs.replace(PRIVACY, helpers="north, south")
    coordinator, _, out = closed("b", privacy=privacy)
    out = feed(coordinator, *answer_of(make_helper("north"), asked(out, "north")), now=2.0)
    assert commit_of(out).params is None and not of(out, SaveAsk)
    after = round_in(out)
    assert (after.round, after.cohort) == (2, ["a", "c", "d", "e"])
    terms = Terms.read(after.terms)
    out = report(coordinator, terms, "", "acde", now=3.0)
    for name in ("north", "south"):
        out += feed(coordinator, *answer_of(make_helper(name), asked(out, name)), now=4.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, list("acde"))


def test_with_groups_the_round_goes_on_and_the_device_is_barred():
    privacy = msgspec.structs.replace(PRIVACY, groups=2, least=2)
    coordinator, terms, out = closed("a", DEVICES, privacy=privacy)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    left = [device for device in DEVICES if terms.group_of(device) != terms.group_of("a")]
    assert params_to_bytes(commit_of(out).params) == expected(terms, left)
    assert list(coordinator.snapshot().barred) == ["a"] and "a" not in round_in(out).cohort


def test_a_restart_has_no_vectors_so_it_abandons_the_round_and_bars_the_device():
    _, _, out = closed("b")
    saved = SavedAsk.from_bytes(saved_in(out).to_bytes())
    again = make_masked(start={"attempt": 2, "asked": saved})
    out = feed(again, *map(status, FIVE), Connected(), now=5.0)
    out = feed(again, *answer_of(make_helper(), asked(out)), now=6.0)
    assert commit_of(out).params is None and list(again.snapshot().barred) == ["b"]
    assert round_in(out).cohort == ["a", "c", "d", "e"]


def test_a_restart_goes_on_with_the_smaller_set_and_without_the_device():
    coordinator, terms, out = closed("b")
    helper = make_helper()
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    (suspects,) = of(out, SaveSuspects)
    start = {"attempt": 2, "asked": SavedAsk.from_bytes(saved_in(out).to_bytes()), "suspects": suspects.suspects}
    again = make_masked(start=start)
    out = feed(again, *map(status, FIVE), Connected(), now=5.0)
    out = feed(again, *answer_of(helper, asked(out)), now=6.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, list("acde"))
    assert round_in(out).cohort == ["a", "c", "d", "e"]


def test_vectors_that_would_take_too_much_memory_are_not_kept(monkeypatch):
    monkeypatch.setattr("edgefl.coordinator.updates.masked_sum.KEPT_BYTES", 100)
    coordinator, _, out = closed("b")
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    assert commit_of(out).params is None and round_in(out).cohort == ["a", "c", "d", "e"]


def test_an_operator_lets_it_in_again():
    coordinator, _, out = closed("b")
    feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    feed(coordinator, Release("1", "b"), now=3.0)
    assert coordinator.snapshot().barred == {}


# What a helper says that is hostile


def test_a_refusal_that_was_sent_twice_is_of_the_set_before_and_ends_nothing():
    coordinator, terms, out = closed("b")
    helper = make_helper()
    first = answer_of(helper, asked(out))
    out = feed(coordinator, *first, now=2.0)
    assert commit_of(feed(coordinator, *first, now=2.5)) is None and coordinator.phase == "unmasking"
    out = feed(coordinator, *answer_of(helper, asked(out)), now=3.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, list("acde"))


def test_a_helper_that_has_opened_both_sets_gives_nothing_away():
    """It refuses, names a device, and then brings the sum of the whole set: that is for a set that nobody asks for."""
    coordinator, _, out = closed("")
    whole = answer_of(make_helper(), asked(out))
    feed(coordinator, refusal(coordinator, ["b"]), now=2.0)
    out = feed(coordinator, *whole, now=3.0)
    commit = commit_of(out)
    assert commit.params is None and "answered for another set" in commit.record.why


def test_no_helper_leaves_out_more_than_a_quarter_of_the_devices():
    coordinator, _, out = closed("", DEVICES)
    out = feed(coordinator, refusal(coordinator, DEVICES[:4]), now=2.0)
    assert commit_of(out).params is None and coordinator.snapshot().barred == {}
    assert any(note.level == "error" and "what 4 of 12 devices have sealed" in note.text for note in of(out, Note))


def test_a_quarter_is_counted_over_all_rounds():
    coordinator, _, out = closed("", DEVICES)
    left = list(DEVICES)
    for step in range(8):
        named = left[0]
        out = feed(coordinator, refusal(coordinator, [named]), now=2.0 + step)
        if named not in coordinator.snapshot().barred:
            break
        left = left[1:]
        if coordinator.phase != "unmasking":
            break
    assert len(coordinator.snapshot().barred) == 3, "of twelve"
    assert commit_of(out).params is None, "and then it is not believed"


def test_a_set_never_falls_below_the_least_that_devices_were_told():
    privacy = msgspec.structs.replace(PRIVACY, least=5)
    coordinator, _, out = closed("", FIVE, privacy=privacy)
    out = feed(coordinator, refusal(coordinator, ["b"]), now=2.0)
    assert commit_of(out).params is None and not of(out, SaveAsk)


@pytest.mark.parametrize("named", [["z"], ["not-there", "z"]])
def test_a_device_that_was_not_in_the_set_is_not_barred(named):
    coordinator, _, out = closed("")
    out = feed(coordinator, refusal(coordinator, named), now=2.0)
    assert commit_of(out).params is None and coordinator.snapshot().barred == {}


def test_a_device_that_comes_back_after_its_day_costs_nobody_a_round_either():
    coordinator, _, out = closed("b")
    helper = make_helper()
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=3.0)
    second = Terms.read(round_in(out).terms)
    feed(coordinator, WallTime(1e9 + 25 * 3600, True), Tick(), now=4.0)
    assert coordinator.snapshot().barred == {}
    out = report(coordinator, second, "", "acde", now=4.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=5.0)
    third = round_in(out)
    assert third.cohort is None, "all are asked"
    out = report(coordinator, Terms.read(third.terms), "b", FIVE, now=6.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=7.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=8.0)
    assert commit_of(out).record.devices == list("acde") and commit_of(out).params is not None
    assert list(coordinator.snapshot().barred) == ["b"]
