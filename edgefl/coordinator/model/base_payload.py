"""The base as the aggregator publishes it: params that no training changes, once, beside all versions. No I/O.

Part of Announcer. The numbers are those of the model that the aggregator starts with. An update has none of them, so
each version has the same, whichever process made it.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ...core.mask import unchanging
from ...core.params import params_sha256
from ...protocol.manifest import Manifest
from ...protocol.topics import BASE_SLOT
from .downlink import Payload


def with_base(manifest: Manifest, params: np.ndarray) -> tuple[Manifest, list[Payload]]:
    """The manifest with what names its base, and the base as it lies on the broker; as it is if it has none."""
    if manifest.base is None:
        return manifest, []
    numbers, codec = manifest.moving.own(params), manifest.base_codec
    blob = codec.encode(numbers)
    base = msgspec.structs.replace(manifest.base, sha256=params_sha256(numbers), size=len(blob))
    return msgspec.structs.replace(manifest, base=base), [Payload(BASE_SLOT, 0, codec.wire_id, blob)]


def longest_base(manifest: Manifest) -> int:
    """The most bytes of a base that an aggregator before this one may have left, for this plan, with whatever settings;
    0: the plan can't have one."""
    plan = manifest.plan
    untrained = plan.num_params - plan.num_trainable
    return manifest.base_codec.bound(untrained) if unchanging(plan) else 0
