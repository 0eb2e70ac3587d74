"""Masked rounds: what is opened is the sum of the counted devices' integers, bit for bit; else there is no model."""

from __future__ import annotations

import itertools
import os
import random

import msgspec
import numpy as np
import pytest
from machines import TOPICS, commit_of, feed, of, status
from masked_rounds import (
    DEVICES,
    PRIVACY,
    answer_of,
    asked,
    device_key,
    expected,
    helper_certificate,
    helper_keys,
    make_helper,
    make_masked,
    masked_blob,
    masked_parts,
    open_masked,
    party,
    resigned,
    roster,
    round_in,
    saved_in,
    terms_maker,
    vector,
)

from edgefl.coordinator.events import Commit, HelpersRead, SaveAsk
from edgefl.coordinator.saved_ask import SavedAsk
from edgefl.core.params import params_to_bytes
from edgefl.errors import StoreError, UsageError
from edgefl.machine import Connected, Disconnected, Note, Publish, Tick
from edgefl.masking import ring
from edgefl.masking.exchange import Answer, read_answer
from edgefl.masking.update import _AT_BOXES, signed
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.inbox import Inbox
from edgefl.protocol.messages import decode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader

STAGES = ("absent", "begun", "gone", "whole")  # when a device drops out: before, amid or after its update; or never
EXHAUSTIVE = bool(os.environ.get("EDGEFL_EXHAUSTIVE"))  # `make soak-masked`


def updates_of(terms: Terms) -> dict[str, list]:
    return {device: masked_parts(terms, device) for device in DEVICES}


def play(stages: dict[str, str], updates: dict[str, list], order: list[str]) -> tuple:
    """A round in which each device drops out at its stage; its terms, the commit, and what the helper was asked."""
    coordinator, terms = open_masked(*stages, goal=None)
    out = []
    for device in order:
        parts = {"absent": [], "begun": updates[device][:1]}.get(stages[device], updates[device])
        out += feed(coordinator, *parts, now=1.0)
    for device, stage in stages.items():
        if stage != "whole":
            out += feed(coordinator, status(device, "lost"), now=2.0)
    while coordinator.phase == "open":
        out += feed(coordinator, Tick(), now=coordinator.wake_at)
    asks = asked(out)
    if asks:
        out += feed(coordinator, *answer_of(make_helper(), asks), now=70.0)
    return terms, commit_of(out[: 1 + next(i for i, a in enumerate(out) if isinstance(a, Commit))]), asks


def check(stages: dict[str, str], updates: dict[str, list], order: list[str]) -> None:
    counted = sorted(device for device, stage in stages.items() if stage in ("gone", "whole"))
    terms, commit, asks = play(stages, updates, order)
    assert commit is not None, stages
    if len(counted) < PRIVACY.least:
        assert (commit.params, commit.record.state, asks) == (None, "abandoned", [])
    else:
        assert commit.record.devices == counted
        assert params_to_bytes(commit.params) == expected(terms, counted), stages


def test_i35_the_opened_sum_is_exact_for_every_pattern_of_devices_and_stages():
    _, terms = open_masked()
    updates = updates_of(terms)
    devices = DEVICES[:4] if not EXHAUSTIVE else DEVICES[:6]
    for stages in itertools.product(STAGES, repeat=len(devices)):
        check(dict(zip(devices, stages, strict=True)), updates, list(devices))


def test_i35_the_opened_sum_is_exact_for_patterns_of_twelve_devices():
    """All 4096 sets of devices that drop out, each at a stage that is drawn, in an order that is drawn; some of them
    in every run."""
    _, terms = open_masked()
    updates, rng = updates_of(terms), random.Random(0)
    sets = list(itertools.product((False, True), repeat=len(DEVICES)))
    for drops in sets if EXHAUSTIVE else rng.sample(sets, 120):
        stages = {d: rng.choice(STAGES[:3]) if out else "whole" for d, out in zip(DEVICES, drops, strict=True)}
        check(stages, updates, rng.sample(DEVICES, len(DEVICES)))


def closed(devices=DEVICES[:5], privacy=PRIVACY, **options):
    """A coordinator that waits for its helpers after a round of these devices; terms, and what it did at the close."""
    coordinator, terms = open_masked(*devices, privacy=privacy, **options)
    out = []
    for device in devices:
        out += feed(coordinator, *masked_parts(terms, device), now=1.0)
    assert coordinator.phase == "unmasking"
    return coordinator, terms, out


