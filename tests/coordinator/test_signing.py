"""A coordinator with keys: what it seals, whose updates it counts, and the chain of its versions."""

from __future__ import annotations

import pytest
from keyed import (
    DEVICE_KEYS,
    ROOT,
    SIGNER,
    THIEF,
    TODAY,
    certificate,
    keyed_coordinator,
    keyed_session,
    manifest,
    roster,
    signed_blob,
)
from machines import (
    BLOB,
    FEDERATION,
    PARAMS,
    RUN,
    STATUS,
    TOPICS,
    accumulator_of,
    commit_of,
    feed,
    make_manifest,
    make_update,
    of,
    open_round,
    report,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.events import Commit, Evaluated, LateUpdate, ReloadedLate, RosterRead, SaveLate, SignerRead
from edgefl.coordinator.signing import LIFE_S
from edgefl.coordinator.updates.receipts import EARNED
from edgefl.machine import Connected, Note, Publish, Received, Stop, Subscribe, Tick, WallTime
from edgefl.protocol.fleet import decode_page
from edgefl.protocol.inbox import Inbox
from edgefl.protocol.messages import Claim, Status, decode, encode
from edgefl.protocol.round import Round
from edgefl.protocol.update_header import PersonalScores, UpdateHeader
from edgefl.trust.certificate import SignerCertificate, purpose_of
from edgefl.trust.seal import is_sealed, open_seal, read_seal, seal


def steps(coordinator, *events, now=0.0) -> list:
    """As a host on a broker: the coordinator's own claim comes back to it, and every model is evaluated."""
    out, waiting = [], list(events)
    while waiting:
        for action in coordinator.step(waiting.pop(0), now):
            out.append(action)
            if isinstance(action, Publish) and action.topic == TOPICS.aggregator:
                waiting.append(Received(action.topic, action.payload))
            if type(action).__name__ == "Evaluate":
                waiting.append(Evaluated())
    return out


def opened(*devices, **options):
    """A coordinator in round 1 with these devices, and what it did."""
    coordinator = keyed_coordinator(*devices, **{"min_reports": len(devices)} | options)
    out = steps(coordinator, WallTime(float(TODAY)), *map(status, devices), Connected())
    assert coordinator.snapshot().phase == "open"
    return coordinator, out


def payloads(actions, topic) -> list[bytes]:
    return [a.payload for a in of(actions, Publish, topic)]


def rounds_in(actions, key=SIGNER) -> list[Round]:
    found = [open_seal(raw, purpose_of(TOPICS.round, 1), key.public) for raw in payloads(actions, TOPICS.round)]
    return [decode(Round, payload, 2**16) for payload in found]


def word(actions, device):
    topic = TOPICS.inbox(device)
    return decode(Inbox, open_seal(payloads(actions, topic)[-1], purpose_of(topic, 1), SIGNER.public))


def send(coordinator, device, now=1.0, blob=None, **update):
    return steps(coordinator, *update_parts(device, blob or signed_blob(device), **update), now=now)


def test_all_but_the_model_is_sealed_and_what_devices_begin_with_has_the_certificate():
    coordinator, out = opened("a")
    out += send(coordinator, "a", now=2.0) + steps(coordinator, Stop(), now=3.0)
    topics = {action.topic for action in of(out, Publish) if action.payload}
    assert {TOPICS.manifest, TOPICS.round, TOPICS.aggregator, TOPICS.inbox("a"), TOPICS.model(0, 0)} <= topics
    for action in of(out, Publish):
        if not action.payload or TOPICS.model_part(action.topic):
            assert not is_sealed(action.payload)
            continue
        sealed = read_seal(action.payload)
        purpose = action.topic if action.topic == TOPICS.aggregator else purpose_of(action.topic, 1)
        assert sealed.is_signed(purpose, SIGNER.public)
        assert bool(sealed.certificate) == (action.topic in (TOPICS.manifest, TOPICS.round))
    sealed = read_seal(payloads(out, TOPICS.round)[0])
    assert SignerCertificate.open(sealed.certificate, ROOT.public, FEDERATION).public == SIGNER.public


def test_a_round_says_when_it_was_issued_and_ends_and_which_models_came_before():
    coordinator, out = opened("a")
    out += send(coordinator, "a", now=2.0)
    first, second = rounds_in(out)
    assert (first.run, first.issued, first.expires) == (RUN, TODAY, TODAY + LIFE_S + 60)
    assert (first.previous, len(first.chain)) == ("", 64)
    assert (second.version, second.previous, second.issued) == (1, first.chain, TODAY + 2)
    commit = commit_of(out)
    assert (commit.record.previous, commit.record.chain) == (second.previous, second.chain)


def test_the_chain_goes_on_after_a_restart_and_a_copy_that_goes_another_way_has_another_one():
    coordinator, _ = opened("a")
    records = [commit_of(send(coordinator, "a", now=2.0)).record]
    params, chain = coordinator.params, records[0].chain

    def again(version, params, **update):
        other = keyed_coordinator(
            "a", params=params, start={"round": 2, "version": version, "attempt": 2, "recent": iter(records)}
        )
        out = steps(other, WallTime(TODAY + 9.0), status("a"), Connected())
        blob = signed_blob(round=2, version=version, **update)
        return rounds_in(out + send(other, "a", blob=blob, round=2, version=version))

    same, after = again(1, params)
    assert (same.previous, same.chain, after.previous) == (records[0].previous, chain, chain)
    other = again(1, params, blob=make_update(0.25))[-1]
    assert other.previous == chain and other.chain != after.chain
    damaged = again(2, PARAMS)[0]  # the newest model was damaged: the one before it is version 2
    assert damaged.previous == chain != damaged.chain


def test_an_abandoned_round_has_the_chain_too():
    coordinator, out = opened("a")
    chain = rounds_in(out)[0].chain
    out = []
    while coordinator.round == 1:
        out += steps(coordinator, Tick(), now=coordinator.wake_at)
    assert commit_of(out).record.chain == chain


def test_the_round_is_issued_again_before_it_expires_also_while_none_is_open():
    coordinator, out = opened("a", deadline_s=1e6)
    (round,) = rounds_in(out)
    assert coordinator.wake_at <= LIFE_S / 2
    out = steps(coordinator, Tick(), now=LIFE_S / 2)
    (again,) = rounds_in(out)
    assert (again.round, again.state, again.issued) == (1, "open", round.issued + LIFE_S / 2)
    idle = keyed_coordinator("a", min_reports=1, interval_s=1e6)
    steps(idle, WallTime(float(TODAY)), status("a"), Connected())
    waits = send(idle, "a", now=2.0)
    assert rounds_in(waits)[-1].state == "waiting"
    (again,) = rounds_in(steps(idle, Tick(), now=2.0 + LIFE_S / 2))
    assert again.state == "waiting" and again.expires > TODAY + LIFE_S


def test_without_the_time_of_day_a_round_never_expires():
    coordinator = keyed_coordinator("a")
    out = steps(coordinator, status("a"), Connected())
    assert [(r.issued, r.expires) for r in rounds_in(out)] == [(0, 0)] and coordinator.signing.reissue_at is None


UNSIGNED = {
    "not at all": lambda: BLOB,
    "by another device": lambda: signed_blob(key=DEVICE_KEYS["b"]),
    "for another round": lambda: signed_blob(round=2),
    "from another model": lambda: signed_blob(version=1),
    "for another federation": lambda: signed_blob(federation="other"),
    "for another run": lambda: signed_blob(run="f" * 16),
    "in another epoch": lambda: signed_blob(epoch=2),
    "in another codec": lambda: signed_blob(codec=2),
    "with another weight": lambda: signed_blob()[:4] + b"\x09" + signed_blob()[5:],
    "with another delta": lambda: signed_blob()[:-1] + b"\x00",
}


@pytest.mark.parametrize("blob", UNSIGNED.values(), ids=UNSIGNED)
def test_i18_an_update_that_its_device_has_not_signed_for_this_round_is_dropped(blob):
    coordinator, _ = opened("a", "b")
    before = accumulator_of(coordinator)
    out = send(coordinator, "a", blob=blob())
    assert accumulator_of(coordinator) == before and coordinator.dropped["a"] == 1
    assert not payloads(out, TOPICS.inbox("a")), "a receipt would make the device drop its own update"
    assert any("sign" in note.text for note in of(out, Note))
    out = send(coordinator, "a", now=2.0)
    assert word(out, "a").outcome == "counted" and coordinator.snapshot().counted == 1


def test_i18_a_device_that_is_not_enrolled_is_not_heard():
    coordinator = keyed_coordinator("a", min_reports=1)
    out = steps(coordinator, WallTime(float(TODAY)), status("a"), status("c"), Connected())
    assert coordinator.snapshot().present == 1 and rounds_in(out)[0].round == 1
    before = accumulator_of(coordinator)
    out = send(coordinator, "c")
    assert accumulator_of(coordinator) == before and not payloads(out, TOPICS.inbox("c"))
    assert coordinator.dropped["c"] == 4, "a status and three parts"


def test_i18_a_revoked_device_is_out_at_once_and_a_new_one_is_in():
    coordinator, _ = opened("a", "b", min_reports=1)
    assert coordinator.snapshot().waiting == 2
    out = steps(coordinator, RosterRead(roster("a", "b", "c", serial=2, revoked=["b"])), now=1.0)
    assert (coordinator.snapshot().waiting, coordinator.snapshot().present) == (1, 1)
    assert of(out, Subscribe), "the status of a new device may have been there before"
    before = accumulator_of(coordinator)
    send(coordinator, "b", now=2.0)
    assert accumulator_of(coordinator) == before and coordinator.dropped["b"] > 0
    steps(coordinator, status("c"), now=3.0)
    out = send(coordinator, "a", now=4.0) + send(coordinator, "c", now=5.0)
    assert commit_of(out).record.devices == ["a", "c"] and coordinator.snapshot().present == 2


def test_a_device_that_is_revoked_has_no_row_any_more():
    coordinator, _ = opened("a", "b", min_reports=1, start={"watched": True})
    assert [row.id for row in coordinator.rows()] == ["a", "b"]
    steps(coordinator, Tick(), now=coordinator.wake_at)
    out = steps(coordinator, RosterRead(roster("a", "b", serial=2, revoked=["b"])), now=3.0)
    assert [row.id for row in coordinator.rows()] == ["a"]
    page = decode_page(open_seal(payloads(out, TOPICS.fleet(0))[-1], purpose_of(TOPICS.fleet(0), 1), SIGNER.public))
    assert [row.id for row in page.devices] == ["a"], "at once: the operator may remove it now"


def test_i18_what_has_arrived_of_a_device_is_dropped_when_it_is_revoked_and_what_has_counted_stays():
    coordinator, _ = opened("a", "b", "c", min_reports=1)
    send(coordinator, "a", now=1.0)
    steps(coordinator, update_parts("b", signed_blob("b"))[0], now=1.0)
    assert coordinator.tally.intake.under_way == 1
    out = steps(coordinator, RosterRead(roster("a", "b", "c", serial=2, revoked=["a", "b"])), now=2.0)
    assert coordinator.tally.intake.under_way == 0 and commit_of(out) is None
    assert commit_of(send(coordinator, "c", now=3.0)).record.devices == ["a", "c"]


def test_i18_a_late_update_of_a_device_that_was_revoked_since_is_dropped():
    coordinator, _ = opened("a", "b", min_reports=2, late="fold")
    steps(coordinator, RosterRead(roster("a", "b", serial=2, revoked=["b"])), now=1.0)
    kept = LateUpdate("b", 1, 0, 1, signed_blob("b"))
    before = accumulator_of(coordinator)
    out = steps(coordinator, ReloadedLate([kept]), now=2.0)
    assert accumulator_of(coordinator) == before and "revoked" in of(out, Note)[-1].text
    assert accumulator_of(coordinator) == before


def test_late_updates_are_verified_against_their_own_round():
    coordinator, _ = opened("a", "b", min_reports=1, goal=1, late="fold")
    send(coordinator, "a", now=2.0)
    assert (coordinator.round, coordinator.version) == (2, 1)
    out = send(coordinator, "b", now=3.0, blob=signed_blob("b", round=2, version=1))
    assert not of(out, SaveLate) and coordinator.dropped["b"] == 1
    out = send(coordinator, "b", now=4.0, blob=signed_blob("b"))
    assert of(out, SaveLate) and (word(out, "b").folded, word(out, "b").run) == (2, RUN)
    (saved,) = of(out, SaveLate)
    assert saved.update.blob == signed_blob("b")


def test_nobody_earns_waiting_for_another_device_or_frames_it_by_a_late_update():
    """c has missed round 1; its update of that round would count in no model."""
    coordinator, _ = opened("a", "b", "c", min_reports=2, deadline_s=10.0)
    for device in "ab":
        send(coordinator, device, now=1.0)
    steps(coordinator, Tick(), now=10.0)
    assert coordinator.round == 2 and coordinator.tally.opening.unearned == ["c"]
    for blob in (make_update(), make_update()[:40]):
        send(coordinator, "c", now=11.0, blob=signed_blob("c", blob, key=DEVICE_KEYS["a"]))
    assert (coordinator.dropped["c"], coordinator.admission.quarantine.suspects) == (2, {})
    assert word(send(coordinator, "c", now=12.0, blob=signed_blob("c")), "c").reason == EARNED


def test_an_evaluation_is_signed_as_well():
    start = {"round": 2, "version": 1}
    coordinator, out = opened("a", manifest=make_manifest(holdout=0.5), evaluate_every=2, start=start)
    assert rounds_in(out)[0].mode == "evaluate"
    scores = UpdateHeader(0, 0, 0.0, 5, 10, 4, 0.5, 0.25).to_bytes()
    assert coordinator.dropped["a"] == 0 and not payloads(
        send(coordinator, "a", blob=scores, **start), TOPICS.inbox("a")
    )
    signed = signed_blob(blob=scores, **start)
    assert UpdateHeader.mode_of(signed) == "evaluate" and UpdateHeader.from_bytes(signed).eval_loss == 0.5
    assert word(send(coordinator, "a", blob=signed, now=2.0, **start), "a").outcome == "counted"


def test_personal_scores_come_after_the_signature_and_are_covered_by_it():
    start = {"round": 2, "version": 1}
    coordinator, _ = opened("a", manifest=make_manifest(holdout=0.5), evaluate_every=2, start=start)
    scores = UpdateHeader(0, 0, 0.0, 5, 10, 4, 0.5, 0.25, personal=PersonalScores(True, 0.125, 0.75)).to_bytes()
    signed = signed_blob(blob=scores, **start)
    assert len(signed) == 40 + 64 + 12 and UpdateHeader.mode_of(signed) == "evaluate"
    assert UpdateHeader.from_bytes(signed).personal == PersonalScores(True, 0.125, 0.75)
    forged = signed[:-12] + PersonalScores(True, 0.125, 1.0).to_bytes()
    assert not payloads(send(coordinator, "a", blob=forged, **start), TOPICS.inbox("a"))
    out = send(coordinator, "a", blob=signed, now=2.0, **start)
    assert word(out, "a").outcome == "counted"
    (record,) = [action.record for action in out if isinstance(action, Commit)]
    assert (record.personal, record.own, record.personal_loss, record.personal_accuracy) == (1, 1, 0.125, 0.75)
    assert (record.device_loss, record.device_accuracy) == (0.5, 0.25)


def test_i18_a_claim_that_our_signer_has_not_sealed_is_ignored():
    coordinator, _ = opened("a")
    claim = encode(Claim(RUN, 2**32 - 1, "f" * 16, 1, "holding"))
    for payload in (claim, seal(claim, TOPICS.aggregator, THIEF), seal(claim, TOPICS.round, SIGNER)):
        out = steps(coordinator, Received(TOPICS.aggregator, payload), now=1.0)
        assert coordinator.snapshot().held and "dropped" in of(out, Note)[0].text
    out = coordinator.step(Received(TOPICS.aggregator, seal(claim, TOPICS.aggregator, SIGNER)), 2.0)
    assert not coordinator.snapshot().held and type(out[-1]).__name__ == "Fenced"


def test_another_signer_is_in_use_without_a_restart():
    coordinator, _ = opened("a")
    out = steps(coordinator, SignerRead(THIEF, certificate(THIEF, serial=2), 1), now=1.0)
    (again,) = rounds_in(out, THIEF)
    assert again.round == 1
    for topic, purpose in (
        (TOPICS.manifest, purpose_of(TOPICS.manifest, 1)),
        (TOPICS.aggregator, TOPICS.aggregator),
        (TOPICS.round, purpose_of(TOPICS.round, 1)),
    ):
        assert read_seal(payloads(out, topic)[0]).is_signed(purpose, THIEF.public)
    assert coordinator.snapshot().held
    out = send(coordinator, "a", now=2.0)
    topic = TOPICS.inbox("a")
    assert read_seal(payloads(out, topic)[0]).is_signed(purpose_of(topic, 1), THIEF.public)


def test_without_keys_nothing_is_sealed_and_no_field_is_new():
    coordinator = open_round("a")
    out = report(coordinator, "a")
    words = [a.payload for a in of(out, Publish) if a.payload and not TOPICS.model_part(a.topic)]
    assert words and not any(is_sealed(w) for w in words)
    assert not any(name in w for w in words for name in (b"issued", b"chain", b"previous", b'"run"'))
    assert word_to(out, "a").run == ""
    assert commit_of(out).record.chain == ""


def test_both_sides_understand_each_other():
    _, out = opened("a")
    session = keyed_session()
    said = feed(session, Connected(boot=1))
    for action in of(out, Publish):
        if action.topic in (TOPICS.manifest, TOPICS.round):
            said += feed(session, Received(action.topic, action.payload))
    assert session.dropped == 0 and session.round.round == 1 and manifest().topic == TOPICS.manifest
    assert decode(Status, of(said, Publish, STATUS)[-1].payload).state == "ready"


def test_the_status_that_a_revoked_device_has_left_is_cleared():
    """Else whoever looks at the broker sees it ready; the status of a device that is not enrolled yet stays."""
    coordinator, _ = opened("a", "b")
    steps(coordinator, RosterRead(roster("a", "b", revoked=("b",), serial=2)), now=1.0)
    left = [Received(TOPICS.status(name), status(name).payload, True) for name in ("a", "b", "c")]
    assert [(a.topic, a.payload) for a in of(steps(coordinator, *left, now=2.0), Publish)] == [
        (TOPICS.status("b"), b"")
    ]
