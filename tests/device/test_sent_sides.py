"""Side vectors of updates: what a manifest says of them, which of them a device refuses, and what its owner is told."""

from __future__ import annotations

import msgspec
import pytest
from machines import MANIFEST, fetching, give

from edgefl import load
from edgefl.device.owner.effort import flops_of
from edgefl.device.owner.policy import OPEN, STRICT
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.protocol.approval import approved_by, describe, plan_id
from edgefl.protocol.features import FEATURES
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode, encode
from edgefl.settings import Settings
from edgefl.strategies.local import LocalRule

MODEL = load(zoo.mlp([3, 1], seed=0))


def settings(**changes: object) -> Settings:
    return Settings().replace(strategy="mime-lite", expect=10, downlink="raw32", span=1, codec="ecq").replace(**changes)


def test_the_manifest_says_what_goes_up_and_requires_the_feature() -> None:
    manifest = make_manifest(settings(), "f", "0" * 16, MODEL.plan)
    assert manifest.sides == ["momentum"] and manifest.sent_sides == ["gradient"]
    assert {"local", "side", "sent-side"} == set(manifest.requires) <= FEATURES
    assert decode(Manifest, encode(manifest), 60_000) == manifest
    plain = make_manifest(settings(strategy="fedcm"), "f", "0" * 16, MODEL.plan)
    assert "sent-side" not in plain.requires and b"sent_sides" not in plain.raw


@pytest.mark.parametrize(
    "fields",
    [
        {"sent_sides": ["gradient"]},
        {"sent_sides": ["other"], "local": LocalRule("mime-lite", {"beta": 0.5})},
        {"sent_sides": ["gradient", "gradient"], "local": LocalRule("mime-lite", {"beta": 0.5})},
        {"local": LocalRule("mime-lite", {"beta": 0.5})},
    ],
    ids=str,
)
def test_a_device_refuses_side_vectors_that_its_rule_does_not_send(fields: dict) -> None:
    session, _ = fetching()
    give(session, msgspec.structs.replace(MANIFEST, **fields))
    assert "side vectors" in session.status.trouble.text and session.terms is None


# The owner's word


MIME = make_manifest(settings(), "f", "0" * 16, MODEL.plan)


def test_an_owner_who_allows_no_gradient_allows_none_behind_a_delta() -> None:
    assert "gradient over all examples" in STRICT.of_manifest(MIME)
    assert OPEN.of_manifest(MIME) == ""


def test_an_approval_of_the_plan_without_the_gradient_is_none_with_it() -> None:
    plain = make_manifest(settings(strategy="fedcm"), "f", "0" * 16, MODEL.plan)
    assert plan_id(MIME) != plan_id(plain) and plan_id(plain) not in approved_by(MIME)
    assert plan_id(MIME) not in approved_by(plain)
    said = describe(MIME).splitlines()[-1]
    assert "gradient over all examples reveals most" in said and "room for 2 whole examples" in said
    assert "room for 1 whole examples" in describe(plain)


def test_the_owners_bound_on_computing_counts_the_gradient_over_all_examples() -> None:
    plain = make_manifest(settings(strategy="fedcm", max_steps=1), "f", "0" * 16, MODEL.plan)
    mime = make_manifest(settings(max_steps=1), "f", "0" * 16, MODEL.plan)
    assert flops_of(mime, 100) == flops_of(plain, 100) * 11
