"""A device fetches what no training changes once: kept over restarts, believed by its SHA-256, else fetched again."""

from __future__ import annotations

import frozen
import msgspec
import numpy as np
import pytest
from frozen import FROZEN, MANIFEST, MOVED, PARAMS, a_round, publish
from machines import feed, give, last, make_session, of
from machines import serve as serve_messages

from edgefl.core.params import params_to_bytes
from edgefl.device.events import Failed, KeepBase, StartTraining
from edgefl.machine import Connected, Disconnected, Received, Subscribe, Tick
from edgefl.protocol.manifest import Base
from edgefl.protocol.messages import Status
from edgefl.protocol.topics import BASE_SLOT

STATUS = "edgefl/2/tiny/d/a/status"
NUMBERS = params_to_bytes(FROZEN)


def serve(machine, actions, retained, now=0.0) -> list:
    return serve_messages(machine, actions, [Received(part.topic, part.payload) for part in retained], now)


def session(base=b"", manifest=MANIFEST, **options):
    made = make_session(base=base, **options)
    feed(made, Connected(boot=1))
    give(made, manifest)
    return made


def slots(actions) -> list[int]:
    """Of the parts that were asked for."""
    topics = [topic for action in of(actions, Subscribe) for topic in action.topics if "/model/" in topic]
    return [int(topic.split("/")[-2]) for topic in topics]


def trained_from(actions) -> bytes:
    (start,) = of(actions, StartTraining)
    return start.job.params


def test_it_comes_first_is_kept_and_is_in_the_model():
    machine = session()
    out = serve(machine, give(machine, a_round()), publish())
    asked = slots(out)
    assert asked == sorted(asked, reverse=True) and {BASE_SLOT, 0} == set(asked)
    (kept,) = of(out, KeepBase)
    assert (kept.sha256, kept.numbers) == (MANIFEST.base.sha256, NUMBERS)
    assert trained_from(out) == params_to_bytes(PARAMS)


def test_later_models_come_without_it():
    machine = session()
    serve(machine, give(machine, a_round()), publish())
    later = PARAMS + MOVED
    out = serve(machine, give(machine, a_round(2, 1, params=later)), publish(1, params=later))
    assert trained_from(out) == params_to_bytes(later)
    assert BASE_SLOT not in slots(out) and not of(out, KeepBase)


def test_a_device_that_starts_again_has_it():
    machine = session(base=NUMBERS)
    out = serve(machine, give(machine, a_round()), publish(base=False))
    assert trained_from(out) == params_to_bytes(PARAMS)
    assert BASE_SLOT not in slots(out)


@pytest.mark.parametrize("kept", [NUMBERS[:-1], NUMBERS[:-1] + b"\x01", NUMBERS[::-1], b"\x00"])
def test_one_that_was_damaged_on_disk_is_fetched_again(kept):
    machine = session(base=kept)
    out = serve(machine, give(machine, a_round()), publish())
    assert BASE_SLOT in slots(out) and of(out, KeepBase)[0].numbers == NUMBERS
    assert trained_from(out) == params_to_bytes(PARAMS)


def test_one_of_another_model_is_not_believed():
    """The broker holds the base of an earlier model of the same plan; then the right one."""
    other = publish(params=PARAMS + np.float32(1))
    stale = [part for part in other if f"/{BASE_SLOT}/" in part.topic]
    right = publish()
    machine = session()
    model = [part for part in right if f"/{BASE_SLOT}/" not in part.topic]
    out = serve(machine, give(machine, a_round()), [*stale, *model])
    assert not of(out, KeepBase) and not of(out, StartTraining)
    out = serve(machine, feed(machine, Tick(), now=3600.0), right, 3600.0)
    assert of(out, KeepBase) and trained_from(out) == params_to_bytes(PARAMS)


def test_a_connection_that_breaks_does_not_begin_it_anew():
    machine = session()
    asked = give(machine, a_round())
    parts = [Received(part.topic, part.payload) for part in publish()]
    base = [part for part in parts if f"/{BASE_SLOT}/" in part.topic]
    feed(machine, *base[:3])
    feed(machine, Disconnected())
    again = feed(machine, Connected(boot=2))
    wanted = {topic for action in of([*asked, *again], Subscribe) for topic in action.topics}
    assert {part.topic for part in base[:2]} <= wanted
    assert not {part.topic for part in base[:3]} & {t for a in of(again, Subscribe) for t in a.topics}
    assert trained_from(serve(machine, again, publish())) == params_to_bytes(PARAMS)


def test_a_newer_round_meanwhile_goes_on_with_it():
    machine = session()
    give(machine, a_round())
    parts = publish()
    base = [Received(part.topic, part.payload) for part in parts if f"/{BASE_SLOT}/" in part.topic]
    feed(machine, *base[:3])
    later = PARAMS + MOVED
    out = give(machine, a_round(2, 1, params=later))
    assert 0 not in slots(out)  # what has come counts
    out += feed(machine, *base[3:])
    out = serve(machine, out, publish(1, params=later))
    assert trained_from(out) == params_to_bytes(later)


def test_a_model_that_is_held_is_worth_as_much_as_the_base():
    """After a fetch from deltas that did not come to the digest, the keyframe needs no second base."""
    manifest = frozen.manifest_of(downlink="ecq")
    machine = session(manifest=manifest)
    serve(machine, give(machine, a_round(manifest=manifest)), publish(manifest=manifest))
    feed(machine, Disconnected(), Connected(boot=2))
    later = PARAMS + MOVED
    out = serve(machine, give(machine, a_round(3, 5, manifest, later)), publish(5, manifest, later, base=False))
    assert BASE_SLOT not in slots(out) and of(out, StartTraining)


@pytest.mark.parametrize("base", [Base([2]), Base([2], "0" * 64, 0), Base([2], "0" * 64, 10**7)])
def test_a_manifest_that_does_not_say_how_long_it_is_is_refused(base):
    machine = make_session()
    feed(machine, Connected(boot=1))
    out = give(machine, msgspec.structs.replace(MANIFEST, base=base))
    told = last(out, Status, STATUS)
    assert told.state == "trouble" and "frozen params" in told.reason


def test_a_training_that_failed_does_not_lose_it():
    machine = session()
    out = serve(machine, give(machine, a_round()), publish())
    (start,) = of(out, StartTraining)
    feed(machine, Failed(start.job, "no data"))
    later = PARAMS + MOVED
    out = serve(machine, give(machine, a_round(2, 1, params=later)), publish(1, params=later, base=False))
    assert trained_from(out) == params_to_bytes(later)
