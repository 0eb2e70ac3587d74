"""Profiling: what a device sends in a round of mode "profile": statistics of its columns, as they are or masked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.columns import Columns
from ...errors import CodecError
from ...masking import profile
from ...masking.update import mask
from ...protocol.statistics import encode
from ...protocol.update_header import UpdateHeader
from .. import masked
from ..events import TrainJob
from ..owner.policy import Policy
from .shares import shares_of
from .statistics import of_examples


def report(
    job: TrainJob, device: str, x: np.ndarray, y: np.ndarray, policy: Policy, *, wanted: Callable[[], bool],
    randomness: masked.Randomness,
) -> bytes:  # fmt: skip
    """The update, header and payload, of all examples that the policy lets be told of. Those that are held out are
    among them: the aggregator chooses how many these are, so two reports could differ in one example alone.

    Raises Cancelled, PolicyError, CodecError, ProtocolError."""
    if not job.round.terms:
        n = policy.of_statistics(len(x))
        payload = encode(of_examples(job.manifest.plan, x[:n], y[:n], wanted=wanted))
        if job.max_bytes and len(payload) > job.max_bytes:
            raise CodecError(f"its statistics take {len(payload)} bytes")
        return UpdateHeader(n, 0, 0.0, 0, job.bytes_down, is_profile=True).to_bytes() + payload
    terms = masked.terms_of(job.round, job.manifest)
    if terms.profile is not None and terms.profile.ranges:
        n = policy.of_statistics(len(x))
        shares = shares_of(job.manifest.plan, x[:n], y[:n], terms.profile, wanted=wanted)
        sealed = masked.encode(terms, shares, device=device, num_examples=n, scored=None, randomness=randomness)
        return UpdateHeader.masked(profile=True).to_bytes() + sealed
    in_a_row = max(1, x[:1].size // max(1, Columns.of(job.manifest.plan).number), y[:1].size)
    n = policy.of_statistics(min(len(x), profile.room(terms, in_a_row)))
    statistics = of_examples(job.manifest.plan, x[:n], y[:n], wanted=wanted)
    payload = mask(profile.tell(statistics, n, terms), terms, device, None, randomness)
    return UpdateHeader.masked(profile=True).to_bytes() + payload
