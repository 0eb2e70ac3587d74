"""Masked rounds: what is opened is the sum of the counted devices' integers, bit for bit; else there is no model."""

from __future__ import annotations

import random

import msgspec
import pytest
from machines import TOPICS, commit_of, feed, of, status
from masked_rounds import (
    DEVICES,
    PRIVACY,
    abandoned,
    answer_of,
    asked,
    closed,
    expected,
    helper_certificate,
    helper_keys,
    make_helper,
    make_masked,
    masked_blob,
    masked_parts,
    open_masked,
    party,
    round_in,
    saved_in,
    sent,
    terms_maker,
    vector,
    word,
)

from edgefl.coordinator.events import HelpersRead, SaveAsk
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.core.params import params_to_bytes
from edgefl.errors import StoreError, UsageError
from edgefl.machine import Connected, Disconnected, Note, Tick
from edgefl.protocol.terms import Terms


def test_the_set_is_durable_before_it_is_shown_and_gone_with_its_commit():
    _coordinator, terms, out = closed()
    kinds = [type(a).__name__ for a in out if isinstance(a, SaveAsk) or TOPICS.ask_part(getattr(a, "topic", ""))]
    assert kinds[0] == "SaveAsk" and set(kinds[1:]) == {"Publish"}
    saved = saved_in(out)
    assert sorted(saved.entries) == sorted(DEVICES[:5]) and saved.terms.text == terms.text
    again = SavedAsk.from_bytes(saved.to_bytes())
    assert again.ask().set_digest == saved.ask().set_digest and again.record == saved.record
    assert all((a == b).all() for a, b in zip(again.sums, saved.sums, strict=True))
    with pytest.raises(StoreError):
        SavedAsk.from_bytes(saved.to_bytes()[:-1])


def test_duplicates_and_any_order_change_nothing():
    coordinator, terms = open_masked(*DEVICES[:4])
    parts = [part for device in DEVICES[:4] for part in masked_parts(terms, device)]
    rng, out = random.Random(3), []
    for part in rng.sample(parts * 3, 3 * len(parts)):
        out += feed(coordinator, part, now=1.0)
    asks = asked(out)
    helper, kept = make_helper(), {}
    answers = answer_of(helper, asks, kept) + answer_of(helper, asks, kept)  # it was asked twice
    out = feed(coordinator, *reversed(answers), now=2.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, sorted(DEVICES[:4]))
    assert feed(coordinator, *answers, now=3.0) == [] or commit_of(feed(coordinator, *answers, now=3.0)) is None


def test_a_silent_helper_is_asked_again_and_then_the_round_is_abandoned():
    coordinator, _, out = closed()
    first = asked(out)
    again = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert [a.topic for a in asked(again)] == [a.topic for a in first]
    out = []
    while coordinator.phase == "unmasking":
        out += feed(coordinator, Tick(), now=coordinator.wake_at)
    abandoned(out, "no answer of helper north in 40 s")
    assert coordinator.phase == "open" and coordinator.round == 2


def test_viewers_see_which_helper_a_round_waits_for():
    coordinator, _, out = closed(start={"watched": True})
    (line,) = coordinator.summary(2.0).advice
    assert line == (
        "no answer yet of helper north: is it running, and connected? Without one in 40 s the round is abandoned"
    )
    feed(coordinator, *answer_of(make_helper(), asked(out)), now=3.0)
    assert coordinator.summary(4.0).advice == []


def test_every_helper_has_to_answer_and_each_takes_its_own_masks_away():
    privacy = msgspec.structs.replace(PRIVACY, helpers="north, south")
    coordinator, terms, out = closed(privacy=privacy)
    first = feed(coordinator, *answer_of(make_helper("north"), asked(out, "north")), now=2.0)
    assert commit_of(first) is None and coordinator.phase == "unmasking"
    done = feed(coordinator, *answer_of(make_helper("south"), asked(out, "south")), now=3.0)
    assert params_to_bytes(commit_of(done).params) == expected(terms, DEVICES[:5])
    assert commit_of(done).record.helpers_s == 2.0


@pytest.mark.parametrize("after", ["open", "asked", "answered"])
def test_a_restart_asks_for_the_same_set_again(after):
    coordinator, terms = open_masked(*DEVICES[:4])
    out = sent(coordinator, terms, DEVICES[: 2 if after == "open" else 4])
    helper, kept = make_helper(), {}
    if after == "answered":
        answer_of(helper, asked(out), kept)  # its answer is lost with the process
    saved = None if after == "open" else SavedAsk.from_bytes(saved_in(out).to_bytes())
    again = make_masked(start={"attempt": 2, "asked": saved})
    out = feed(again, *map(status, DEVICES[:4]), Connected(), now=5.0)
    assert round_in(out).terms == terms.text, "the same work: what devices have made for it still counts"
    if after == "open":
        out += sent(again, terms, DEVICES[:4], now=6.0)
    else:
        assert again.phase == "unmasking" and not of(out, SaveAsk)
    out = feed(again, *answer_of(helper, asked(out), kept), now=7.0)
    commit = commit_of(out)
    assert params_to_bytes(commit.params) == expected(terms, DEVICES[:4])
    assert commit.record.devices == list(DEVICES[:4]) and commit.record.version == 1


def test_a_restart_with_another_model_opens_the_round_anew():
    _, _, out = closed()
    saved = saved_in(out)
    again = make_masked(start={"attempt": 2, "asked": saved, "version": 7})
    assert again.phase == "waiting"


