"""Models with running statistics in masked rounds: these are sent whole, and no variance becomes negative."""

from __future__ import annotations

import numpy as np
from machines import make_manifest
from masked_rounds import PRIVACY, helper_keys, party

from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.core.plan import Node, Param, Plan
from edgefl.masking.vector import mean, quantize

C = 40
PARAMS = [Param("g", [C]), Param("h", [C]), Param("mean", [C], False), Param("var", [C], False)]
PLAN = Plan([C], [Node("batch_norm", [0], [0, 1, 2, 3], [], [1e-5, 0.9])], PARAMS, "mse", 1, 1)
MODEL = np.concatenate([np.ones(C), np.zeros(C), np.zeros(C), np.ones(C)]).astype(np.float32)


def terms_of_round(number: int):
    maker = MaskedTerms(PRIVACY, make_manifest(plan=PLAN), most=12, rounds=0, helpers=[party(helper_keys())])
    return maker.terms(round=number, version=0, model_sha256="0" * 64, manifest="0" * 16)


def test_running_statistics_are_among_what_is_sent_in_every_round():
    own = terms_of_round(1)
    assert (own.params, own.whole) == (4 * C, 2 * C)
    assert own.coordinates == 2 * C + round(2 * C * PRIVACY.share)


def test_a_variance_moves_as_far_as_on_the_devices():
    """Devices whose examples vary half as much as those of the model before: no round overshoots."""
    rng = np.random.default_rng(0)
    delta = np.concatenate([rng.standard_normal(3 * C) * 0.01, np.full(C, -0.1)]).astype(np.float32)
    for number in range(1, 30):
        own = terms_of_round(number)
        found = mean(sum(quantize(delta, 1, own, rng.bytes).q.astype(np.int64) for _ in range(5)), own)
        moved = MODEL + found.delta
        assert np.abs(found.delta[2 * C :] - delta[2 * C :]).max() < own.grid
        assert (moved[3 * C :] > 0.8).all()
