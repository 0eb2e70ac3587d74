"""A helper whose roster is not ours costs the devices that the two name differently, until one of them is replaced."""

from __future__ import annotations

import msgspec
import pytest
from machines import commit_of, feed, of, status
from masked_rounds import (
    DEVICES,
    FIVE,
    PRIVACY,
    abandoned,
    answer_of,
    asked,
    device_key,
    expected,
    make_helper,
    make_masked,
    masked_parts,
    open_masked,
    report,
    roster,
    round_in,
    said,
    saved_in,
    sent,
    word,
)

from edgefl.coordinator.events import Forget, RosterRead, SaveAsk, SaveSuspects
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.core.params import params_to_bytes
from edgefl.helper.events import JobDone, Open
from edgefl.helper.events import RosterRead as HelpersRoster
from edgefl.machine import Connected, Note, Publish, Received, Tick
from edgefl.masking.exchange import Answer
from edgefl.protocol.terms import Terms
from edgefl.trust.roster import Member

LEFT = ["a", "b", "c", "d"]


def numbered(serial: int, devices=DEVICES, **options):
    return msgspec.structs.replace(roster(devices, **options), serial=serial)


def lacking(device: str, serial: int = 1):
    return numbered(serial, [one for one in DEVICES if one != device])


def begin(devices=FIVE, **options):
    coordinator, terms = open_masked(*devices, **options)
    return coordinator, terms, sent(coordinator, terms, devices)


def opened(coordinator, helper, out, now):
    """The helper is asked until it opens a set."""
    for step in range(3):
        out = feed(coordinator, *answer_of(helper, asked(out)), now=now + step)
        if commit_of(out) is not None:
            return out
    raise AssertionError("the round is not over")


def warnings(out, level="warning"):
    return [note.text for note in of(out, Note) if note.level == level]


def anew(device: str):
    """A roster in which the device has its former key."""
    found = roster()
    members = found.devices | {device: Member.of(device_key("z").public)}
    return msgspec.structs.replace(found, devices=members)


OTHER_ROSTERS = [lacking("e"), roster(revoked=["e"]), anew("e")]


@pytest.mark.parametrize("theirs", OTHER_ROSTERS, ids=["unknown", "revoked", "enrolled anew"])
def test_a_device_that_the_helpers_roster_does_not_have_costs_its_own_update_alone(theirs):
    coordinator, terms, out = begin()
    helper = make_helper(roster=theirs)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    assert coordinator.phase == "unmasking" and helper.state.round == 0, "nothing was opened"
    assert sorted(saved_in(out).entries) == LEFT
    assert any("until the newest roster.json" in text for text in warnings(out))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=3.0)
    commit = commit_of(out)
    assert params_to_bytes(commit.params) == expected(terms, LEFT)
    assert (commit.record.devices, commit.record.rejected) == (LEFT, 1)
    assert commit.record.refused == {"e": {"roster": 1}} and commit.record.barred == {}
    assert not of(out, SaveSuspects), "it is honest"
    assert round_in(out).cohort == LEFT, "and no further round asks it in vain"


def test_it_is_asked_again_once_the_helper_has_a_newer_roster():
    coordinator, _, out = begin()
    helper = make_helper(roster=lacking("e"))
    out = opened(coordinator, helper, out, 2.0)
    for now in (10.0, 20.0):
        out = opened(coordinator, helper, report(coordinator, out, now, LEFT), now)
        assert round_in(out).cohort == LEFT
    helper.step(HelpersRoster(numbered(2)), 0.0)
    out = opened(coordinator, helper, report(coordinator, out, 30.0, LEFT), 30.0)
    assert round_in(out).cohort is None
    assert any("another roster: rounds ask e again" in note.text for note in of(out, Note))
    out = opened(coordinator, helper, report(coordinator, out, 40.0, FIVE), 40.0)
    assert commit_of(out).record.devices == list(FIVE)


def test_or_once_we_have_one():
    coordinator, _, out = begin()
    out = opened(coordinator, make_helper(roster=roster(revoked=["e"])), out, 2.0)
    assert round_in(out).cohort == LEFT
    feed(coordinator, RosterRead(numbered(2)), now=5.0)
    assert coordinator.unlisted.devices == frozenset()


