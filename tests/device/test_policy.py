"""The owner's policy: which manifests a device refuses, and what it says; what asks and waits; what is clipped."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from machines import (
    MANIFEST,
    PARAMS,
    PLAN,
    STATUS,
    P,
    feed,
    give,
    last,
    make_manifest,
    make_round,
    make_session,
    of,
    serve,
)

from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Trainer
from edgefl.device.events import Approved, DataStamp, Failed, SavePlan, StartTraining, TrainJob
from edgefl.device.owner.effort import flops_of, steps_of
from edgefl.device.owner.policy import OPEN, STRICT, OwnersWord, Policy
from edgefl.device.training import train_update
from edgefl.errors import PolicyError
from edgefl.machine import Connected, Subscribe, Tick
from edgefl.protocol.approval import plan_id
from edgefl.protocol.messages import Status
from edgefl.protocol.trouble import CODES, Trouble
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import TrainSettings

ID = plan_id(MANIFEST)
OTHER = make_manifest(local_mode="gradient")
ASKING = dataclasses.replace(OPEN, plans="ask")


def manifest_of(**train):
    return make_manifest(train=TrainSettings(**train))


def told(actions) -> Status:
    return last(actions, Status, STATUS)


def device(policy: Policy, approved=frozenset(), **options):
    session = make_session(owner=OwnersWord(policy, approved), **options)
    feed(session, Connected(boot=7))
    return session


def offered(policy: Policy, manifest=MANIFEST, approved=frozenset()):
    """A device that has heard of the manifest and an open round, and all that it did."""
    session = device(policy, approved)
    return session, give(session, manifest) + give(session, make_round(manifest=manifest))


def trains(session, actions) -> bool:
    return bool(of(serve(session, actions), StartTraining))


# The manifest's settings


@pytest.mark.parametrize(
    ("policy", "manifest", "says"),
    [
        (Policy(max_epochs=50), manifest_of(epochs=10_000), "10000 epochs, at most 50"),
        (Policy(max_lr=10), manifest_of(lr=1e6), "lr is 1e+06, at most 10"),
        (Policy(allow_gradient=False), OTHER, 'local_mode "gradient"'),
        (Policy(allow_full_batch=False), manifest_of(batch_size="all"), 'batch_size "all"'),
        (Policy(max_flops=1e6), manifest_of(epochs=100), "with 5 examples, at most 1e"),
    ],
)
def test_i20_a_manifest_beyond_a_bound_is_refused_at_once_and_the_status_says_why(policy, manifest, says):
    session, out = offered(policy, manifest)
    status = told(out)
    assert (status.state, status.code) == ("trouble", "policy") and says in status.reason
    assert not trains(session, out) and session.terms is None
    out = give(session, MANIFEST) + give(session, make_round(round=2))
    assert told(out).state == "ready" and trains(session, out), "the next manifest is within the bounds"


def test_an_open_policy_refuses_nothing():
    for manifest in (MANIFEST, OTHER, manifest_of(epochs=10_000, lr=1e6, batch_size="all")):
        session, out = offered(OPEN, manifest)
        assert trains(session, out) and not of(out, SavePlan)
    assert OPEN.of_update(manifest_of(batch_size="all"), 1) == ""


def test_codes_are_known():
    assert {"policy", "plan"} <= set(CODES)
    assert Trouble.of(PolicyError("no")) == Trouble("policy", "no")


# Plans


def test_a_plan_that_was_not_approved_waits_and_trains_once_it_is():
    session, out = offered(ASKING)
    status = told(out)
    assert (status.state, status.code) == ("trouble", "plan") and ID[:32] in status.reason
    (saved,) = of(out, SavePlan)
    assert (saved.plan, saved.approved) == (ID, False) and "dense 99x10" in saved.words
    assert not trains(session, out)
    assert not trains(session, feed(session, Approved(frozenset({"f" * 64})))), "another plan's approval"
    out = feed(session, Approved(frozenset({"f" * 64, ID})))
    assert told(out).state in ("ready", "training") and trains(session, out)


def test_an_approval_that_is_taken_back_stops_the_work():
    session, out = offered(ASKING, approved=frozenset({ID}))
    assert trains(session, out)
    out = feed(session, Approved(frozenset()))
    assert told(out).code == "plan" and session.work is None


def test_an_approval_before_there_is_a_manifest_is_kept():
    session = device(ASKING)
    assert feed(session, Approved(frozenset({ID}))) == []
    assert trains(session, give(session, MANIFEST) + give(session, make_round()))


def test_pinned_plans_are_those_of_the_configuration_alone():
    pinned = Policy(plans="pinned", approved=frozenset({ID}))
    session, out = offered(pinned)
    assert trains(session, out) and not of(out, SavePlan)
    session, out = offered(pinned, OTHER, approved=frozenset({plan_id(OTHER)}))
    assert (told(out).code, session.terms) == ("policy", None) and plan_id(OTHER)[:32] in told(out).reason
    assert [saved.approved for saved in of(out, SavePlan)] == [False], "the owner can see what was refused"


def test_the_first_plan_is_taken_and_another_waits():
    policy = Policy(plans="first")
    session, out = offered(policy)
    (saved,) = of(out, SavePlan)
    assert saved.approved and trains(session, out)
    out = give(session, OTHER) + give(session, make_round(round=2, manifest=OTHER))
    assert told(out).code == "plan" and not trains(session, out)
    session, out = offered(policy, OTHER, approved=frozenset({ID}))
    assert told(out).code == "plan", "after a restart too"


def test_params_that_were_to_stay_here_do_not_leave_without_a_new_approval():
    masked, other = (make_manifest(personal=[index], requires=["personal"]) for index in (1, 0))
    session, out = offered(ASKING, masked, frozenset({plan_id(masked)}))
    assert trains(session, out)
    for wants_more in (MANIFEST, other):
        out = give(session, wants_more) + give(session, make_round(round=2, manifest=wants_more))
        assert told(out).code == "plan" and not trains(session, out)
    session, out = offered(Policy(plans="pinned", approved=frozenset({ID})), masked)
    assert trains(session, out), "an approval that lets all params leave lets a part of them"


def test_the_same_plan_with_other_settings_needs_no_new_approval():
    session, out = offered(ASKING, manifest_of(lr=0.01, epochs=3), approved=frozenset({ID}))
    assert trains(session, out)


def test_an_approval_of_the_first_plan_that_is_taken_back_stays_taken_back():
    session, out = offered(Policy(plans="first"))
    assert trains(session, out)
    out = feed(session, Approved(frozenset()))
    assert session.terms is None and told(out).code == "plan" and not any(s.approved for s in of(out, SavePlan))
    give(session, manifest_of(lr=0.2))
    assert session.terms is None, "it was the first plan once"
    feed(session, Approved(frozenset({ID})))
    assert session.terms is not None


def test_an_approval_while_a_plan_is_offered_that_the_core_refuses_ends_nothing():
    broken = [msgspec.structs.replace(PLAN.nodes[0], op="relu"), *PLAN.nodes[1:]]
    session, _ = offered(STRICT, make_manifest(plan=msgspec.structs.replace(PLAN, nodes=broken)))
    feed(session, Approved(frozenset({ID})))
    assert session.terms is None
    give(session, manifest_of(epochs=2))
    assert session.terms is not None


# Data and work


@pytest.mark.parametrize(
    ("policy", "train", "n", "says"),
    [
        (Policy(min_examples=10), {}, 9, "9 examples, at least 10"),
        (Policy(min_examples=10, min_steps=2), {"batch_size": 1, "max_steps": 2}, 500, "2 examples, at least 10"),
        (Policy(min_steps=3), {"batch_size": 10}, 20, "2 steps, at least 3"),
        (Policy(min_steps=3), {"batch_size": 1, "max_steps": 2}, 20, "2 steps, at least 3"),
        (Policy(allow_full_batch=False), {"batch_size": 20, "epochs": 3}, 20, "one step sees all 20 examples"),
        (Policy(max_flops=3 * 1980 * 40 - 1), {"epochs": 2}, 20, "with 20 examples"),
    ],
)
def test_work_on_too_little_or_too_much_is_refused_with_numbers(policy, train, n, says):
    manifest = manifest_of(**train)
    with pytest.raises(PolicyError, match=says):
        policy.check_update(manifest, n)
    OPEN.check_update(manifest, n)


@pytest.mark.parametrize(
    ("policy", "train", "n"),
    [
        (Policy(min_examples=10, min_steps=2), {"batch_size": 10}, 11),
        (Policy(allow_full_batch=False), {"batch_size": 10}, 11),
        (Policy(max_flops=3 * 1980 * 40), {"epochs": 2}, 20),
    ],
)
def test_work_at_the_bound_is_done(policy, train, n):
    policy.check_update(manifest_of(**train), n)


def test_steps_and_flops_are_counted_as_documented():
    assert steps_of(manifest_of(epochs=3, batch_size=10), 25) == 9
    assert steps_of(manifest_of(epochs=3, batch_size="all"), 25) == 3
    assert steps_of(manifest_of(epochs=3, batch_size=10, max_steps=4), 25) == 4
    assert steps_of(OTHER, 25) == 1
    forward = 2 * 99 * 10  # multiply-adds of the one layer
    assert flops_of(manifest_of(epochs=3, batch_size=10), 20) == 3 * forward * 60
    assert flops_of(manifest_of(epochs=3, batch_size=10, max_steps=1), 20) == 3 * forward * 10
    assert flops_of(OTHER, 20) == 3 * forward * 20


def test_a_device_refused_by_its_data_says_so_and_tries_again_later():
    session, out = offered(OPEN)
    (start,) = of(serve(session, out), StartTraining)
    out = feed(session, Failed(start.job, "refused by this device's owner: few", "policy"), now=1.0)
    assert (told(out).state, told(out).code) == ("trouble", "policy")
    assert session.wake_at is not None


def test_data_that_were_refused_are_not_fetched_for_again_until_they_change():
    session, out = offered(OPEN)
    (start,) = of(serve(session, out), StartTraining)
    reason = "refused by this device's owner: an update of 3 examples, at least 10 must be behind it"
    feed(session, Failed(start.job, reason, "policy", unfit=7), now=1.0)
    out = give(session, make_round(round=2, version=1), now=400.0)
    assert not of(out, Subscribe) and not of(out, StartTraining)
    assert session.status.trouble == Trouble("policy", reason) and session.work is None
    out = feed(session, DataStamp(8), now=401.0) + give(session, make_round(round=3, version=1), now=800.0)
    assert of(out, StartTraining) and session.status.trouble is None
    feed(session, DataStamp(7), now=801.0)
    manifest = manifest_of(lr=0.2)
    out = give(session, manifest, now=802.0) + give(session, make_round(round=4, manifest=manifest), now=802.0)
    assert of(out, StartTraining), "another manifest may allow it"


@pytest.mark.parametrize("deadline_s", [0.001, 60.0])
def test_a_round_that_took_too_long_is_not_trained_again_however_short_its_deadline(deadline_s):
    session = device(OPEN)
    round = make_round(deadline_s=deadline_s)
    (start,) = of(serve(session, give(session, MANIFEST) + give(session, round)), StartTraining)
    feed(session, Failed(start.job, "refused by this device's owner: too long", "policy", final=True), now=1.0)
    out = feed(session, Tick(), now=1000.0) + give(session, round, now=1001.0)
    assert not of(out, StartTraining)
    assert of(give(session, make_round(round=2), now=1002.0), StartTraining), "another round may be shorter"


# What leaves


def update(policy, **train):
    manifest = manifest_of(**train)
    job = TrainJob(manifest, make_round(manifest=manifest), params_to_bytes(PARAMS), 0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 99)).astype(np.float32), rng.integers(0, 10, 40)
    made = train_update(Trainer(PLAN), job, "a", x, y, policy=policy)
    return made, manifest.update_codec.decode(made.blob[UpdateHeader.from_bytes(made.blob).size :], P)


def test_a_delta_beyond_the_clip_is_scaled_and_the_ledger_is_told():
    free, whole = update(OPEN)
    made, delta = update(Policy(clip=0.1))
    assert np.linalg.norm(whole) > 0.2 and free.clipped_from == 0
    assert 0.0999 < np.linalg.norm(delta.astype(np.float64)) <= 0.1
    np.testing.assert_allclose(delta / np.linalg.norm(delta), whole / np.linalg.norm(whole), atol=1e-5)
    assert made.norm == pytest.approx(0.1, rel=1e-4) and made.clipped_from == pytest.approx(free.norm)


def test_a_delta_within_the_clip_is_sent_bit_for_bit():
    assert np.array_equal(update(Policy(clip=1e6))[1], update(OPEN)[1])


def test_training_that_the_policy_refuses_never_begins(monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(PolicyError):
        update(STRICT, batch_size=40)
