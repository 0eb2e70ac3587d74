"""What a device whose updates are masked says of itself: nothing that its examples decide, from its first message on.

Every event that a session knows is tried at every stage of a round, and all that is published is read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import msgspec
import pytest
from keyed import receipt_of, sealed, signed_round
from machines import PARAMS, STATUS, TOPICS, feed, last, model_parts, of, serve
from masked_device import MASKED, device, hear, masked_round
from masked_rounds import MANIFEST, helper_keys, vector

from edgefl.device.events import (
    Approved,
    DataStamp,
    Event,
    Failed,
    Noticed,
    NotKept,
    Outbox,
    Pause,
    StartTraining,
    Trained,
    Unable,
)
from edgefl.device.owner.policy import OPEN
from edgefl.device.seen import Seen
from edgefl.machine import Connected, Disconnected, Flow, Publish, Received, Sent, Stop, Tick, WallTime
from edgefl.masking.update import mask
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.inbox import Judge
from edgefl.protocol.messages import Status, decode
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.trust.ed25519 import fingerprint

N, STEPS, LOSS, MS, HELD = 7_654_321, 4_321_987, 0.7654321, 9_876_543, 1_357_911
TOLD = re.compile("|".join(("7.?654.?321", "4.?321.?987", "7654321", "9.?876.?543", "1.?357.?911")))
PLAIN = UpdateHeader(N, STEPS, LOSS, MS, 99, HELD, LOSS, 0.5).to_bytes() + PARAMS.tobytes()
SCORES = UpdateHeader(0, 0, 0.0, 0, 99, HELD, LOSS, 0.5).to_bytes()
REASON = f"x has {N} examples, {N:,} of them wrong; training reached a loss of {LOSS} in {STEPS} steps and {MS} ms"
NORTH = helper_keys()
AGREED = Seen(1, 1, helpers={"north": (1, fingerprint(NORTH.box_public + NORTH.signing.public))})  # at an earlier start


def masked_blob(round) -> bytes:
    terms = Terms.read(round.terms)
    return UpdateHeader.masked().to_bytes() + mask(vector(terms, "a"), terms, "a", None)


def finish(session, out, blob: bytes | None = None) -> list:
    """What the host's training gives, if it was asked for one."""
    starts = of(out, StartTraining)
    if not starts:
        return []
    return feed(session, Trained(starts[-1].job, blob or masked_blob(starts[-1].job.round), norm=LOSS))


# From where a device knows that all is masked: its owner, the first round, or an earlier start.
KNOWN = {"owner": (MASKED, None), "round": (OPEN, None), "start": (OPEN, AGREED)}
STAGES = ("connected", "fetching", "training", "reporting", "counted", "rejected", "abandoned", "given up")


def at(stage: str, policy, seen) -> tuple:
    """A session at this stage of a masked round, and all that it has done until then."""
    session, out = device(policy, seen, num_examples=N)
    if stage == "connected":
        return session, out
    round = masked_round()
    if stage == "fetching":
        return session, out + feed(session, sealed(TOPICS.round, round))
    more = hear(session, round)
    out += more
    assert of(more, StartTraining)
    if stage == "given up":
        return session, out + feed(session, Failed(of(more, StartTraining)[-1].job, REASON, "policy", final=True))
    if stage == "training":
        return session, out
    out += finish(session, more)
    if stage in ("counted", "rejected"):
        out += feed(session, receipt_of(stage))
    if stage == "abandoned":  # and opened again under the next number, on the same model
        out += (more := hear(session, masked_round(2)))
        out += finish(session, more)
    return session, out


def judge() -> Received:
    round = signed_round(1, manifest=MANIFEST, mode="evaluate")
    return sealed(TOPICS.inbox("a"), Judge(round))


def plain(mode: str) -> Received:
    return sealed(TOPICS.round, signed_round(7, manifest=MANIFEST, mode=mode, late_rounds=6))


EVENTS: dict[str, list] = {
    "connected": [Disconnected(), Connected(boot=9)],
    "asked": [sealed(TOPICS.manifest, MANIFEST)],
    "paused": [Pause("its owner's wish"), Pause("")],
    "unable": [Unable(REASON, "data", num_examples=N), Unable("", num_examples=N)],
    "labels": [Unable(REASON, "labels")],
    "noticed": [Noticed(REASON), Disconnected(), Connected(boot=9)],
    "not kept": [NotKept("no space left")],
    "stamped": [DataStamp(5)],
    "approved": [Approved(frozenset({"f" * 64}))],
    "time": [WallTime(2e9), Tick(), Flow(1000, 0, 0, 0, 10.0, 10.0, 60.0), Tick()],
    "acknowledged": [Sent(1, True)],
    "asked to judge": [judge()],
    "stopped": [Stop()],
    "a plain round": [plain("train")],
    "an evaluation": [plain("evaluate")],
    "a profile": [plain("profile")],
    "masked again": [sealed(TOPICS.round, masked_round(8))],
}
PLAIN_ROUNDS = ("a plain round", "an evaluation", "a profile", "asked to judge")  # which a device with no word of its
# owner's takes part in