def test_a_newer_roster_that_lacks_it_still_names_it_once_more():
    coordinator, _, out = begin()
    helper = make_helper(roster=lacking("e"))
    out = opened(coordinator, helper, out, 2.0)
    helper.step(HelpersRoster(lacking("e", 2)), 0.0)
    out = opened(coordinator, helper, report(coordinator, out, 10.0, LEFT), 10.0)
    out = opened(coordinator, helper, report(coordinator, out, 20.0, FIVE), 20.0)
    assert commit_of(out).record.devices == LEFT and round_in(out).cohort == LEFT


def test_of_several_helpers_the_round_is_abandoned_and_the_next_goes_on_without_it():
    coordinator, _, out = begin(privacy=msgspec.structs.replace(PRIVACY, helpers="north, south"))
    north, south = make_helper("north", roster=lacking("e")), make_helper("south")
    out = feed(coordinator, *answer_of(north, asked(out, "north")), now=2.0)
    abandoned(out, "unknown: e, by roster 1")
    assert not of(out, SaveAsk) and round_in(out).cohort == LEFT
    terms = Terms.read(round_in(out).terms)
    out = report(coordinator, out, 3.0, LEFT)
    for name, helper in (("north", north), ("south", south)):
        out += feed(coordinator, *answer_of(helper, asked(out, name)), now=4.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, LEFT)
    south.step(HelpersRoster(numbered(2)), 0.0)
    out = report(coordinator, out, 5.0, LEFT)
    for name, helper in (("north", north), ("south", south)):
        out += feed(coordinator, *answer_of(helper, asked(out, name)), now=6.0)
    assert round_in(out).cohort == LEFT, "the other helper's roster is no matter of this"


def test_where_too_few_are_left_all_are_asked_until_the_roster_is_there():
    """Else no round would open, and nobody would learn of the helper's newer roster."""
    four, privacy = DEVICES[:4], msgspec.structs.replace(PRIVACY, least=4)
    coordinator, _, out = begin(four, privacy=privacy)
    helper = make_helper(roster=lacking("d"))
    for now in (2.0, 4.0):
        out = feed(coordinator, *answer_of(helper, asked(out)), now=now)
        assert commit_of(out).record.state == "abandoned" and "unknown: d" in commit_of(out).record.why
        assert warnings(out, "error") == []
        assert round_in(out).cohort is None
        out = report(coordinator, out, now + 1, four)
    helper.step(HelpersRoster(numbered(2)), 0.0)
    out = opened(coordinator, helper, out, 6.0)
    assert commit_of(out).record.devices == list(four)


def test_it_is_asked_again_after_a_round_that_ended_with_too_few_reports_without_it():
    """No helper was asked, and one that is not asked can't tell that it has the newest roster by now."""
    coordinator, _, out = begin(privacy=msgspec.structs.replace(PRIVACY, least=4))
    out = opened(coordinator, make_helper(roster=lacking("e")), out, 2.0)
    terms = Terms.read(round_in(out).terms)
    out = feed(coordinator, *(part for device in "abc" for part in masked_parts(terms, device)), now=10.0)
    while (commit := commit_of(out)) is None:
        out = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert "3 of 4 reports" in commit.record.why
    assert round_in(out).cohort is None, "else no later round would ask it either: d is there, and does not report"


def test_a_device_that_was_asked_for_want_of_others_is_left_out_again_once_they_are_there():
    """A fifth one reports to a round that was opened with too few."""
    privacy = msgspec.structs.replace(PRIVACY, least=4)
    coordinator, _, out = begin(DEVICES[:4], privacy=privacy)
    helper = make_helper(roster=lacking("d"))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    assert coordinator.unlisted.devices == {"d"} and round_in(out).cohort is None
    terms = Terms.read(round_in(out).terms)
    feed(coordinator, *(part for device in "ea" for part in masked_parts(terms, device)), now=3.0)
    out = report(coordinator, out, 4.0, "bcd")
    out = opened(coordinator, helper, out, 5.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, ["a", "b", "c", "e"])


