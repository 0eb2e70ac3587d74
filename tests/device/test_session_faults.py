"""DeviceSession under faults: a network that comes and goes, an owner who pauses, bytes that are rubbish."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import (
    BLOB,
    FEDERATION,
    HASH,
    INBOX,
    MANIFEST,
    PARAMS,
    PLAN,
    STATUS,
    TOPICS,
    P,
    feed,
    fetching,
    give,
    last,
    make_manifest,
    make_model,
    make_round,
    make_session,
    make_update,
    model_parts,
    of,
    receipt,
    received,
    reporting,
    serve,
    training,
    update_parts,
    updates,
)

from edgefl.coordinator.model.downlink import Payload
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.device.events import CancelTraining, Failed, Pause, SaveUpdate, StartTraining, Trained, Unable
from edgefl.errors import UsageError
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Sent, Stop, Subscribe, Tick, Unsubscribe
from edgefl.protocol.envelope import Envelope, federation_hash
from edgefl.protocol.messages import Status

# The network


def test_reconnection_while_fetching_asks_for_what_is_due():
    session, out = fetching()
    feed(session, *model_parts()[:2])
    feed(session, Disconnected(), now=1.0)
    assert session.wake_at is None
    out = feed(session, Connected(boot=8), now=2.0)
    assert out[-1] == Subscribe(tuple(TOPICS.model(0, i) for i in (2, 3, 4, 5)))
    assert of(serve(session, out), StartTraining)


def test_reconnection_while_reporting_sends_what_was_in_flight_first():
    session, out = reporting()
    first = updates(out)
    feed(session, Sent(first[0].token, True))
    feed(session, Disconnected())
    assert feed(session, Sent(first[1].token, True)) == []
    again = updates(feed(session, Connected(boot=8), now=1.0))
    assert [p.topic for p in again] == [TOPICS.update("a", 1, part) for part in range(1, 11)]


def test_training_goes_on_without_a_connection():
    session, job = training()
    feed(session, Disconnected())
    out = feed(session, Trained(job, BLOB))
    assert of(out, SaveUpdate)
    assert not of(out, Publish)
    assert len(updates(feed(session, Connected(boot=8)))) == 10


def test_parts_that_do_not_come_are_asked_for_again():
    session, out = fetching()
    assert feed(session, Tick(), now=29.0) == []
    assert feed(session, Tick(), now=30.0) == [out[-1]]


def test_a_model_that_never_has_the_right_sha_is_fetched_again_with_patience():
    session, out = fetching()
    for minute in range(1, 4):
        out = serve(session, out, model_parts(params=PARAMS + 1), now=60.0 * minute)
        assert not of(out, StartTraining)
        assert "SHA-256" in of(out, Note)[-1].text
        assert session.wake_at == 60.0 * minute + 30
        out = feed(session, Tick(), now=60.0 * minute + 30)
        assert len(of(out, Subscribe)) == 1
    assert of(serve(session, out), StartTraining)


def test_a_model_replaced_while_it_is_fetched_is_fetched_again():
    session, out = fetching()
    mixed = [*model_parts(params=PARAMS + 1)[:3], *model_parts()[3:]]
    assert not of(serve(session, out, mixed), StartTraining)
    out = feed(session, Tick(), now=30.0)
    assert of(serve(session, out), StartTraining)


def test_foreign_parts_on_a_model_topic_are_dropped():
    session, _ = fetching()
    topic = TOPICS.model(0, 0)
    foreign = [model_parts()[1].payload, update_parts()[0].payload, b"rubbish"]
    for payload in foreign:
        assert "dropped" in feed(session, Received(topic, payload))[0].text
    assert session.dropped == 3


def other_payloads():
    """What else may lie in the slot of round 1's model, all of it honest."""
    keyframe = make_model(manifest=make_manifest(downlink="planes")).payloads[0]
    yield model_parts(version=1)[0].payload
    for change in ({"run": "1" * 16}, {"part_bytes": 512}, {"downlink": "planes"}):
        manifest = make_manifest(**change)
        hash = federation_hash(FEDERATION, manifest.run, PLAN.hash)
        (first, *_) = RetainedModel(TOPICS, manifest, hash).put(make_model(manifest=manifest).payloads)
        yield first.payload
    shorter = Payload(0, 0, 1, keyframe.blob[:-1])
    yield RetainedModel(TOPICS, MANIFEST, HASH).put([shorter])[0].payload


