"""A wire that can grow: a side that knows less than the other goes on, or says by name why it can't."""

from __future__ import annotations

import struct

import msgspec
import pytest
from machines import (
    BLOB,
    HASH,
    INBOX,
    MANIFEST,
    STATUS,
    TOPICS,
    commit_of,
    feed,
    last,
    make_model,
    make_session,
    make_update,
    model_parts,
    of,
    open_round,
    received,
    reporting,
    serve,
    status,
    update_parts,
    updates,
    word_to,
)

from edgefl.device.events import CancelTraining, DropUpdate, StartTraining, Trained
from edgefl.machine import Connected, Note, Received
from edgefl.protocol.envelope import Kind
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.protocol.manifest import manifest_id
from edgefl.protocol.messages import Status, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round


def grown(message, **fields) -> bytes:
    """The message as a newer version might write it."""
    return msgspec.json.encode(msgspec.json.decode(encode(message)) | fields)


NEWER = {"invented": {"deep": [1, {"er": None}]}}
NEWER_MANIFEST = grown(MANIFEST, **NEWER)


def round_for(manifest: bytes, number=1, **changes) -> Round:
    model = make_model()
    fields = {"model_sha256": model.sha256, "frames": model.frames, "deadline_s": 60.0} | changes
    return Round(manifest_id(manifest), "open", number, 1, 0, **fields)


def newer_round(manifest: bytes = NEWER_MANIFEST, number=1, **fields) -> bytes:
    """With an unknown field in itself, in its frames and in its cohort."""
    message = msgspec.json.decode(grown(round_for(manifest, number), **(NEWER | fields)))
    message["frames"] = [[*frame, "invented"] for frame in message["frames"]]
    message["cohort"] = {"seed": 1, "probability": 1.0, **NEWER}
    return msgspec.json.encode(message)


def hears(session, topic, payload, now=0.0):
    return feed(session, Received(topic, payload), now=now)


def test_a_device_serves_a_newer_aggregator():
    session = make_session()
    out = feed(session, Connected(boot=7)) + hears(session, TOPICS.manifest, NEWER_MANIFEST)
    out += hears(session, TOPICS.round, newer_round())
    (start,) = of(serve(session, out, model_parts()), StartTraining)
    sent = updates(feed(session, Trained(start.job, BLOB)))
    assert sent
    assert updates(hears(session, INBOX, grown(Missing(1, [0]), **NEWER))) == []  # it is under way
    assert "counted" in hears(session, INBOX, grown(Receipt(1, 1, "counted"), **NEWER))[0].text
    assert session.dropped == session.refused == 0
    assert of(hears(session, TOPICS.round, newer_round(number=2)), DropUpdate)


def test_the_manifest_of_a_newer_aggregator_keeps_its_id():
    """Hashed as it came: an id of what was understood would be another one, and the device idle for good."""
    session = make_session()
    feed(session, Connected(boot=7))
    hears(session, TOPICS.manifest, NEWER_MANIFEST)
    assert session.terms.manifest == MANIFEST
    assert session.terms.manifest.id == manifest_id(NEWER_MANIFEST) != MANIFEST.id
    assert not of(hears(session, TOPICS.round, encode(round_for(encode(MANIFEST)))), StartTraining)
    assert hears(session, TOPICS.manifest, NEWER_MANIFEST)[0].topic == STATUS  # its status answers a known manifest


FUTURE_MANIFEST = grown(MANIFEST, requires=["masks", "trees"], plan={"nothing": "known"}, codec=7)


def test_a_device_refuses_by_name_a_manifest_that_requires_what_it_does_not_know():
    session = make_session()
    feed(session, Connected(boot=7))
    out = hears(session, TOPICS.manifest, FUTURE_MANIFEST)
    shown = last(out, Status, STATUS)
    assert (shown.state, shown.code) == ("trouble", "manifest")
    assert shown.reason == "manifest refused: it requires masks, trees, which EdgeFL here does not know: update it"
    assert (session.refused, session.dropped) == (1, 0)
    assert hears(session, TOPICS.manifest, FUTURE_MANIFEST) == [], "said once"
    assert hears(session, TOPICS.round, encode(round_for(FUTURE_MANIFEST))) == [], (
        "idle, and no question for a manifest"
    )
    assert session.wake_at is None
    out = hears(session, TOPICS.manifest, encode(MANIFEST)) + hears(
        session, TOPICS.round, encode(round_for(encode(MANIFEST)))
    )
    assert of(serve(session, out), StartTraining), "and ready again with a manifest that it understands"


