"""Which models a device's files get, and what is fetched for them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from machines import (
    HASH,
    MANIFEST,
    PARAMS,
    STATUS,
    TOPICS,
    feed,
    give,
    last,
    make_manifest,
    make_model,
    make_round,
    make_session,
    model_parts,
    of,
    publish_model,
    received,
)
from machines import serve as serve_messages

from edgefl.coordinator.model.downlink import Payload
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.core.params import params_sha256, params_to_bytes
from edgefl.device.events import KeepModel, KeepSkeleton, NotKept, Pause, StartTraining, Unable
from edgefl.device.model.delivery import KEEP_AGAIN_S, RETRY_S, Wanted
from edgefl.device.owner.budget import Limits
from edgefl.device.owner.policy import OPEN, OwnersWord
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Subscribe, Tick, Unsubscribe, WallTime
from edgefl.protocol.inbox import Judge
from edgefl.protocol.manifest import SkeletonInfo
from edgefl.protocol.messages import Status, decode
from edgefl.protocol.topics import SKELETON_SLOT

BLOB = bytes(range(256)) * 2
WITH_SKELETON = make_manifest(skeleton=SkeletonInfo(hashlib.sha256(BLOB).hexdigest(), len(BLOB)))
OTHERS = ["b"]  # a cohort that this device is not in
HOUR = 3600.0


def skeleton_parts(blob=BLOB, federation=HASH) -> list[Publish]:
    return RetainedModel(TOPICS, WITH_SKELETON, federation).put([Payload(SKELETON_SLOT, 0, 0, blob)])


def serve(machine, actions, parts=(), now=0.0) -> list:
    """What is asked for comes, as far as it is among the retained `parts`."""
    return serve_messages(machine, actions, [Received(part.topic, part.payload) for part in parts], now)


def session(wanted=None, manifest=MANIFEST, **options):
    """A connected device that wants files, and has agreed to the manifest."""
    made = make_session(wanted=wanted or Wanted(HOUR), **options)
    return made, feed(made, Connected(boot=7)) + give(made, manifest)


def turn(machine, round, now=0.0, parts=()) -> list:
    """A round is announced, and what it asks for is served."""
    retained = [*publish_model(round.version, PARAMS + round.version), *parts]
    return serve(machine, give(machine, round, now=now), retained, now)


def a_round(version=0, **changes):
    return make_round(version + 1, version, params=PARAMS + version, **changes)


def kept(actions) -> list[int]:
    """The versions that were handed to the host."""
    found = of(actions, KeepModel)
    for action in found:
        assert hashlib.sha256(action.params).hexdigest() == action.round.model_sha256
    return [action.round.version for action in found]


def fetched(actions) -> list[str]:
    """Topics of models that were subscribed to."""
    return [topic for a in of(actions, Subscribe) for topic in a.topics if "/model/" in topic]


def test_a_model_that_is_fetched_for_a_round_is_kept_once_and_costs_nothing():
    plain = make_session()
    feed(plain, Connected(boot=7)), give(plain, MANIFEST)
    machine, _ = session()
    out, other = turn(machine, a_round()), turn(plain, a_round())
    assert kept(out) == [0] and of(out, StartTraining)
    own = (KeepModel, StartTraining)
    assert [a for a in out if not isinstance(a, own)] == [a for a in other if not isinstance(a, own)]
    assert kept(turn(machine, a_round())) == []


def test_a_device_that_no_round_asks_fetches_for_its_files_now_and_then():
    machine, _ = session()
    out = turn(machine, a_round(cohort=OTHERS))
    assert kept(out) == [0] and not of(out, StartTraining) and last(out, Status, STATUS) is None
    assert fetched(turn(machine, a_round(1, cohort=OTHERS), now=10.0)) == []
    assert machine.wake_at == HOUR
    parts = publish_model(1, PARAMS + 1)
    out = serve(machine, feed(machine, Tick(), now=HOUR), parts, HOUR)
    assert kept(out) == [1] and machine.work is None and machine.wake_at is None
    asked = turn(machine, a_round(2), now=HOUR + 1)  # now it is asked: the model comes anyway
    assert kept(asked) == [2] and of(asked, StartTraining)


def test_without_the_section_nothing_is_fetched():
    machine = make_session()
    feed(machine, Connected(boot=7)), give(machine, MANIFEST)
    assert fetched(turn(machine, a_round(cohort=OTHERS))) == [] and machine.wake_at is None


def test_after_a_restart_nothing_comes_twice():
    params = PARAMS + 3
    have = Wanted(HOUR, sha256=params_sha256(params), params=params_to_bytes(params))
    machine, _ = session(have)
    out = turn(machine, a_round(3, cohort=OTHERS))
    assert not fetched(out) and not kept(out) and machine.wake_at is None
    asked = turn(machine, a_round(3))
    assert not fetched(asked) and of(asked, StartTraining)  # it trains from what its files hold


def test_a_round_that_is_over_or_waited_for_names_an_accepted_model_too():
    for state in ("waiting", "done"):
        machine, _ = session()
        assert kept(turn(machine, a_round(4, state=state))) == [4]


def test_a_fetch_for_the_files_goes_on_into_a_round_that_asks():
    machine, _ = session()
    asked = fetched(give(machine, a_round(cohort=OTHERS)))
    assert len(asked) == 4
    assert fetched(give(machine, a_round())) == []  # what was asked for is still to come
    rest = [action for part in model_parts(0, PARAMS) for action in feed(machine, part)]
    assert of(rest, StartTraining) and kept(rest) == [0]


def test_a_candidate_that_canaries_judge_is_not_kept():
    machine, _ = session()
    turn(machine, a_round(cohort=OTHERS))
    candidate = make_round(1, 1, params=PARAMS + 1, mode="evaluate")
    out = feed(machine, received(TOPICS.inbox("a"), Judge(candidate)))
    out = serve(machine, out, publish_model(1, PARAMS + 1))
    assert of(out, StartTraining) and kept(out) == []


def test_the_owner_pauses_downloads_with_everything_else():
    machine, _ = session()
    feed(machine, Pause("off"))
    assert fetched(turn(machine, a_round(cohort=OTHERS))) == [] and machine.wake_at is None
    out = serve(machine, feed(machine, Pause("")), publish_model(0, PARAMS))
    assert kept(out) == [0]


def test_a_device_that_cannot_read_its_data_gets_models_still():
    machine, _ = session()
    feed(machine, Unable("its data can't be read", "data"))
    give(machine, a_round())  # it is asked, as far as the round knows
    out = give(machine, a_round())  # and again
    out += [action for part in model_parts(0, PARAMS) for action in feed(machine, part)]
    assert kept(out) == [0] and not of(out, StartTraining)


def test_a_device_that_trains_nothing():
    machine, out = session(Wanted(HOUR, trains=False))
    told = last(out, Status, STATUS)
    assert told.state == "paused" and "take the model" in told.reason
    out = turn(machine, a_round())
    assert kept(out) == [0] and not of(out, StartTraining)


def limited(**limits):
    machine, out = session(limits=Limits(**limits))
    return machine, out + feed(machine, WallTime(1_800_000_000.0 - 1_800_000_000 % 86400))


def test_the_byte_budget_holds_for_downloads_and_the_device_stays_ready():
    machine, _ = limited(per_day=60_000)
    out = turn(machine, a_round(cohort=OTHERS))
    assert fetched(out) == [] and kept(out) == []
    assert machine.wake_at is not None and machine.wake_at > 60.0
    assert not machine.status.sits_out
    machine, _ = limited(per_day=10_000_000)
    assert kept(turn(machine, a_round(cohort=OTHERS))) == [0]


def test_a_device_in_trouble_is_ready_again_in_time_though_a_model_for_its_files_never_comes():
    """Nobody opens a round that would bring another model, while all devices say that they can't be asked."""
    machine, _ = session(owner=OwnersWord(replace(OPEN, masked=True)))
    out = feed(machine, received(TOPICS.round, a_round(deadline_s=45.0)))
    assert last(out, Status, STATUS).code == "policy" and fetched(out)
    told = []
    while machine.wake_at <= 60.0:
        told += of(feed(machine, Tick(), now=machine.wake_at), Publish, STATUS)
    (status,) = told
    assert (decode(Status, status.payload).state, machine.work is not None) == ("ready", True)