@pytest.mark.parametrize("other", range(5))
def test_a_part_of_another_payload_in_a_reused_slot_is_ignored_and_the_round_read_again(other):
    session, out = fetching()
    part = Received(TOPICS.model(0, 0), list(other_payloads())[other])
    assert feed(session, part) == [Subscribe((TOPICS.round,))]
    assert feed(session, part) == [], "once until patience ends"
    assert session.dropped == 0
    assert feed(session, Received(TOPICS.model(0, 1), part.payload[:-1]))[0].level == "warning"
    assert not of(give(session, make_round()), Subscribe), "it is the round that is known"
    assert of(serve(session, out), StartTraining), "the slot's own parts, which come after"


def test_a_round_that_is_read_again_and_is_another_one_is_fetched_from_its_own_slots():
    session, _ = fetching()
    late = make_model(1, PARAMS + 1)
    late.move(2)
    parts = [received(p.topic, p.payload) for p in RetainedModel(TOPICS, MANIFEST, HASH).put(late.payloads)]
    feed(session, Received(TOPICS.model(0, 0), parts[0].payload))
    out = give(session, make_round(2, 1, 2, params=PARAMS + 1, frames=late.frames))
    assert TOPICS.model_part(of(out, Subscribe)[0].topics[0]).slot > 0
    (start,) = of(serve(session, out, parts), StartTraining)
    assert start.job.params == (PARAMS + 1).tobytes()


# The owner


def test_pause_cancels_training_and_going_on_starts_it_again():
    session, job = training()
    out = feed(session, Pause("on battery"))
    assert of(out, CancelTraining)
    assert last(out, Status, STATUS) == Status("paused", 7, 5, "on battery")
    assert feed(session, Trained(job, BLOB)) == []
    assert not of(give(session, make_round(2, 0)), StartTraining)
    assert of(feed(session, Pause("")), StartTraining)


def test_a_data_source_that_hangs_is_told_and_nothing_is_trained_until_it_answers():
    session, _ = training()
    out = feed(session, Unable("its data source has not answered for 60 s"))
    assert of(out, CancelTraining) and of(out, Note)[0].level == "error"
    assert last(out, Status, STATUS) == Status("trouble", 7, 5, "its data source has not answered for 60 s", "hung")
    assert not of(give(session, make_round(2, 0)), StartTraining)
    assert feed(session, Tick(), now=1000.0) == []  # the reason stays, round after round
    out = feed(session, Unable(""), now=1001.0)
    assert of(out, StartTraining) and last(out, Status, STATUS) == Status("training", 7, 5)


def test_the_owners_pause_outlives_a_data_source_that_answers_again():
    session, _ = training()
    feed(session, Pause("on battery"), Unable("it hangs"))
    assert not of(feed(session, Unable("")), StartTraining)
    assert of(feed(session, Pause("")), StartTraining)


def test_pause_leaves_a_report_alone():
    session, _ = reporting()
    assert last(feed(session, Pause("on battery")), Status, STATUS).state == "paused"
    assert updates(feed(session, Tick(), now=session.wake_at))


def test_pause_while_fetching_leaves_no_subscription():
    session, out = fetching()
    assert of(feed(session, Pause("x")), Unsubscribe) == [Unsubscribe(out[-1].topics)]


def test_cancelled_training_is_ignored():
    session, job = training()
    give(session, make_round(2, 0))
    assert feed(session, Trained(job, BLOB)) == feed(session, Failed(job, "late")) == []
    assert session.work.round.round == 2