def test_no_helper_leaves_out_more_than_a_quarter_of_the_devices_by_its_roster():
    coordinator, _, out = begin(DEVICES)
    helper = make_helper(roster=roster(DEVICES[:8]))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    abandoned(out, "unknown: i and 3 more")
    assert coordinator.unlisted.devices == frozenset()
    assert any("4 of 12 devices not as ours" in text for text in warnings(out, "error"))


def test_record_log_and_status_tell_what_to_do_where_it_lacks_more_until_the_roster_is_there():
    coordinator, _, out = begin(DEVICES, start={"watched": True})
    helper = make_helper(roster=roster(DEVICES[:8]))
    told = (
        "helper north says that its roster has 4 of 12 devices not as ours has them: more than a quarter, so none of "
        "them is left out, and no sum is opened. Copy the newest roster.json to its machine, and here"
    )
    for now in (2.0, 4.0):
        out = feed(coordinator, *answer_of(helper, asked(out)), now=now)
        abandoned(out, told)
        assert any(told in text for text in warnings(out, "error"))
        assert any(told in line for line in coordinator.summary(now).advice)
        out = report(coordinator, out, now + 1, DEVICES)
    helper.step(HelpersRoster(numbered(2)), 0.0)
    out = opened(coordinator, helper, out, 6.0)
    assert commit_of(out).record.devices == list(DEVICES)
    assert not any("roster" in line for line in coordinator.summary(7.0).advice)


@pytest.mark.parametrize("code", ["unknown", "box"])
def test_a_helper_that_names_one_device_at_a_time_holds_a_round_for_four_answers_at_most(code, monkeypatch):
    """However many it may leave out: an honest one names all of a kind at once."""
    monkeypatch.setattr("edgefl.coordinator.masked.unopened.SHARE", 2)
    coordinator, _, _ = begin(DEVICES)
    now = 1.0
    for device in DEVICES:
        now += PRIVACY.helper_s - 1
        out = names(coordinator, device, code=code, now=now)
        if coordinator.phase != "unmasking":
            break
    assert device == DEVICES[3] and now <= 1 + 4 * PRIVACY.helper_s
    abandoned(out, "it has refused 3 larger sets of this round for other devices: an honest helper names all")
    assert round_in(out).cohort == list(DEVICES[4:]), "what it has said counts in the next round"


def names(coordinator, devices, serial=1, *, code="unknown", now=2.0):
    """The helper refuses the set because of these devices, by the roster of this serial."""
    unmasking = coordinator._unmasking
    answer = Answer(unmasking.terms.digest, unmasking.set_digest, 0, 0.0, (), f"{code}: so", tuple(devices), serial)
    return feed(coordinator, said(coordinator, answer), now=now)


def test_a_quarter_is_counted_over_rosters_and_sealed_nonsense():
    coordinator, _, _ = begin(DEVICES)
    names(coordinator, "ab")
    names(coordinator, "c", code="box")
    assert coordinator.unlisted.devices == {"a", "b"} and list(coordinator.snapshot().barred) == ["c"]
    out = names(coordinator, "d")
    assert commit_of(out).record.state == "abandoned" and coordinator.unlisted.devices == {"a", "b"}


def test_a_helper_that_tells_of_other_rosters_leaves_out_no_more_than_a_quarter_either():
    """A newer roster frees the devices that were named: quarter by quarter a helper could have the fewest opened."""
    coordinator, _, _ = begin(DEVICES)
    names(coordinator, "abc", 1)
    assert sorted(coordinator._unmasking.saved.entries) == list(DEVICES[3:])
    abandoned(names(coordinator, "de", 2), "unknown: so")


def test_nor_where_a_round_has_opened_without_the_devices_that_it_named_before():
    coordinator, _, out = begin(DEVICES)
    out = opened(coordinator, make_helper(roster=numbered(1, DEVICES[3:])), out, 2.0)
    report(coordinator, out, 10.0, DEVICES[3:])
    out = names(coordinator, "de", 2)
    assert commit_of(out).record.state == "abandoned" and "not as ours" in warnings(out, "error")[0]