def test_files_that_could_not_be_written_are_written_again():
    machine, _ = session()
    turn(machine, a_round(cohort=OTHERS))
    out = feed(machine, NotKept("no space"), now=5.0)
    told = last(out, Status, STATUS)
    assert (told.state, told.code, told.reason) == ("ready", "disk", "no space")
    assert machine.wake_at == 5.0 + KEEP_AGAIN_S and kept(feed(machine, Tick(), now=30.0)) == []
    out = feed(machine, Tick(), now=5.0 + KEEP_AGAIN_S)
    assert kept(out) == [0] and fetched(out) == []


def test_a_disk_that_goes_on_refusing_is_tried_less_and_less_often():
    machine, _ = session()
    turn(machine, a_round(cohort=OTHERS))
    now = 0.0
    for wait_s in (60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, HOUR, HOUR):
        feed(machine, NotKept("no space"), now=now)
        assert kept(feed(machine, Tick(), now=now + wait_s - 1)) == []
        now += wait_s
        assert kept(feed(machine, Tick(), now=now)) == [0]
    turn(machine, a_round(1, cohort=OTHERS), now=now + HOUR)  # the last files were written
    feed(machine, NotKept("no space"), now=now + HOUR)
    assert kept(feed(machine, Tick(), now=now + HOUR + KEEP_AGAIN_S)) == [1]


def test_the_params_of_the_files_are_not_held_beside_the_next_model():
    params = PARAMS.astype("<f4").tobytes()
    machine, _ = session(Wanted(HOUR, sha256=hashlib.sha256(params).hexdigest(), params=params))
    assert machine._part.models.held and not machine._part.delivery.wanted.params


