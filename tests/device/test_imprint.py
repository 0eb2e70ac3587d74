"""The imprint attack works on a device without a policy, and what each part of the policy does about it."""

from __future__ import annotations

import dataclasses

import imprint
import numpy as np
import pytest
from machines import make_manifest, make_round

from edgefl import data
from edgefl.core.params import params_to_bytes
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.device.events import TrainJob
from edgefl.device.owner.policy import OPEN, STRICT, OwnersWord, Policy
from edgefl.device.training import train_update
from edgefl.errors import PolicyError
from edgefl.protocol.approval import plan_id, room
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import TrainSettings

pytest.importorskip("sklearn")
INPUTS, CLASSES, N = 64, 10, 280
UNITS = 1000
PLAN = imprint.plan(INPUTS, UNITS, CLASSES)
FROZEN, _ = PLAN.freeze(["v", "c"])  # an attacker's choice: what changes is the first layer alone
BEHIND = Plan(  # a layer that passes the input on, and is not trained, before the wide one
    [INPUTS],
    [
        Node("dense", [0], [4]), Node("relu", [1]),
        Node("dense", [2], [0, 1]), Node("relu", [3]), Node("dense", [4], [2, 3]),
    ],
    [*PLAN.params, Param("e", [INPUTS, INPUTS], False)],
    "cross_entropy", 5, 5,
)  # fmt: skip
ONE_STEP = {"batch_size": "all", "lr": 10.0}
MANY_STEPS = {"batch_size": 10, "lr": 0.1}


@pytest.fixture(scope="module")
def digits():
    """A device's own examples and labels, and examples of others, which the attacker has."""
    found = data.load("digits")
    x = found.x_train.reshape(-1, INPUTS).astype(np.float32)
    return x[:N], found.y_train[:N], x[N:]


def attack(digits, plan, policy: Policy, *, strength=1.0, local_mode="sgd", **train) -> float:
    """The share of the device's examples that its update gives away; PolicyError if it makes none."""
    x, y, like = digits
    units = plan.params[0].shape[1]
    manifest = make_manifest(plan=plan, train=TrainSettings(**train), local_mode=local_mode)
    params = imprint.params(INPUTS, units, CLASSES, like)
    params[(INPUTS + 1) * units :] *= strength
    if plan is BEHIND:
        params = np.concatenate([params, np.eye(INPUTS, dtype=np.float32).ravel()])
    job = TrainJob(manifest, make_round(manifest=manifest), params_to_bytes(params), 0)
    refusal, _ = OwnersWord(policy).on_manifest(manifest, N)
    if refusal is not None:
        raise PolicyError(refusal.text)
    blob = train_update(Trainer(plan, batch=128), job, "a", x, y, policy=policy).blob
    delta = manifest.update_codec.decode(blob[UpdateHeader.from_bytes(blob).size :], plan.num_params)
    return imprint.share(imprint.recover(delta, INPUTS, units), x)


@pytest.mark.parametrize(
    "how",
    [
        ONE_STEP,
        {**ONE_STEP, "plan": BEHIND},
        {"local_mode": "gradient"},
        {**MANY_STEPS, "plan": FROZEN, "strength": 10},
    ],
)
def test_without_a_policy_one_update_gives_most_examples_away(digits, how):
    assert attack(digits, how.get("plan", PLAN), OPEN, **{k: v for k, v in how.items() if k != "plan"}) > 0.6


@pytest.mark.parametrize("plan", [PLAN, FROZEN])
@pytest.mark.parametrize("how", [ONE_STEP, MANY_STEPS])
def test_i20_an_imprint_plan_is_refused_where_plans_are_pinned_or_asked_for(digits, plan, how):
    honest = plan_id(make_manifest())
    for policy in (
        Policy(plans="pinned", approved=frozenset({honest})),
        Policy(plans="ask", approved=frozenset({honest})),
        Policy(plans="first", approved=frozenset({honest})),
    ):
        with pytest.raises(PolicyError, match=f"plan {plan_id(make_manifest(plan=plan))[:32]}"):
            attack(digits, plan, policy, **how)


def test_the_owner_is_told_how_much_room_such_a_plan_has():
    assert min(room(PLAN), room(FROZEN), room(BEHIND)) >= UNITS


def test_what_first_leaves_open_is_the_first_plan(digits):
    policy = dataclasses.replace(STRICT, plans="first")
    assert attack(digits, FROZEN, policy, strength=10, **MANY_STEPS) > 0.6


ANY = dataclasses.replace(STRICT, plans="any")


@pytest.mark.parametrize("how", [ONE_STEP, {"local_mode": "gradient"}, {"batch_size": 280, "lr": 10.0}])
def test_the_forms_that_reveal_most_are_refused_by_the_bounds_alone(digits, how):
    with pytest.raises(PolicyError):
        attack(digits, PLAN, ANY, **how)


def test_bounds_without_approval_do_not_stop_a_plan_that_is_made_for_it(digits):
    """Many small steps add up to the same: why the plan is what an owner has to approve."""
    assert attack(digits, FROZEN, ANY, strength=10, **MANY_STEPS) > 0.6


def test_a_narrow_plan_gives_little_away_whatever_its_params_are(digits):
    narrow = imprint.plan(INPUTS, 32, CLASSES)
    for strength in (1, 10, 100):
        assert attack(digits, narrow, ANY, strength=strength, **MANY_STEPS) < 0.05