def abandoned(out, why: str) -> None:
    """The model stays, and the reason is in record and log."""
    commit = commit_of(out)
    assert commit is not None and commit.params is None
    assert (commit.record.state, commit.record.version) == ("abandoned", 0)
    assert why in commit.record.why
    assert any(note.level == "warning" and why in note.text for note in of(out, Note))


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
    out = []
    for device in DEVICES[: 2 if after == "open" else 4]:
        out += feed(coordinator, *masked_parts(terms, device), now=1.0)
    helper, kept = make_helper(), {}
    if after == "answered":
        answer_of(helper, asked(out), kept)  # its answer is lost with the process
    saved = None if after == "open" else SavedAsk.from_bytes(saved_in(out).to_bytes())
    again = make_masked(start={"attempt": 2, "asked": saved})
    out = feed(again, *map(status, DEVICES[:4]), Connected(), now=5.0)
    assert round_in(out).terms == terms.text, "the same work: what devices have made for it still counts"
    if after == "open":
        for device in DEVICES[:4]:
            out += feed(again, *masked_parts(terms, device), now=6.0)
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


def word(out, device):
    found = of(out, Publish, TOPICS.inbox(device))
    return decode(Inbox, found[-1].payload.partition(b"\n")[0]) if found else None


def test_a_connection_that_comes_back_asks_again():
    coordinator, terms, out = closed()
    feed(coordinator, Disconnected(), now=2.0)
    out = feed(coordinator, Connected(), now=3.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=4.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, DEVICES[:5])


def test_a_round_ends_when_a_sum_is_full():
    coordinator, terms = open_masked(*DEVICES, most=4)
    for device in DEVICES[:4]:
        feed(coordinator, *masked_parts(terms, device), now=1.0)
    assert coordinator.phase == "unmasking"