# The skeleton


def with_file(**options):
    return session(Wanted(HOUR, file=True), WITH_SKELETON, **options)


def round_with(version=0, **changes):
    return make_round(version + 1, version, params=PARAMS + version, manifest=WITH_SKELETON, **changes)


def test_the_skeleton_comes_first_and_once():
    machine, _ = with_file()
    out = turn(machine, round_with(), parts=skeleton_parts())
    assert [action.blob for action in of(out, KeepSkeleton)] == [BLOB]
    order = [type(action) for action in out if isinstance(action, KeepModel | KeepSkeleton)]
    assert order == [KeepSkeleton, KeepModel]
    subscribed = {topic for topic in fetched(out)}
    ended = {topic for action in of(out, Unsubscribe) for topic in action.topics}
    assert subscribed == ended
    later = turn(machine, round_with(1), now=HOUR, parts=skeleton_parts())
    assert kept(later) == [1] and not of(later, KeepSkeleton)
    assert not [topic for topic in fetched(later) if f"/{SKELETON_SLOT}/" in topic]


def test_one_that_is_there_is_not_fetched():
    wanted = Wanted(HOUR, file=True, skeleton=hashlib.sha256(BLOB).hexdigest())
    machine, _ = session(wanted, WITH_SKELETON)
    out = turn(machine, round_with())
    assert kept(out) == [0] and not [topic for topic in fetched(out) if f"/{SKELETON_SLOT}/" in topic]


def test_a_device_without_a_file_never_asks_for_it():
    machine, _ = session(Wanted(HOUR), WITH_SKELETON)
    out = turn(machine, round_with())
    assert kept(out) == [0] and not [topic for topic in fetched(out) if f"/{SKELETON_SLOT}/" in topic]


def test_parts_that_do_not_come_are_asked_for_again():
    machine, _ = with_file()
    out = turn(machine, round_with(cohort=OTHERS))
    assert kept(out) == []
    again = feed(machine, Tick(), now=machine.wake_at)
    assert [topic for topic in fetched(again) if f"/{SKELETON_SLOT}/" in topic]
    feed(machine, Disconnected(), now=40.0)
    assert machine.wake_at is None
    out = feed(machine, Connected(boot=8), now=50.0)
    out = serve(machine, out, skeleton_parts(), 50.0)
    assert kept(out) == [0]


@pytest.mark.parametrize("wrong", [BLOB[::-1], BLOB[:-1], BLOB + b"x"], ids=["other", "shorter", "longer"])
def test_a_wrong_one_is_not_taken(wrong):
    machine, _ = with_file()
    out = turn(machine, round_with(cohort=OTHERS), parts=skeleton_parts(wrong))
    assert not of(out, KeepSkeleton) and kept(out) == []
    if len(wrong) == len(BLOB):
        assert any("skeleton" in note.text for note in of(out, Note))
        assert machine.wake_at == RETRY_S
    out = serve(machine, feed(machine, Tick(), now=RETRY_S), skeleton_parts(), RETRY_S)
    assert of(out, KeepSkeleton) and kept(out) == [0]


def test_one_of_another_run_is_not_read():
    machine, _ = with_file()
    assert not of(turn(machine, round_with(cohort=OTHERS), parts=skeleton_parts(federation=HASH ^ 1)), KeepSkeleton)


def test_without_one_the_params_are_kept():
    machine, _ = session(Wanted(HOUR, file=True), MANIFEST)
    assert kept(turn(machine, a_round(cohort=OTHERS))) == [0]


def test_any_order_of_events_keeps_what_the_newest_round_names():
    """Rounds, parts, pauses, outages and time in random order: the last round's model is kept in the end."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        machine, out = with_file()
        retained, now, version = [], 0.0, 0
        for _ in range(60):
            now += float(rng.choice([0.0, 1.0, 31.0, 700.0]))
            what = rng.integers(6)
            if what == 0:
                version += 1
                cohort = None if rng.random() < 0.3 else OTHERS
                retained = [*publish_model(version, PARAMS + version), *skeleton_parts()]
                out = give(machine, round_with(version, cohort=cohort), now=now)
            elif what == 1:
                out = feed(machine, Disconnected(), Connected(boot=8), now=now)
            elif what == 2:
                out = feed(machine, Pause("off" if rng.random() < 0.5 else ""), now=now)
            elif what == 3:
                out = feed(machine, NotKept("no space"), now=now)
            elif what == 4:
                out = feed(machine, Tick(), now=now)
            else:
                serve(machine, out, retained, now)
        feed(machine, Pause(""), now=now)
        final = []
        for _ in range(300):
            now += 31.0
            final += serve(machine, feed(machine, Tick(), now=now), retained, now)
        if version:
            final += turn(machine, round_with(version, cohort=OTHERS), now + 2 * HOUR, skeleton_parts())
            assert machine._part.delivery._have == make_model(version, PARAMS + version).sha256, seed
