"""A device that is asked for a profile where its owner lets nothing leave that is not masked."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from keyed import ROOT, TODAY, sealed, signed_round
from machines import STATUS, TOPICS, feed, last, make_session, of, updates
from masked_profiles import MANIFEST, MODEL, PRIVACY, data, profile_maker, profile_round, told
from masked_rounds import device_key

from edgefl.device.events import Failed, Outbox, SaveSeen, SaveUpdate, StartTraining, Trained, TrainJob
from edgefl.device.owner.allowance import HEADER_BYTES
from edgefl.device.owner.budget import Limits
from edgefl.device.owner.policy import OPEN, STRICT, OwnersWord, Policy
from edgefl.device.training import train_update
from edgefl.device.trust import Keys, Seen
from edgefl.machine import Connected, Note, WallTime
from edgefl.masking.update import bound
from edgefl.protocol.messages import Status
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader

MASKED = replace(OPEN, masked=True)


def device(policy: Policy = MASKED, seen: Seen | None = None, **options):
    keys = Keys(ROOT.public, device_key("a"), seen)
    session = make_session("a", keys=keys, owner=OwnersWord(policy), **options)
    feed(session, WallTime(TODAY), Connected(boot=7), sealed(TOPICS.manifest, MANIFEST))
    return session


def hear(session, round) -> list:
    return feed(session, sealed(TOPICS.round, round))


def refused(round, why: str, policy: Policy = MASKED, seen: Seen | None = None, code: str = "") -> None:
    out = hear(device(policy, seen), round)
    status = last(out, Status, STATUS)
    assert not of(out, StartTraining)
    code = code or ("policy" if "by this device's owner" in status.reason else "signer")
    assert (status.state, status.code) == ("trouble", code) and why in status.reason, status
    assert any(note.level == ("info" if code == "rests" else "error") and why in note.text for note in of(out, Note))


def test_it_tells_under_terms_that_its_owner_allows_and_what_leaves_is_masked():
    session, round = device(), profile_round()
    (start,) = of(hear(session, round), StartTraining)
    out = feed(session, Trained(start.job, made(round)))
    (save,) = of(out, SaveUpdate)
    header = UpdateHeader.from_bytes(save.outbox.blob)
    assert msgspec.structs.replace(header, size=UpdateHeader.SIZE) == UpdateHeader.masked(profile=True)
    assert updates(out) and save.outbox.mode == "profile"
    kinds = [type(action) for action in out]
    assert kinds.index(SaveSeen) < kinds.index(SaveUpdate) and of(out, SaveSeen)[-1].seen.masked_round == 1


def made(round) -> bytes:
    """Its update, before the session signs it."""
    return train_update(None, TrainJob(MANIFEST, round, b"", 0), "a", *data("a")).blob


def test_i36_a_profile_in_the_clear_is_refused_whatever_it_says_of_masks():
    plain = signed_round(1, manifest=MANIFEST, params=MODEL.params, mode="profile")
    refused(plain, "not masked")
    refused(msgspec.structs.replace(plain, requires=["profile", "masked"]), "not masked")


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"statistics": False}, "no column statistics leave it ([policy] statistics)"),
        ({"least_devices": 4}, "a sum of 3 devices, at least 4 wanted"),
        ({"helpers": frozenset({"south"})}, "helper north is none of its helpers"),
        ({"least_noise": 0.5}, "noise of 0 times an update"),
        ({"most_epsilon": 8.0}, "a sum without noise"),
        ({"least_separation": 3}, "devices back after 0 rounds, not 3"),
    ],
)
def test_i36_a_masked_profile_that_is_less_than_the_owner_wants_is_refused(policy, why):
    refused(profile_round(), why, replace(MASKED, **policy))


def test_i36_a_profile_is_still_the_owners_to_allow():
    """A device with keys tells none by default, masked or not; and takes part in rounds that train."""
    refused(profile_round(), "no column statistics leave it", replace(STRICT, plans="any", masked=True))


def test_the_clip_of_updates_says_nothing_of_a_profile():
    assert of(hear(device(replace(MASKED, most_clip=0.1)), profile_round()), StartTraining)


@pytest.mark.parametrize(
    "change",
    [
        lambda terms: msgspec.structs.replace(terms, profile=msgspec.structs.replace(terms.profile, columns=2)),
        lambda terms: resized(terms, columns=2),
        lambda terms: resized(terms, columns=4096, bins=0),
    ],
)
def test_i36_terms_of_other_columns_are_refused(change):
    out = hear(device(), profile_round(change=change))
    assert not of(out, StartTraining)


def resized(terms: Terms, **changes) -> Terms:
    profile = msgspec.structs.replace(terms.profile, **changes)
    length = profile.length(terms.reach)
    return msgspec.structs.replace(terms, profile=profile, params=length, coordinates=length)


def test_i36_terms_of_a_round_that_trains_are_no_pass_for_a_profile_nor_the_other_way_round():
    round, maker = profile_round(), profile_maker()
    terms = maker.terms(round=1, version=0, model_sha256=round.model_sha256, manifest=MANIFEST.id)
    refused(msgspec.structs.replace(round, terms=terms.text), "another round or model")
    refused(msgspec.structs.replace(round, mode="train", requires=["masked"]), "another round or model")


def test_i38_a_profile_counts_as_taking_part_for_the_separation():
    maker = profile_maker(msgspec.structs.replace(PRIVACY, separation=5))
    refused(profile_round(7, maker=maker), "has taken part 4 rounds ago", seen=Seen(1, 1, masked_round=3), code="rests")


def test_a_saved_profile_leaves_for_its_own_terms_alone():
    first = profile_round()
    second = profile_round(maker=profile_maker(fleet=100))
    saved = Outbox(MANIFEST.id, 1, 0, told(first, "a"), attempt=1)
    out = hear(device(outbox=saved), msgspec.structs.replace(first, attempt=2))
    assert updates(out) and not of(out, StartTraining)
    out = hear(device(outbox=saved), msgspec.structs.replace(second, attempt=2))
    assert of(out, StartTraining) and not updates(out)


def test_why_it_failed_is_in_its_log_alone():
    session = device()
    (start,) = of(hear(session, profile_round()), StartTraining)
    out = feed(session, Failed(start.job, "statistics of 7 examples, at least 10 must be behind them", "policy"))
    assert "7" not in last(out, Status, STATUS).reason


def test_its_bytes_are_in_the_owners_budget():
    terms = Terms.read(profile_round().terms)
    need = bound(terms) + HEADER_BYTES
    for allowed, starts in ((2 * need, False), (50 * need, True)):
        out = hear(device(limits=Limits(per_day=allowed)), profile_round())
        assert bool(of(out, StartTraining)) == starts