def test_every_event_is_tried():
    tried = {type(event) for events in EVENTS.values() for event in events} | {Trained, Failed}
    assert tried == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("policy", "seen"), [(MASKED, None), (OPEN, None), (OPEN, AGREED)], ids=["owner", "round", "start"]
)
def test_i36_nothing_that_leaves_tells_of_the_examples(policy, seen, stage, event):
    if policy is OPEN and event in PLAIN_ROUNDS:
        pytest.skip("its owner lets it")
    session, out = at(stage, policy, seen)
    for each in EVENTS[event]:
        more = serve(session, feed(session, each), model_parts(0))
        out += more
        if starts := of(more, StartTraining):
            mode = starts[-1].job.round.mode
            blob = {"evaluate": SCORES, "profile": PLAIN}.get(mode) or (None if starts[-1].job.round.terms else PLAIN)
            out += finish(session, more, blob)
            out += feed(session, Failed(starts[-1].job, REASON, "data"))
    silent(out)


def silent(actions) -> None:
    """Nothing of it is in any status, and no update tells more than that it is masked."""
    published = of(actions, Publish)
    for each in published:
        assert each.topic.startswith((STATUS, TOPICS.update("a", 1, 0).rpartition("/u/")[0])), each.topic
        if each.topic == STATUS:
            status = decode(Status, each.payload)
            assert status.num_examples == 0 and not TOLD.search(each.payload.decode()), each.payload
        elif each.payload:
            header = first_part(each.payload)
            assert header is None or msgspec.structs.replace(header, size=UpdateHeader.SIZE) == UpdateHeader.masked()
    assert any(each.topic == STATUS for each in published)


def first_part(payload: bytes) -> UpdateHeader | None:
    envelope = Envelope.from_bytes(payload)
    assert envelope.kind is Kind.UPDATE
    return None if envelope.part else UpdateHeader.from_bytes(bytes(envelope.data) + bytes(2**16))


def test_i36_a_saved_plain_update_tells_nothing_at_any_stage_of_a_start():
    for round in (masked_round(), signed_round(1, manifest=MANIFEST), masked_round(2)):
        session, out = device(MASKED, outbox=Outbox(MANIFEST.id, 1, 0, PLAIN, attempt=1), num_examples=N)
        out += hear(session, msgspec.structs.replace(round, late_rounds=4, unearned=["a"]))
        out += feed(session, Disconnected(), Connected(boot=9), Tick())
        silent(out)


def test_i36_a_device_with_too_much_work_does_not_say_on_how_many_examples_before_it_knows_the_rounds():
    _, out = device(replace(OPEN, max_flops=10.0), num_examples=N)
    status = last(out, Status, STATUS)
    assert (status.state, status.code) == ("trouble", "policy") and "FLOPs" in status.reason
    silent(out)


def test_a_device_in_plain_rounds_tells_its_number_once_one_has_opened():
    session, out = device(OPEN, num_examples=N)
    assert last(out, Status, STATUS).num_examples == 0
    profile = feed(session, sealed(TOPICS.round, signed_round(1, manifest=MANIFEST, mode="profile", cohort=[])))
    assert all(status.num_examples == 0 for status in statuses(profile)), "which comes before masked rounds, too"
    out = feed(session, sealed(TOPICS.round, signed_round(2, manifest=MANIFEST, cohort=[])))
    assert last(out, Status, STATUS).num_examples == N
    out = feed(session, Unable(REASON, "data"))
    assert f"{N}" in last(out, Status, STATUS).reason


def statuses(actions) -> list[Status]:
    return [decode(Status, action.payload) for action in of(actions, Publish, STATUS)]


def test_a_reason_without_its_numbers_still_says_what_is_wrong():
    session, _ = device()
    out = feed(session, Unable("its data can't be used: x has 1,204 examples and y 1203.", "data"))
    assert last(out, Status, STATUS).reason == "its data can't be used: x has # examples and y #."
