"""Masked profiles with noise: what they cost is in every ledger, and what they tell has the noise that it names."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from machines import TOPICS, commit_of, feed, of, run_out, status
from masked_profiles import (
    FEDERATED,
    MODEL,
    PRIVACY,
    SCALING,
    make_profiled,
    open_profile,
    parts,
    profile_maker,
    profile_round,
    told,
)
from masked_rounds import answer_of, asked, helper_keys, make_helper, nothing_known, round_in

from edgefl import masked_fit
from edgefl.coordinator.events import Answered, AskProfile, SaveProfile
from edgefl.device.owner.policy import OPEN
from edgefl.errors import PolicyError, UsageError
from edgefl.helper.events import JobDone, Open
from edgefl.helper.helper import Helper
from edgefl.helper.noise import Draw
from edgefl.helper.spending import pay
from edgefl.machine import Connected, Note, Publish, Received, Tick
from edgefl.privacy import accountant
from edgefl.privacy.accountant import Mechanism
from edgefl.privacy.ledger import Ledger, SaveLedger
from edgefl.protocol.terms import Terms
from edgefl.settings import FeatureSettings, PrivacySettings, Settings
from edgefl.settings.features import FeatureSettings as Features
from edgefl.trust.ed25519 import fingerprint

pytest.importorskip("dp_accounting")

NOISY = msgspec.structs.replace(PRIVACY, noise="independent", sigma=2.0, bits=24)
RANGES = FeatureSettings("federated", ranges="0.005:0.015, 5:15, 5000:15000")
ROOT = fingerprint(helper_keys().root)
SCALED = SCALING.into(MODEL.params, np.ones(3), np.full(3, 0.5))


def ledger(**fields) -> Ledger:
    return Ledger(ROOT, 1e-5, **fields)


def noisy_maker(privacy: PrivacySettings = NOISY, features: FeatureSettings = RANGES, **options):
    return profile_maker(privacy, features=features, **{"ledger": ledger()} | options)


def noisy_answer(helper: Helper, asks: list[Received], seed: int = 0) -> list[Received]:
    """What the helper answers, with noise that it draws."""
    rng, out, waiting = np.random.default_rng(seed), [], list(asks)
    while waiting:
        for action in helper.step(waiting.pop(0), 0.0):
            match action:
                case Open(job):
                    waiting.append(JobDone(job, job.run(Draw(None, rng.bytes))))
                case Publish(topic, payload):
                    out.append(Received(topic, payload))
    return out


def joined(coordinator, devices: str) -> list:
    """What the coordinator does once these devices are there, and the helper has said that it knows of nothing."""
    return feed(coordinator, *map(status, devices), Connected()) + nothing_known(coordinator)


def closed(maker=None, devices: str = "abcd", **options):
    maker = maker or noisy_maker()
    coordinator, round, terms = open_profile(*devices, maker=maker, features=RANGES, **options)
    out = []
    for device in devices:
        out += feed(coordinator, *parts(round, device), now=1.0)
    assert coordinator.phase == "unmasking"
    return coordinator, round, terms, out


def test_i38_a_profile_is_in_the_ledgers_of_aggregator_and_helper_as_a_round_that_trains_is():
    coordinator, _, terms, out = closed()
    rho = terms.norm2 / (2 * terms.noise.sigma**2)
    assert abs(rho - 1 / (2 * NOISY.sigma**2)) < 1e-12, "as much noise, over the longest vector, as rounds that train"
    assert abs(terms.epsilon - accountant.epsilon(rho, 1e-5)) < 1e-6 and terms.delta == 1e-5
    kinds = [type(action) for action in out]
    (saved,) = of(out, SaveLedger)
    assert kinds.index(SaveLedger) < max(at for at, kind in enumerate(kinds) if kind is Publish), "durable before asked"
    assert saved.ledger.epsilon == terms.epsilon and saved.ledger.round == 1
    helper = make_helper()
    answers = noisy_answer(helper, asked(out))
    assert helper.state.ledger is not None and helper.state.ledger.epsilon == terms.epsilon == helper.state.epsilon
    out = feed(coordinator, *answers, now=2.0)
    record = commit_of(out).record
    assert (record.state, record.profile, record.epsilon, record.num_examples) == ("evaluated", True, terms.epsilon, 4)
    after = Terms.read(round_in(out).terms)
    assert after.profile is None and after.epsilon > terms.epsilon, "training spends on from there"
    assert abs(after.epsilon - accountant.epsilon(2 * rho, 1e-5)) < 1e-3


@pytest.mark.parametrize("noise", ["independent", "banded"])
def test_i38_a_profile_that_is_abandoned_stalls_no_round_after_it(noise):
    """Devices have agreed to its epsilon, and go by no round that tells less, if only by a rounding error. So the sum
    that is opened next costs as much, in both ledgers."""
    privacy = msgspec.structs.replace(NOISY, noise=noise, separation=2, band=2 if noise == "banded" else 1)
    features = replace_features(standardize="none")
    maker, helper = noisy_maker(privacy, features, rounds=40), make_helper()
    coordinator = make_profiled(privacy, maker=maker, features=features, params=SCALED, goal=4)
    agreed, out, now = 0.0, joined(coordinator, "abcdefgh"), 0.0
    for number, mode in enumerate(("train", "profile", "train", "train", "profile", "train", "train"), 1):
        round = round_in(out)
        terms = Terms.read(round.terms)
        assert (round.round, round.mode) == (number, mode) and terms.epsilon >= agreed
        kinds = [action.topic if isinstance(action, Publish) else type(action) for action in out]
        if terms.epsilon > agreed:
            assert kinds.index(SaveLedger) < len(kinds) - 1 - kinds[::-1].index(TOPICS.round), (
                "durable before it is told"
            )
        agreed = terms.epsilon
        if number in (1, 4):
            feed(coordinator, AskProfile("order-1"))
        if number in (3, 7):
            devices = round.cohort or "abcd"
            out = [action for device in devices[:4] for action in feed(coordinator, *parts(round, device), now=now)]
            out = feed(coordinator, *noisy_answer(helper, asked(out)), now=now)
            assert commit_of(out).record.state == "committed"
            assert maker.ledger.epsilon == helper.state.epsilon == agreed
            continue
        while coordinator.round == number:  # nobody reports
            now = coordinator.wake_at
            out = feed(coordinator, Tick(), now=now)
        assert commit_of(out).record.state == "abandoned"


def test_what_comes_out_has_the_noise_that_it_names_and_a_scaling_that_is_finite():
    """Twelve devices in noise of two times the longest vector: hardly anything, and that is what the table says."""
    coordinator, _, terms, out = closed(devices="abcdefghijkl")
    out = feed(coordinator, *noisy_answer(make_helper(), asked(out)), now=2.0)
    profile = of(out, SaveProfile)[0].profile
    unit = terms.noise.sigma * terms.grid
    assert profile.masked and abs(profile.noise - unit) < 1e-9 and unit > 2.0 * 3
    assert (profile.devices, profile.examples) == (12, 0) and not profile.columns, "the noise may be all of it"
    assert commit_of(out).params is None, "nothing is known: the model stays as it is"
    assert any(note.level == "warning" and "3 of 3 columns" in note.text for note in of(out, Note))
    assert round_in(out).mode == "train", "and nobody asks again, which would cost as much again"
    again = make_profiled(
        NOISY, maker=noisy_maker(), features=RANGES, start={"recent": [commit_of(out).record], "round": 2, "attempt": 2}
    )
    assert round_in(joined(again, "abcd")).mode == "train", "nor after a restart"


def test_a_profile_whose_record_is_gone_is_not_paid_for_again():
    """A start reads the records of the last hundred rounds; a round that trains tells of the profile before it."""
    coordinator, _, _, out = closed(devices="abcd")
    helper = make_helper()
    out = feed(coordinator, *noisy_answer(helper, asked(out)), now=2.0)
    round = round_in(out)
    assert round.mode == "train"
    out = [action for device in "abcd" for action in feed(coordinator, *parts(round, device), now=3.0)]
    commit = commit_of(feed(coordinator, *noisy_answer(helper, asked(out)), now=4.0))
    assert commit.record.state == "committed"
    restart = {"round": 3, "version": 1, "attempt": 2}
    for records, mode in (
        ([commit.record], "train"),
        ([commit.record, msgspec.structs.replace(commit.record, state="rollback", epsilon=0.0)], "profile"),
    ):
        again = make_profiled(
            NOISY, maker=noisy_maker(), features=RANGES, params=commit.params, start={"recent": records, **restart}
        )
        assert round_in(joined(again, "abcd")).mode == mode


def test_little_noise_leaves_means_as_far_off_as_the_table_says():
    privacy = msgspec.structs.replace(NOISY, sigma=0.02)
    maker = noisy_maker(privacy)
    coordinator, _, _, out = closed(maker, devices="abcdefghijkl", privacy=privacy)
    out = feed(coordinator, *noisy_answer(make_helper(), asked(out)), now=2.0)
    profile, params = of(out, SaveProfile)[0].profile, commit_of(out).params
    assert len(profile.columns) == 3 and 0 < profile.noise < 0.2 and profile.version == 1
    for column, (low, high) in zip(profile.columns, RANGES.column_ranges, strict=True):
        assert low < column.mean < high and 0 < column.noise < 0.02 * (high - low)
        assert params[SCALING.mean][column.column] == np.float32(column.mean)
        assert abs(params[SCALING.scale][column.column] * column.deviation - 1) < 1e-5
    text = profile.table(["a", "b", "c"])
    assert "12 devices, each counted alike, with noise of" in text and "its noise" in text and "share" in text


def test_i38_a_helper_opens_no_profile_whose_terms_tell_less_than_it_costs():
    told_less = noisy_maker()
    terms = told_less.terms(round=1, version=0, model_sha256="a" * 64, manifest="b" * 16, mode="profile")
    lied = msgspec.structs.replace(terms, epsilon=terms.epsilon / 2)
    with pytest.raises(Exception, match="epsilon"):
        pay(None, Terms.read(lied.text), ROOT, bytes(32))
    assert pay(None, Terms.read(terms.text), ROOT, bytes(32)).epsilon == terms.epsilon


def test_i38_no_noise_on_a_profile_is_refused_by_a_helper_that_wants_some():
    coordinator, round, _ = open_profile(*"abc")
    out = []
    for device in "abc":
        out += feed(coordinator, *parts(round, device), now=1.0)
    helper = make_helper()
    helper.least = msgspec.structs.replace(helper.least, noise=1.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    assert "weak: noise is 0 of a device's norm" in commit_of(out).record.why


@pytest.mark.parametrize("noise", ["independent", "banded"])
def test_i38_aggregator_and_helper_compute_the_same_over_profiles_amid_rounds_that_train(noise):
    """A profile is a stretch of its own, and correlated noise goes on after it in another."""
    privacy = msgspec.structs.replace(NOISY, noise=noise, separation=3, band=3 if noise == "banded" else 1)
    maker, theirs = noisy_maker(privacy, rounds=40), None
    for number, mode in enumerate(["profile", "train", "train", "train", "profile", "train", "train"], 1):
        terms = maker.terms(round=number, version=0, model_sha256="a" * 64, manifest="b" * 16, mode=mode)
        Terms.read(terms.text)
        assert terms.noise.kind == ("independent" if mode == "profile" else noise)
        theirs = pay(theirs, terms, ROOT, bytes(32))
        maker.spend(terms)
        assert theirs.epsilon == maker.ledger.epsilon == terms.epsilon
    mechanisms = Mechanism.of(maker.profiles.noise, maker.profiles.numbers["norm2"])
    assert mechanisms.kind == "independent"


def test_an_order_that_the_budget_has_no_room_for_is_refused_and_training_goes_on():
    privacy = msgspec.structs.replace(NOISY, separation=100)
    rho = 1 / (2 * privacy.sigma**2)
    privacy = msgspec.structs.replace(privacy, budget=accountant.epsilon(1.5 * rho, 1e-5))
    features = replace_features(standardize="none")
    coordinator = make_profiled(privacy, features=features, params=SCALED, maker=noisy_maker(privacy, features), goal=4)
    round = round_in(joined(coordinator, "abcdefgh"))
    assert round.mode == "train"
    feed(coordinator, AskProfile("order-1"))
    out = [action for device in "abcd" for action in feed(coordinator, *parts(round, device), now=1.0)]
    out = feed(coordinator, *noisy_answer(make_helper(), asked(out)), now=2.0)
    assert commit_of(out).record.state == "committed"
    (answer,) = of(out, Answered)
    assert not answer.done and "the privacy budget is spent" in answer.text
    following = round_in(out)
    assert (following.mode, following.round, following.cohort) == ("train", 2, list("efgh"))


def replace_features(**changes) -> FeatureSettings:
    return msgspec.structs.replace(RANGES, **changes)


# What is refused


def test_an_order_without_ranges_is_refused_and_standardize_at_start():
    features = Features()
    maker = noisy_maker(NOISY, features)
    coordinator = make_profiled(NOISY, maker=maker, features=features, params=SCALED)
    joined(coordinator, "abcd")
    out = feed(coordinator, AskProfile("order-1"))
    (answer,) = of(out, Answered)
    assert not answer.done and "set features.ranges" in answer.text
    assert round_in(run_out(coordinator)).mode == "train"


@pytest.mark.parametrize(
    ("features", "privacy", "why"),
    [
        (FEDERATED, NOISY, "with noise a profile needs features.ranges"),
        (RANGES, PRIVACY, "features.ranges bounds columns where there is noise"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(features, privacy, why):
    settings = Settings(features=features, privacy=privacy)
    assert any(why in text for used, text in masked_fit._settings(settings) if used)


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ("1:2, 3:4", "2 ranges for 3 columns"),
        (", ".join(["0:1"] * 41), "41 ranges, at most 40"),
        ("5", "give low:high"),
        ("5:5", "give low:high"),
        ("7:5", "give low:high"),
        ("0:nan", "give low:high"),
        ("0:1e30", "give low:high"),
        ("a:b", "give low:high"),
        ("0:1,", "give low:high"),
    ],
)
def test_ranges_that_cant_be_are_refused(ranges, why):
    with pytest.raises(UsageError, match=why):
        noisy_maker(features=replace_features(ranges=ranges))


def test_i36_a_device_tells_shares_only_if_its_owner_allows_statistics_and_this_noise():
    round = profile_round(maker=noisy_maker())
    with pytest.raises(PolicyError, match="no column statistics leave it"):
        told(round, "a", policy=replace(OPEN, statistics=False))
    terms = Terms.read(round.terms)
    assert replace(OPEN, least_noise=2.1).of_terms(terms).startswith("noise of 2")
    assert "an epsilon of" in replace(OPEN, most_epsilon=0.1).of_terms(terms)
    assert replace(OPEN, least_noise=1.99, most_epsilon=100.0).of_terms(terms) == ""
    assert len(told(round, "a")) == len(told(round, "a", (np.zeros((7, 3), np.float32), np.zeros(7, np.int64))))