def test_a_helpers_new_keys_are_in_the_next_round_and_not_in_the_open_one():
    coordinator, terms = open_masked(*DEVICES[:3])
    new = helper_keys(epoch=2)
    feed(coordinator, HelpersRead((party(new),), (helper_certificate(new),)), now=0.5)
    feed(coordinator, Disconnected(), now=0.6)
    again = round_in(feed(coordinator, Connected(), now=0.7))
    assert again.terms == terms.text and again.helpers == [helper_certificate(helper_keys())]
    out = []
    for device in DEVICES[:3]:
        out += feed(coordinator, *masked_parts(terms, device), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    after = round_in(out)
    assert (after.round, after.helpers) == (2, [helper_certificate(new)])
    assert Terms.read(after.terms).helpers == (party(new),)


def test_i38_devices_that_counted_rest_for_the_separation_and_across_a_restart():
    privacy = msgspec.structs.replace(PRIVACY, separation=2)
    coordinator, terms = open_masked(*DEVICES[:6], privacy=privacy, goal=3)
    out = []
    for device in DEVICES[:3]:
        out += feed(coordinator, *masked_parts(terms, device), now=1.0)
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


# Bad input


def reject(blob, device="a", why=""):
    coordinator, terms = open_masked(*DEVICES[:3])
    out = feed(coordinator, *masked_parts(terms, device, blob(terms)), now=1.0)
    told = word(out, device)
    dropped = [note.text for note in of(out, Note)]
    assert told is None or told.outcome == "rejected"
    assert any(why in text for text in dropped), dropped
    assert not coordinator.tally.masked.entries and not coordinator.tally.masked.sums[0].any()


def test_an_update_for_other_terms_is_refused():
    other = terms_maker(msgspec.structs.replace(PRIVACY, clip=1.0))

    def blob(terms):
        changed = other.terms(
            round=terms.round, version=terms.version, model_sha256=terms.model_sha256, manifest=terms.manifest
        )
        return masked_blob(Terms.read(changed.text), "a")

    reject(blob, why="other terms")


def test_a_masked_vector_that_another_key_has_signed_is_refused():
    reject(lambda terms: masked_blob(terms, "a", key=device_key("b")), why="not signed")


def test_a_plain_update_in_a_masked_round_is_refused():
    plain = UpdateHeader(5, 1, 0.5, 10, 0).to_bytes() + bytes(400)
    reject(lambda terms: resigned(plain, "a"), why="no masked update")


def test_a_masked_update_in_a_plain_round_is_refused():
    _, terms = open_masked()
    coordinator = make_masked(start={"masked": None})
    feed(coordinator, *map(status, "abc"), Connected())
    out = feed(coordinator, *masked_parts(terms, "a"), now=1.0)
    assert any("masked update in a round that is not masked" in note.text for note in of(out, Note))
    assert coordinator.tally.num_counted == 0


def test_a_helper_that_refuses_ends_the_round_with_its_reason():
    coordinator, _, out = closed()
    out = feed(coordinator, *answer_of(make_helper(least=9), asked(out)), now=2.0)
    abandoned(out, "helper north refuses to open the sum: few: 5 in a group, and 9 are needed")


def test_a_signer_that_the_helpers_roster_does_not_name_ends_the_round():
    coordinator, _, out = closed()
    helper = make_helper(roster=roster(DEVICES[:4]))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    abandoned(out, "unknown: e")


def test_a_replayed_sealed_seed_ends_the_round():
    """A device brings the box of another one: its own signature is right, and the helper can't open it as its."""
    coordinator, terms = open_masked(*DEVICES[:3])
    own, other = (blob[UpdateHeader.size_of(blob) :] for blob in (masked_blob(terms, device) for device in "ab"))
    box = slice(_AT_BOXES, _AT_BOXES + 2 + int.from_bytes(own[_AT_BOXES : _AT_BOXES + 2], "little"))
    payload = own[: box.start] + other[box] + own[box.stop :]
    bare = UpdateHeader.masked().to_bytes() + signed(payload, device_key("a"))
    out = feed(coordinator, *masked_parts(terms, "a", resigned(bare, "a")), now=1.0)
    for device in "bc":
        out += feed(coordinator, *masked_parts(terms, device), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    abandoned(out, "box: a")


def wrong_answer(change):
    """The round of a helper whose answer is changed before it signs it."""
    coordinator, terms, out = closed()
    good = answer_of(make_helper(), asked(out))
    keys = helper_keys()
    found = read_answer(bytes(Envelope.from_bytes(good[0].payload).data), "north", keys.signing.public, terms)
    blob = change(found, terms).to_bytes("north", keys.signing)
    splitter = Splitter(
        blob, 60_000, kind=Kind.ANSWER, codec=0, federation=coordinator.announcer.hash, round=1, version=0
    )
    return feed(coordinator, type(good[0])(good[0].topic, splitter.part(0)), now=2.0), coordinator


def shifted(answer: Answer, terms: Terms, at: int) -> Answer:
    (count, packed), *_ = answer.groups
    total = ring.unpack(packed, terms.length, terms.bits)
    total[at] += 1
    return msgspec.structs.replace(answer, groups=((count, ring.pack(total, terms.bits)),))


def test_an_answer_that_leaves_the_check_coordinates_wrong_ends_the_round():
    out, _ = wrong_answer(lambda answer, terms: shifted(answer, terms, terms.coordinates))
    abandoned(out, "checks do not add up")


def test_an_answer_for_another_set_ends_the_round():
    out, _ = wrong_answer(lambda answer, terms: msgspec.structs.replace(answer, set_digest=bytes(32)))
    abandoned(out, "another set of this round")


def test_an_answer_for_another_number_of_devices_ends_the_round():
    def change(answer, terms):
        return msgspec.structs.replace(answer, groups=((4, answer.groups[0][1]),))

    out, _ = wrong_answer(change)
    abandoned(out, "a group of 4 devices, not 5")


def test_an_answer_that_the_helper_has_not_signed_is_dropped():
    coordinator, _, out = closed()
    thief = make_helper(keys=helper_keys(what="thief"))
    out = feed(coordinator, *answer_of(thief, asked(out)), now=2.0)  # it refuses, in its own name
    assert commit_of(out) is None and coordinator.phase == "unmasking"
    assert any("has not signed" in note.text for note in of(out, Note))


def test_a_model_that_is_not_finite_and_a_gate_are_treated_as_ever():
    coordinator, _terms, out = closed()
    coordinator.strategy.finish = lambda: np.full(len(coordinator.params), np.nan, np.float32)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    commit = commit_of(out)
    assert commit.params is None and "not finite" in commit.record.why


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
