"""The clip of a round follows from the rounds before: restarts, sums that are not opened, groups, and its bounds."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from machines import PARAMS, RUN, TOPICS, feed, of, status
from masked_rounds import (
    DEVICES,
    PRIVACY,
    answer_of,
    asked,
    make_helper,
    make_masked,
    masked_blob,
    masked_parts,
    round_in,
    saved_in,
    terms_maker,
    vector,
)

from edgefl.coordinator.events import Commit, Rollback
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.coordinator.masked.terms import NOWHERE
from edgefl.errors import UsageError
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Publish, Tick
from edgefl.privacy.clipping import ClipState
from edgefl.protocol.fleet import Summary
from edgefl.protocol.round import UNEARNED_ROUNDS
from edgefl.protocol.terms import Terms

ADAPTIVE = msgspec.structs.replace(PRIVACY, clip_quantile=0.5, clip=1.5)
FLEET = DEVICES[:4]


def vote(terms, device, yes):
    q = vector(terms, device)
    q[terms.at_votes] = terms.votes.size if yes else -terms.votes.size
    return masked_parts(terms, device, masked_blob(terms, device, q))


class Federation:
    """A coordinator and its helper. `records` and `clip` are what is on disk; `restart` loses everything else."""

    def __init__(self, privacy=ADAPTIVE):
        self.privacy, self.records, self.helper, self.attempt, self.now = privacy, [], make_helper(), 1, 0.0
        self.params, self.clip = PARAMS, None
        self.start()

    def start(self, asked=None):
        version = self.records[-1].version if self.records else 0
        newest = self.records[-UNEARNED_ROUNDS:]
        start = {
            "attempt": self.attempt, "round": len(self.records) + 1, "version": version, "asked": asked,
            "recent": [msgspec.json.decode(msgspec.json.encode(record), type=RoundRecord) for record in newest],
            "masked": terms_maker(self.privacy, moved=self.clip and ClipState.of_text(self.clip.encode())),
        }  # fmt: skip
        self.coordinator = make_masked(self.privacy, start=start, params=self.params)
        return self.feed(*map(status, FLEET), Connected())

    def restart(self, asked=None):
        self.attempt += 1
        return self.start(asked)

    def feed(self, *events):
        self.now += 1.0
        out = feed(self.coordinator, *events, now=self.now)
        for commit in of(out, Commit):
            self.records.append(commit.record)
            self.clip = None if commit.clip is None else commit.clip.to_text()
            self.params = self.params if commit.params is None else commit.params
        if of(out, Publish, TOPICS.round):
            self.round = round_in(out)
        return out

    @property
    def terms(self):
        return Terms.read(self.round.terms)

    def ask(self, yes):
        """All devices vote, `yes` of them so: what the helper is asked."""
        terms, out = self.terms, []
        for number, device in enumerate(FLEET):
            out += self.feed(*vote(terms, device, number < yes))
        return out

    def run(self, yes):
        self.feed(*answer_of(self.helper, asked(self.ask(yes))))


def clips(federation):
    return [record.clip for record in federation.records]


VOTES = (4, 4, 1, 0, 2, 3, 0)


def test_the_clip_goes_by_the_rule_and_is_in_terms_and_record():
    federation, clip = Federation(), 1.5
    for yes in VOTES:
        assert federation.terms.clip == clip and federation.terms.grid == pytest.approx(clip * grid_of_one(), rel=1e-12)
        federation.run(yes)
        record = federation.records[-1]
        assert (record.state, record.clip, record.within) == ("committed", clip, yes / 4)
        clip = clip * math.exp(-0.2 * (yes / 4 - 0.5))


def grid_of_one():
    return terms_maker(msgspec.structs.replace(ADAPTIVE, clip=1.0)).terms(**NOWHERE).grid


def test_all_numbers_of_the_terms_but_clip_and_grid_stay():
    federation = Federation()
    first = federation.terms
    for yes in VOTES:
        federation.run(yes)
    same = ("reach", "norm2", "bits", "votes", "noise", "coordinates", "epsilon")
    assert all(getattr(first, name) == getattr(federation.terms, name) for name in same)


@pytest.mark.parametrize("place", range(len(VOTES)))
@pytest.mark.parametrize("when", ["open", "asked", "over"])
def test_i35_a_restart_in_the_middle_has_the_same_clips_bit_for_bit(place, when):
    straight, other = Federation(), Federation()
    for number, yes in enumerate(VOTES):
        straight.run(yes)
        if number != place:
            other.run(yes)
            continue
        text = other.round.terms
        if when == "open":
            other.restart()
            assert other.round.terms == text, "what devices have made for it still counts"
            other.run(yes)
        elif when == "asked":
            out = other.ask(yes)
            answer_of(other.helper, asked(out), kept := {})
            out = other.restart(SavedAsk.from_bytes(saved_in(out).to_bytes()))
            assert other.coordinator.phase == "unmasking"
            other.feed(*answer_of(other.helper, asked(out), kept))
        else:
            other.run(yes)
            other.restart()
    assert clips(straight) == clips(other) and len(set(clips(straight))) > 4
    assert straight.terms.clip == other.terms.clip
    assert [record.within for record in straight.records] == [record.within for record in other.records]


def test_a_sum_that_is_not_opened_leaves_the_clip_alone():
    federation = Federation()
    federation.run(4)
    clip = federation.terms.clip
    federation.helper = make_helper(least=9)
    federation.run(4)
    record = federation.records[-1]
    assert record.state == "abandoned" and record.clip == clip and record.within is None
    assert federation.terms.clip == clip != 1.5
    federation.feed(*vote(federation.terms, "a", False))  # and so do too few reports
    while len(federation.records) < 3:
        federation.now = federation.coordinator.wake_at
        federation.feed(Tick())
    assert federation.records[-1].state == "abandoned"
    federation.restart()
    assert federation.terms.clip == clip


def test_i35_no_number_of_rounds_without_a_clip_loses_it_to_a_restart():
    """Rounds that roll back, tell of columns or only evaluate have none, and a start reads the last records alone."""
    federation = Federation()
    for yes in (4, 4, 1):
        federation.run(yes)
    clip, adaptive = federation.terms.clip, federation.coordinator.masked.adaptive
    assert clip != ADAPTIVE.clip
    for _ in range(UNEARNED_ROUNDS + 1):
        federation.feed(Rollback("1", 0, federation.params + 1))
    assert {record.state for record in federation.records[3:]} == {"rollback"}
    federation.restart()
    assert (federation.terms.clip, federation.coordinator.masked.adaptive) == (clip, adaptive)
    assert all(record.clip is None for record in federation.records[-UNEARNED_ROUNDS:])


def test_a_store_of_an_earlier_version_has_the_clip_in_its_records():
    """Versions before this one stored no clip with a commit."""
    federation = Federation()
    for yes in VOTES:
        federation.run(yes)
    clip, federation.clip = federation.terms.clip, None
    federation.restart()
    assert federation.terms.clip == clip != ADAPTIVE.clip


def test_a_clip_that_was_kept_stays_within_what_is_set_now_and_counts_for_nothing_where_it_is_fixed():
    kept = ClipState(3.0, 0.5)
    assert terms_maker(msgspec.structs.replace(ADAPTIVE, clip_most=2.0), moved=kept).clip == 2.0
    fixed = terms_maker(moved=kept)
    assert (fixed.clip, fixed.moved) == (PRIVACY.clip, None)


def test_a_hostile_groups_votes_are_no_more_than_those_of_the_others():
    """Three groups, of which one says what it likes: the median of their shares."""
    privacy = msgspec.structs.replace(ADAPTIVE, groups=3, least=2)
    coordinator = make_masked(privacy)
    terms = Terms.read(round_in(feed(coordinator, *map(status, DEVICES), Connected())).terms)
    groups = [terms.group_of(device) for device in DEVICES]
    assert min(map(groups.count, range(3))) >= 2
    out = []
    for device, group in zip(DEVICES, groups, strict=True):
        out += feed(coordinator, *vote(terms, device, group == 1), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    (commit,) = of(out, Commit)
    assert commit.record.within == 0.0


@pytest.mark.parametrize(("yes", "ends"), [(4, 0.015), (0, 4.0)])
def test_hostile_votes_never_carry_the_clip_out_of_its_bounds(yes, ends):
    maker = terms_maker(msgspec.structs.replace(ADAPTIVE, clip_most=4.0))
    for number in range(200):
        record = RoundRecord(number + 1, "committed", number + 1, 4, [], 4, None, 0, 0, 1.0)
        maker.learn(msgspec.structs.replace(record, clip=maker.clip, within=yes / 4))
    assert maker.clip == ends
    maker.terms(**NOWHERE).check()


def test_a_fixed_clip_has_no_votes_and_its_terms_and_records_are_what_they_were():
    federation = Federation(PRIVACY)
    assert "votes" not in federation.round.terms
    federation.run(4)
    assert b"clip" not in msgspec.json.encode(federation.records[0])
    assert federation.terms.clip == PRIVACY.clip


def test_viewers_are_told_of_the_clip():
    federation = Federation()
    federation.run(1)
    masked = federation.coordinator.masked
    assert (masked.adaptive.clip, masked.adaptive.within, masked.adaptive.quantile) == (
        federation.terms.clip,
        0.25,
        0.5,
    )
    assert terms_maker().adaptive is None
    summary = Summary("plant", RUN, 1, "open", 2, 1, adaptive=masked.adaptive)
    assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary


def test_clips_that_make_no_terms_are_refused_at_start():
    with pytest.raises(UsageError, match="can't be"):
        terms_maker(msgspec.structs.replace(ADAPTIVE, clip=1e11))
    banded = msgspec.structs.replace(
        ADAPTIVE, noise="banded", sigma=1.0, band=2, separation=2, share=1.0, bits=20
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"leave privacy\.clip_quantile out"):
        terms_maker(banded, rounds=6)


def test_the_sum_of_votes_is_what_devices_cast():
    """A vote is centred: half of the devices on each side is a sum of 0."""
    terms = Federation().terms
    q = np.sum([vector(terms, device) for device in FLEET], axis=0)
    q[terms.at_votes] = 0
    assert terms.votes.copies >= 1 and terms.length == terms.coordinates + 5 + terms.votes.copies