def test_stop_says_goodbye():
    session, _ = training()
    out = feed(session, Stop())
    assert of(out, CancelTraining)
    assert last(out, Status, STATUS).state == "disconnected"


# What is refused


def test_i20_a_model_above_the_owners_limit_is_refused_and_shown():
    session = make_session(max_model_bytes=4 * P - 1)
    feed(session, Connected())
    out = give(session, MANIFEST) + give(session, make_round())
    assert "raise [limits] max_model_mb" in last(out, Status, STATUS).reason
    assert not of(out, Subscribe)
    assert of(give(make_online(max_model_bytes=4 * P), MANIFEST), Note)[0].level == "info"


def make_online(**options):
    session = make_session(**options)
    feed(session, Connected())
    return session


@pytest.mark.parametrize(
    "bad", [{"codec": "gzip9"}, {"codec_options": {"level": 1}}, {"codec_options": {"max_bytes": "x"}}]
)
def test_a_manifest_that_cannot_be_followed_is_shown_until_one_that_can_comes(bad):
    session, _ = training()
    out = give(session, make_manifest(**bad))
    assert of(out, CancelTraining)
    assert last(out, Status, STATUS).reason.startswith("manifest refused")
    out = give(session, MANIFEST)
    assert last(out, Status, STATUS).state == "training"


def test_a_manifest_that_was_lost_on_the_way_is_asked_for_again():
    session = make_session()
    feed(session, Connected())
    ask = Subscribe((TOPICS.manifest,))
    assert of(give(session, make_round()), Subscribe) == [ask]
    assert of(give(session, make_round(2)), Subscribe) == [ask]
    assert ask not in give(session, MANIFEST)
    assert ask not in give(session, make_round(3))
    assert ask in give(session, make_round(4, manifest=make_manifest(run="1" * 16)))


def lacking():
    """A device that has been told of two rounds whose manifest has not come; what it has said."""
    session = make_session()
    feed(session, Connected())
    assert not of(give(session, make_round()), Publish), "it may be on its way"
    assert not of(give(session, make_round(attempt=2)), Publish), "nor is the same round another one"
    return session, last(give(session, make_round(2, attempt=2)), Status, STATUS)


def test_i07_a_device_says_that_the_manifest_has_not_come_by_the_second_round_that_names_it():
    """Seed 1005443: somebody had replaced the one that the broker keeps, and the others needed none."""
    session, said = lacking()
    assert (said.state, said.code) == ("trouble", "missing")
    assert not of(give(session, make_round(3, attempt=2)), Publish), "once"
    assert last(give(session, MANIFEST), Status, STATUS).state in ("ready", "training")
    other = make_manifest(run="1" * 16)
    assert not of(give(session, make_round(4, attempt=2, manifest=other)), Publish, STATUS)


@pytest.mark.parametrize("bad", [{"codec": "gzip9"}, {"run": "1" * 16}])
def test_the_manifest_in_its_place_is_not_gone_by(bad):
    """Else the device would say another thing of it in turn, and none would be published again."""
    session, _ = lacking()
    assert not of(give(session, make_manifest(**bad)), StartTraining) and session.terms is None
    assert session.status.trouble.code == "missing"
    assert last(give(session, MANIFEST), Status, STATUS).state in ("ready", "training")


def test_a_device_that_had_refused_the_manifest_which_rounds_name_again_says_so_again():
    refused, other = make_manifest(codec="gzip9"), make_manifest(run="1" * 16)
    session = make_session()
    feed(session, Connected())
    assert last(give(session, refused), Status, STATUS).code == "manifest"
    give(session, make_round(2, manifest=other))
    assert last(give(session, make_round(3, manifest=other)), Status, STATUS).code == "missing"
    out = give(session, make_round(4, manifest=refused))
    assert last(out, Status, STATUS).code == "manifest" and session.terms is None


def test_the_next_manifest_is_gone_by_though_one_in_between_has_never_come():
    session, _ = lacking()
    other = make_manifest(run="1" * 16)
    give(session, make_round(2, attempt=3, manifest=other, state="waiting"))
    assert last(give(session, other), Status, STATUS).state == "ready" and session.terms is not None


