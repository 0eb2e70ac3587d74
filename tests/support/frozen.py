"""A plan with a frozen layer in front, its manifest, and what lies on the broker of it."""

from __future__ import annotations

import numpy as np
from machines import FEDERATION, RUN, TOPICS, make_manifest

from edgefl.coordinator.model.base_payload import with_base
from edgefl.coordinator.model.downlink import Downlink
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.core.plan import Node, Param, Plan
from edgefl.machine import Publish
from edgefl.protocol.envelope import federation_hash
from edgefl.protocol.manifest import Base, Manifest
from edgefl.protocol.round import Round

NODES = [Node("dense", [0], [2]), Node("dense", [1], [0, 1])]
PLAN = Plan([99], NODES, [Param("w", [99, 10]), Param("b", [10]), Param("f", [99, 99], False)], "cross_entropy", 2, 2)
HASH = federation_hash(FEDERATION, RUN, PLAN.hash)
PARAMS = np.random.default_rng(0).normal(size=PLAN.num_params).astype(np.float32)
FROZEN = PARAMS[PLAN.num_trainable :]
MOVED = np.concatenate([np.ones(PLAN.num_trainable, np.float32), np.zeros_like(FROZEN)])  # what training adds


def manifest_of(params=PARAMS, **changes) -> Manifest:
    """As the aggregator announces it."""
    return with_base(make_manifest(plan=PLAN, base=Base([2]), requires=["base"], **changes), params)[0]


MANIFEST = manifest_of()


def publish(version=0, manifest=MANIFEST, params=PARAMS, *, base=True) -> list[Publish]:
    """The parts of a model, as a keyframe, and of the base."""
    model = Downlink(manifest, params, version)
    own = with_base(manifest, params)[1] if base else []
    return RetainedModel(TOPICS, manifest, HASH).put([*own, *model.payloads])


def a_round(number=1, version=0, manifest=MANIFEST, params=PARAMS, **changes) -> Round:
    model = Downlink(manifest, params, version)
    return Round(
        manifest.id, changes.pop("state", "open"), number, 1, version, model.sha256, model.frames, 60.0, **changes
    )