def test_a_manifest_that_is_refused_ends_what_was_done_for_the_one_before():
    session, _ = reporting()
    hears(session, TOPICS.manifest, FUTURE_MANIFEST)
    assert session.work is None
    out = hears(session, TOPICS.manifest, encode(MANIFEST))
    assert updates(out), "its update is saved, and sent once more"


FUTURE_ROUND = grown(round_for(encode(MANIFEST), 2), requires=["masks"], frames="unknown", state="paused")


@pytest.mark.parametrize("busy", [False, True])
def test_a_device_refuses_by_name_a_round_that_requires_what_it_does_not_know(busy):
    session = make_session()
    out = feed(session, Connected(boot=7)) + hears(session, TOPICS.manifest, encode(MANIFEST))
    if busy:
        out = serve(session, hears(session, TOPICS.round, encode(round_for(encode(MANIFEST)))))
        assert of(out, StartTraining)
    out = hears(session, TOPICS.round, FUTURE_ROUND)
    assert bool(of(out, CancelTraining)) is busy
    assert "round refused: it requires masks" in last(out, Status, STATUS).reason
    assert (session.refused, session.dropped) == (1, 0)
    assert [n.level for n in of(out, Note)] == ["error"]
    out = hears(session, TOPICS.round, encode(round_for(encode(MANIFEST), 3)))
    assert of(serve(session, out), StartTraining), "the next round is another matter"


def test_requirements_that_can_not_be_read_are_malformed():
    session = make_session()
    feed(session, Connected(boot=7))
    for count, bad in enumerate((grown(MANIFEST, requires="masks"), grown(MANIFEST, requires=["M\n"])), 1):
        assert "malformed" in hears(session, TOPICS.manifest, bad)[0].text
        assert session.dropped == count


def longer_header(blob: bytes) -> bytes:
    raw = bytearray(blob[:40] + b"invented" + blob[40:])
    struct.pack_into("<H", raw, 2, 48)
    return bytes(raw)


def test_an_aggregator_serves_a_newer_device():
    coordinator = open_round("a", "b")
    feed(coordinator, Received(TOPICS.status("c"), grown(Status("ready", 1, 5), **NEWER)))
    assert coordinator.presence.is_present("c")
    feed(coordinator, received(TOPICS.status("c"), Status("hibernating", 2)))
    assert not coordinator.presence.is_present("c"), "an unknown state is not there"
    out = feed(coordinator, *update_parts("a", longer_header(make_update(1.0))), now=1.0)
    assert word_to(out, "a").outcome == "counted"
    out = feed(coordinator, *update_parts("b", make_update(1.0)), now=1.0)
    assert commit_of(out).record.devices == ["a", "b"]


def test_a_header_that_has_not_grown_and_one_that_has_give_the_same_model():
    params = []
    for blob in (make_update(0.25), longer_header(make_update(0.25))):
        params.append(commit_of(feed(open_round("a"), *update_parts("a", blob), now=1.0)).params.tobytes())
    assert params[0] == params[1]


def test_side_vectors_have_a_kind_that_nobody_sends_yet():
    splitter = Splitter(b"v" * 100, 256, kind=Kind.SIDE, codec=1, federation=HASH, round=1, version=0)
    coordinator, session = open_round("a"), make_session()
    feed(coordinator, Received(TOPICS.update("a", 1, 0), splitter.part(0)), now=1.0)
    assert coordinator.dropped["a"] == 1
    feed(
        session,
        Connected(boot=7),
        received(TOPICS.manifest, MANIFEST),
        received(TOPICS.round, round_for(encode(MANIFEST))),
    )
    feed(session, Received(TOPICS.model(0, 0), splitter.part(0)))
    assert session.dropped == 1


def test_a_status_of_a_newer_version_is_answered_as_any_other():
    coordinator = open_round("a")
    feed(coordinator, status("b"), Received(TOPICS.status("b"), grown(Status("training", 1), **NEWER)))
    assert coordinator.presence.is_present("b") and not coordinator.dropped.total()