def test_while_a_sum_is_opened_counted_devices_get_their_receipt_again_and_others_are_not_added():
    coordinator, terms, out = closed()
    before = saved_in(out).sums[0].copy()
    out = feed(coordinator, *masked_parts(terms, "a"), *masked_parts(terms, "f"), now=2.0)
    assert word(out, "a").outcome == "counted" and word(out, "f") is None
    assert (coordinator._unmasking.saved.sums[0] == before).all()


def test_a_connection_that_comes_back_asks_again():
    coordinator, terms, out = closed()
    feed(coordinator, Disconnected(), now=2.0)
    out = feed(coordinator, Connected(), now=3.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=4.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, DEVICES[:5])


def test_a_round_ends_when_a_sum_is_full():
    coordinator, terms = open_masked(*DEVICES, most=4)
    sent(coordinator, terms, DEVICES[:4])
    assert coordinator.phase == "unmasking"


def test_a_helpers_new_keys_are_in_the_next_round_and_not_in_the_open_one():
    coordinator, terms = open_masked(*DEVICES[:3])
    new = helper_keys(epoch=2)
    feed(coordinator, HelpersRead((party(new),), (helper_certificate(new),)), now=0.5)
    feed(coordinator, Disconnected(), now=0.6)
    again = round_in(feed(coordinator, Connected(), now=0.7))
    assert again.terms == terms.text and again.helpers == [helper_certificate(helper_keys())]
    out = sent(coordinator, terms, DEVICES[:3])
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    after = round_in(out)
    assert (after.round, after.helpers) == (2, [helper_certificate(new)])
    assert Terms.read(after.terms).helpers == (party(new),)


def test_i38_devices_that_counted_rest_for_the_separation_and_across_a_restart():
    privacy = msgspec.structs.replace(PRIVACY, separation=2)
    coordinator, terms = open_masked(*DEVICES[:6], privacy=privacy, goal=3)
    out = sent(coordinator, terms, DEVICES[:3])
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    first = commit_of(out)
    assert first.record.devices == list(DEVICES[:3])
    second = round_in(out)
    assert (second.round, second.cohort) == (2, list(DEVICES[3:6]))
    start = {"recent": [first.record], "round": 2, "version": 1, "attempt": 2}
    again = make_masked(privacy, start=start, goal=3)
    assert round_in(feed(again, *map(status, DEVICES[:6]), Connected())).cohort == list(DEVICES[3:6])
    out = []
    for device in DEVICES[3:6]:
        out += feed(coordinator, *masked_parts(Terms.read(second.terms), device), now=3.0)
    third = round_in(feed(coordinator, *answer_of(make_helper(), asked(out)), now=4.0))
    assert (third.round, third.cohort) == (3, list(DEVICES[:3]))


def test_i35_a_restart_asks_for_the_set_of_a_round_before_which_others_were_passed_over():
    """Those have no record: the newest is of round 1, and the set of round 3."""
    privacy = msgspec.structs.replace(PRIVACY, separation=2)
    coordinator, _, out = closed(DEVICES[:3], privacy)
    helper = make_helper()
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    first, third = commit_of(out), Terms.read(round_in(out).terms)
    assert third.round == 3
    for device in DEVICES[:3]:
        out += feed(coordinator, *masked_parts(third, device), now=3.0)
    start = {"recent": [first.record], "round": 2, "version": 1, "attempt": 2, "asked": saved_in(out)}
    again = make_masked(privacy, start=start, params=first.params)
    out = feed(again, *map(status, DEVICES[:3]), Connected(), now=5.0)
    assert (again.phase, again.round) == ("unmasking", 3)
    done = commit_of(feed(again, *answer_of(helper, asked(out)), now=6.0))
    assert (done.record.round, done.record.state, done.record.devices) == (3, "committed", list(DEVICES[:3]))
    assert params_to_bytes(done.params) == expected(third, DEVICES[:3], first.params)


# Groups


def test_a_hostile_device_spoils_its_group_and_no_other():
    privacy = msgspec.structs.replace(PRIVACY, groups=2, least=2)
    coordinator, terms = open_masked(privacy=privacy)
    groups = {device: terms.group_of(device) for device in DEVICES}
    hostile = DEVICES[0]
    out = []
    for device in DEVICES:
        q = vector(terms, device)
        if device == hostile:
            q[: terms.coordinates] = 2 ** (terms.bits - 1) - 1
        out += feed(coordinator, *masked_parts(terms, device, masked_blob(terms, device, q)), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    left = [device for device in DEVICES if groups[device] != groups[hostile]]
    assert params_to_bytes(commit_of(out).params) == expected(terms, left)
    assert any("1 of 2 groups are left out" in note.text for note in of(out, Note))


# Settings


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bits": 4, "share": 1.0}, "too few for"),
        ({"groups": 7, "least": 2}, "groups"),
        ({"noise": "independent", "sigma": 50.0, "bits": 8}, "bits"),
    ],
)
def test_settings_that_make_no_terms_are_refused_at_start(changes, why):
    with pytest.raises(UsageError, match=why):
        terms_maker(msgspec.structs.replace(PRIVACY, **changes))


def test_the_terms_of_a_round_are_the_same_in_every_attempt():
    _, first = open_masked()
    coordinator = make_masked(start={"attempt": 3})
    again = round_in(feed(coordinator, *map(status, DEVICES), Connected()))
    assert again.attempt == 3 and Terms.read(again.terms).digest == first.digest
