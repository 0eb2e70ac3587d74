"""Canaries judge a candidate before it is committed: what is asked, what counts, and that it never lasts for ever."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from keyed import DEVICE_KEYS, SIGNER, certificate, signed_blob
from machines import (
    FEDERATION,
    MANIFEST,
    PARAMS,
    TOPICS,
    commit_of,
    feed,
    make_coordinator,
    make_update,
    of,
    received,
    round_in,
    status,
    update_parts,
    word_to,
)  # fmt: skip

from edgefl import strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import Answered, Evaluate, Evaluated, Rollback, SignerRead
from edgefl.machine import Connected, Disconnected, Publish, Received, Tick
from edgefl.protocol.inbox import Inbox, Judge, Verdict
from edgefl.protocol.messages import decode, encode
from edgefl.settings import GateSettings, RoundSettings
from edgefl.trust.certificate import purpose_of
from edgefl.trust.roster import Member, Roster
from edgefl.trust.seal import open_seal, seal

GATE = GateSettings(judge="canaries", canaries="a, b,c", quorum=2, canary_deadline_s=100.0)


def judging(*devices, gate=GATE, strategy="fedavg", **config):
    """A coordinator whose round 1 has ended, and what it did then: canaries are asked. One update makes a round."""
    coordinator = RoundCoordinator(
        MANIFEST, RoundSettings(**{"deadline_s": 60.0, "min_reports": 1, "goal": 1} | config),
        strategies.get(strategy), PARAMS, rng=random.Random(0), gate=gate,
    )  # fmt: skip
    feed(coordinator, *map(status, devices), Connected())
    out = feed(coordinator, *update_parts(devices[-1], make_update(1.0)), now=1.0)
    assert coordinator.phase == "judging" and commit_of(out) is None
    return coordinator, out


def verdict(device, asked: Judge, accuracy, loss=0.5, round=1):
    told = Verdict(asked.round.attempt, asked.round.model_sha256, loss, accuracy)
    return received(TOPICS.verdict(device, round), told)


def asked_last(out, device) -> Judge:
    """What the device was asked to judge last."""
    words = [word_to([message], device) for message in of(out, Publish, TOPICS.inbox(device))]
    return [word for word in words if isinstance(word, Judge)][-1]


def answer(coordinator, out, scores, now=2.0):
    """Each canary that is asked answers, first of the newest model, then of the candidate; all actions."""
    done, waiting = [], list(out)
    left = {device: list(own) for device, own in scores.items()}
    while waiting:
        action = waiting.pop(0)
        done.append(action)
        device = TOPICS.device_of(action.topic) if isinstance(action, Publish) else None
        asked = word_to([action], device) if device and action.topic == TOPICS.inbox(device) else None
        if isinstance(asked, Judge) and left.get(device):
            more = feed(coordinator, verdict(device, asked, left[device].pop(0)), now=now)
            waiting += more
    return done


def test_a_candidate_is_asked_for_in_inboxes_alone_and_no_round_names_it():
    coordinator, out = judging("a", "b", "d")
    asked = {device: word_to(out, device) for device in "ab"}
    assert all(isinstance(word, Judge) and word.round.version == 0 for word in asked.values())
    assert not isinstance(word_to(out, "d"), Judge) and round_in(out) is None
    more = feed(coordinator, verdict("a", asked["a"], 0.9), now=2.0)
    candidate = word_to(more, "a")
    assert (candidate.round.version, candidate.round.mode) == (1, "evaluate")
    assert candidate.round.model_sha256 != asked["a"].round.model_sha256


@pytest.mark.parametrize(("scores", "state"), [
    ({"a": [0.9, 0.9], "b": [0.8, 0.81]}, "committed"),
    ({"a": [0.9, 0.5], "b": [0.8, 0.4]}, "refused"),
    ({"a": [0.9, 0.89], "b": [0.8, 0.79], "c": [0.9, 0.0]}, "committed"),
    ({"a": [0.9, 0.1], "b": [0.8, 0.1], "c": [0.9, 1.0]}, "refused"),
])  # fmt: skip
def test_the_median_of_what_canaries_lose_decides(scores, state):
    coordinator, out = judging(*scores, "d")
    out = answer(coordinator, out, scores)
    commit = commit_of(out)
    assert commit.record.state == state
    announced = round_in(out)
    assert (announced.round, announced.version) == (2, int(state == "committed"))


def test_what_canaries_have_judged_is_what_all_devices_get_bit_for_bit():
    coordinator, out = judging("a", "b", "d")
    out = answer(coordinator, out, {"a": [0.9, 0.9], "b": [0.9, 0.9]})
    candidate = asked_last(out, "a")
    announced = round_in(out)
    assert announced.model_sha256 == candidate.round.model_sha256 and announced.frames == candidate.round.frames


def test_a_refused_candidate_leaves_everything_as_it_was():
    coordinator, out = judging("a", "b", "d", strategy="fedavgm")
    frames = coordinator.announcer.downlink.frames
    out = answer(coordinator, out, {"a": [0.9, 0.1], "b": [0.9, 0.1]})
    commit = commit_of(out)
    assert (commit.params, commit.record.version, commit.record.state) == (None, 0, "refused")
    assert "canaries" in commit.record.why and commit.record.accuracy is None
    assert coordinator.params.tobytes() == PARAMS.tobytes() and coordinator.strategy.state() == {}
    assert coordinator.announcer.downlink.frames == frames
    slots = {frame.keyframe_slot for frame in asked_last(out, "a").round.frames} - {f.keyframe_slot for f in frames}
    cleared = coordinator.announcer._retained._superfluous
    assert slots and all(TOPICS.model(slot, 0) in cleared for slot in slots), "the candidate goes from the broker"


def test_the_next_candidate_has_the_same_version_and_old_verdicts_are_of_no_use():
    coordinator, out = judging("a", "b", "d")
    first = answer(coordinator, out, {"a": [0.9, 0.1], "b": [0.9, 0.1]})
    refused = asked_last(first, "a")
    out = feed(coordinator, *update_parts("d", make_update(0.5), round=2), now=3.0)
    asked = word_to(out, "a")
    assert asked.round.version == refused.round.version == 1, "both are known to have judged the newest model"
    assert asked.round.model_sha256 != refused.round.model_sha256
    for device in "ab":
        feed(coordinator, verdict(device, refused, 0.99, round=2), now=4.0)
    assert coordinator.phase == "judging"
    out = answer(coordinator, out, {"a": [0.9], "b": [0.9]}, now=5.0)
    assert commit_of(out).record.state == "committed"


def test_without_a_quorum_at_the_deadline_the_candidate_is_refused_and_rounds_go_on():
    coordinator, out = judging("d", "e")
    assert not [w for w in map(lambda d: word_to(out, d), "de") if isinstance(w, Judge)]
    assert coordinator.wake_at == 101.0
    out = feed(coordinator, Tick(), now=101.0)
    commit = commit_of(out)
    assert commit.record.state == "refused" and commit.record.why.startswith("0 canaries have judged it")
    assert round_in(out).round == 2


def test_a_canary_that_tells_no_accuracy_does_not_make_the_loss_decide():
    """The quorum is all three; by their losses, the candidate would pass."""
    coordinator, out = judging(*"abc", "d", gate=GateSettings(judge="canaries", canaries="a,b,c", quorum=3))
    out = answer(coordinator, out, {"a": [0.9, 0.5], "b": [0.9, 0.5], "c": [0.9, None]})
    assert commit_of(out).record.state == "refused"


def test_a_canary_that_does_not_answer_is_asked_again_and_one_that_comes_is_asked():
    coordinator, _ = judging("a", "d")
    assert feed(coordinator, Tick(), now=5.0) == []
    assert isinstance(word_to(feed(coordinator, Tick(), now=coordinator.wake_at), "a"), Judge)
    assert isinstance(word_to(feed(coordinator, status("b"), now=12.0), "b"), Judge)


def test_a_device_that_is_no_canary_has_no_voice():
    coordinator, out = judging("a", "b", "d")
    newest = word_to(out, "a")
    candidate = word_to(feed(coordinator, verdict("a", newest, 0.9), now=2.0), "a")
    for device, asked in itertools.product("de", (newest, candidate)):
        assert commit_of(feed(coordinator, verdict(device, asked, 0.9), now=2.0)) is None
    out = feed(coordinator, Tick(), now=101.0)
    assert commit_of(out).record.why.startswith("0 canaries")


def test_the_first_verdict_of_this_attempt_counts():
    coordinator, out = judging("a", "b", "d")
    newest = {device: word_to(out, device) for device in "ab"}
    candidates = {d: word_to(feed(coordinator, verdict(d, newest[d], 0.9), now=2.0), d) for d in "ab"}
    earlier = Verdict(2, candidates["a"].round.model_sha256, 0.5, 0.9)
    feed(coordinator, received(TOPICS.verdict("a", 1), earlier), now=3.0)
    for accuracy in (0.1, 0.9):
        feed(coordinator, verdict("a", candidates["a"], accuracy), now=3.0)
    out = feed(coordinator, verdict("b", candidates["b"], 0.9), now=4.0)
    assert commit_of(out).record.state == "refused"


def test_a_verdict_that_comes_late_changes_nothing_and_blames_nobody():
    coordinator, out = judging("a", "b", "d")
    asked = word_to(out, "a")
    answer(coordinator, out, {"a": [0.9, 0.9], "b": [0.9, 0.9]})
    before = coordinator.snapshot()
    assert feed(coordinator, verdict("a", asked, 0.1), now=3.0) == []
    assert coordinator.snapshot() == before and not coordinator.dropped


def test_a_lost_connection_asks_again_and_decides_nothing_meanwhile():
    coordinator, out = judging("a", "b", "d")
    asked = word_to(out, "a")
    feed(coordinator, Disconnected(), now=2.0)
    assert commit_of(feed(coordinator, Tick(), now=500.0)) is None
    assert feed(coordinator, verdict("a", asked, 0.9), now=500.0) == []
    coordinator, out = judging("a", "b", "d")
    feed(coordinator, Disconnected(), now=2.0)
    out = feed(coordinator, Connected(), now=3.0)
    assert isinstance(word_to(out, "a"), Judge)
    out = answer(coordinator, out, {"a": [0.9, 0.9], "b": [0.9, 0.9]}, now=4.0)
    assert commit_of(out).record.state == "committed"


def test_a_loss_decides_where_there_is_no_accuracy_and_one_that_is_not_finite_is_worst():
    for losses, state in ((([1.0, 1.05], [2.0, 2.1]), "committed"), (([1.0, None], [2.0, 9.0]), "refused")):
        coordinator, out = judging("a", "b", "d")
        for device, own in zip("ab", losses, strict=True):
            asked = word_to(out, device)
            more = feed(coordinator, verdict(device, asked, None, loss=own[0]), now=2.0)
            out += feed(coordinator, verdict(device, word_to(more, device), None, loss=own[1]), now=2.0)
        assert commit_of(out).record.state == state


def test_with_keys_a_verdict_counts_only_if_its_device_has_sealed_it():
    settings = GateSettings(judge="canaries", quorum=1)
    members = {name: Member.of(DEVICE_KEYS[name].public, canary=name == "a") for name in "ab"}
    keys = SignerRead(SIGNER, certificate(), 1), Roster(FEDERATION, 1, members)
    coordinator = make_coordinator(goal=1, start={"keys": keys, "gate": settings})

    def step(event, now=1.0):
        out = []
        for action in coordinator.step(event, now):
            if isinstance(action, Publish) and action.topic == TOPICS.aggregator and not action.retain:
                out += step(Received(action.topic, action.payload), now)
            if isinstance(action, Evaluate):
                out += step(Evaluated(), now)
            out.append(action)
        return out

    for event in (status("a"), status("b"), Connected()):
        step(event)
    out = [a for part in update_parts("b", signed_blob("b")) for a in step(part)]
    (message,) = of(out, Publish, TOPICS.inbox("a"))
    asked = decode(Inbox, open_seal(message.payload, purpose_of(message.topic, 1), SIGNER.public))
    topic = TOPICS.verdict("a", 1)
    told = encode(Verdict(1, asked.round.model_sha256, 0.5, 0.9, asked.round.run))
    for key, sealed_for in ((DEVICE_KEYS["b"], topic), (DEVICE_KEYS["a"], TOPICS.verdict("a", 2)), (None, topic)):
        step(Received(topic, told if key is None else seal(told, sealed_for, key)))
        assert not coordinator.jury._known
    step(Received(topic, seal(told, topic, DEVICE_KEYS["a"])))
    assert set(coordinator.jury._known) == {"a"}, "the roster's canary"


def test_an_order_to_roll_back_ends_the_judging():
    coordinator, out = judging("a", "b", "d")
    out = feed(coordinator, Rollback("order 1", 7, np.full_like(PARAMS, 0.25)), now=2.0)
    records = [a.record for a in out if hasattr(a, "record")]
    assert [r.state for r in records] == ["refused", "rollback"] and [r.round for r in records] == [1, 2]
    assert of(out, Answered)[0].done