@pytest.mark.parametrize("state", ["done", "waiting"])
def test_rounds_that_are_not_open_need_no_manifest(state):
    session = make_session()
    feed(session, Connected())
    for number in (1, 2, 3):
        assert not of(give(session, make_round(number, state=state)), Publish, STATUS)


def test_a_device_whose_manifest_rounds_name_again_lacks_nothing():
    session, _ = training()
    other = make_manifest(run="1" * 16)
    give(session, make_round(2, manifest=other))
    assert last(give(session, make_round(3, manifest=other)), Status, STATUS).code == "missing"
    assert last(give(session, make_round(4, state="waiting")), Status, STATUS).state == "ready"


def test_a_manifest_that_was_refused_is_not_asked_for_again():
    session = make_session(max_model_bytes=100)
    feed(session, Connected())
    give(session, MANIFEST)
    assert (session.terms, of(give(session, make_round()), Subscribe)) == (None, [])


def test_manifest_of_another_federation_is_dropped():
    session = make_online()
    other = type(MANIFEST)("other", "0" * 16, MANIFEST.plan, MANIFEST.train)
    assert "federation 'other'" in give(session, other)[0].text
    assert (session.terms, session.dropped) == (None, 1)


def test_cleared_retained_messages_are_no_fault():
    session = make_online()
    assert feed(session, Received(TOPICS.round, b""), Received(TOPICS.manifest, b"")) == []
    assert session.dropped == 0


@pytest.mark.parametrize("bad", ["", ".A", "a/b", "+", "#", "a" * 65, "aggregator", "agg-tiny"])
def test_i18_bad_ids_are_refused(bad):
    with pytest.raises(UsageError):
        make_session(device=bad)


TOPIC_POOL = [
    TOPICS.manifest, TOPICS.round, INBOX, STATUS, TOPICS.model(0, 0), TOPICS.model(0, 3), TOPICS.model(9, 9),
    "edgefl/2/tiny/model/x/y", "\n", "",
]  # fmt: skip
REAL = [p.payload for p in (received("", MANIFEST), received("", make_round()), receipt(), *model_parts()[:3])]


@given(
    st.lists(st.tuples(st.sampled_from(TOPIC_POOL), st.binary(max_size=80) | st.sampled_from(REAL)), max_size=20),
    st.sampled_from([make_online, lambda: fetching()[0], lambda: training()[0], lambda: reporting()[0]]),
)
def test_i15_any_bytes_on_any_topic_never_raise_and_are_counted(messages, make):
    session = make()
    for topic, payload in messages:
        before = session.dropped
        out = feed(session, Received(topic, payload), now=1.0)
        notes = [n for n in of(out, Note) if n.level == "warning"]
        assert session.dropped - before == len([n for n in notes if n.text.startswith(repr(topic))])
        assert all(n.text.isprintable() for n in notes)


def test_i15_every_kind_of_rubbish_is_counted():
    session = training()[0]
    for count, topic in enumerate([TOPICS.manifest, TOPICS.round, INBOX, STATUS, "edgefl/2/tiny/model/x/y"], 1):
        feed(session, Received(topic, b"\0\xff"))
        assert session.dropped == count


def test_foreign_events_are_a_programming_error():
    with pytest.raises(TypeError, match="not expected here"):
        make_session().step(object(), 0.0)


def test_i07_a_manifest_that_comes_again_is_answered_with_the_presence():
    """Found by simulation: a late will of a connection that its device had forgotten hid the device for good."""
    session = fetching()[0]
    shown = Status("ready", 7, 5)
    assert last(give(session, MANIFEST), Status, STATUS) == shown
    feed(session, Disconnected())
    assert give(session, MANIFEST) == []


def test_federation_hash_is_in_every_part():
    _, out = reporting(blob=make_update(np.float32(1)))
    assert {Envelope.from_bytes(p.payload).federation for p in updates(out)} == {HASH}