@pytest.mark.parametrize("helpers", ["north", "north, south"])
def test_a_draw_that_asks_it_all_the_same_costs_no_round(helpers, monkeypatch):
    """In a large fleet a round can't name its devices, and vectors are not kept."""
    monkeypatch.setattr("edgefl.coordinator.updates.masked_sum.KEPT_BYTES", 0)
    coordinator, _, out = begin(privacy=msgspec.structs.replace(PRIVACY, helpers=helpers), cohort="draw")
    both = {name: make_helper(name, roster=lacking("e")) for name in helpers.split(", ")}
    out = feed(coordinator, *answer_of(both["north"], asked(out)), now=2.0)
    abandoned(out, "unknown: e")
    assert round_in(out).cohort is None
    refused = feed(coordinator, *masked_parts(Terms.read(round_in(out).terms), "e"), now=3.0)
    assert word(refused, "e").outcome == "rejected" and "roster" in word(refused, "e").reason
    out = report(coordinator, out, 4.0, LEFT)
    out += [action for name in both for action in feed(coordinator, *answer_of(both[name], asked(out, name)), now=5.0)]
    assert commit_of(out).record.devices == LEFT and commit_of(out).record.barred == {}


def test_a_helper_that_lost_its_state_and_had_an_older_roster_knows_the_device_again():
    coordinator, _, out = begin()
    helper = make_helper(roster=numbered(5))
    out = opened(coordinator, helper, out, 2.0)
    helper.step(HelpersRoster(lacking("e", 3)), 0.0)
    out = opened(coordinator, helper, report(coordinator, out, 10.0, FIVE), 10.0)
    assert coordinator.unlisted.devices == {"e"}
    helper.step(HelpersRoster(numbered(5)), 0.0)
    out = opened(coordinator, helper, report(coordinator, out, 20.0, LEFT), 20.0)
    assert round_in(out).cohort is None


def test_a_device_that_was_not_in_the_set_is_not_left_out():
    coordinator, _, _ = begin()
    abandoned(names(coordinator, "z"), "unknown: so")
    assert coordinator.unlisted.devices == frozenset()


def test_a_restart_asks_for_the_smaller_set_and_then_asks_the_device_once_more():
    coordinator, terms, out = begin()
    helper = make_helper(roster=lacking("e"))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    again = make_masked(start={"attempt": 2, "asked": SavedAsk.from_bytes(saved_in(out).to_bytes())})
    out = feed(again, *map(status, FIVE), Connected(), now=5.0)
    out = feed(again, *answer_of(helper, asked(out)), now=6.0)
    assert params_to_bytes(commit_of(out).params) == expected(terms, LEFT)
    out = opened(again, helper, report(again, out, 7.0, FIVE), 8.0)
    assert commit_of(out).record.devices == LEFT and round_in(out).cohort == LEFT


def test_viewers_are_told_what_to_do_and_a_device_that_is_removed_is_named_no_more():
    coordinator, _, out = begin(start={"watched": True})
    opened(coordinator, make_helper(roster=lacking("e")), out, 2.0)
    (line,) = [text for text in coordinator.summary(9.0).advice if "roster" in text]
    assert line.startswith("helper north has another roster than this aggregator: no round asks e until")
    feed(coordinator, status("e", "lost"), now=10.0)
    feed(coordinator, Forget("1", "e"), now=60.0)
    assert not any("roster" in text for text in coordinator.summary(61.0).advice)


def test_the_answer_tells_the_roster_that_was_gone_by_and_not_one_that_came_meanwhile():
    """Else a device whose signature an older key refused would wait for a roster after the newest."""
    coordinator, _, out = begin()
    helper, parts = make_helper(roster=anew("e")), asked(out)
    (job,) = [action.job for part in parts for action in helper.step(part, 0.0) if isinstance(action, Open)]
    helper.step(HelpersRoster(numbered(2)), 0.0)
    answer = [a for a in helper.step(JobDone(job, job.run(None)), 0.0) if isinstance(a, Publish)]
    feed(coordinator, *(Received(a.topic, a.payload) for a in answer), now=2.0)
    assert coordinator.phase == "unmasking" and coordinator.unlisted.hear("north", 2) == ["e"]
