"""Personal: what a device has for itself beside the shared model, and whether that is better. Part of training.

Where the manifest has a mask, a device trains from the round's model with its own personal params in it. What they have
become is its slot `personal`, which is current once the update has counted (slots.py):

    CRC-32C of plan and mask u32 | (P − S,) little-endian float32

A local rule may have a model of its own instead (Rule.own). Either way the device holds examples out, and judges: every
other one of these chooses, the rest are reported on.

    keeps its own model    if that has the higher accuracy, at the same accuracy the lower loss, on the first share
    reports                scores of the model that it trains from, and of the one that it keeps, on the second share

So what is reported of the model that is kept has not been chosen on the examples that it is reported on.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np

from .._core import crc32c
from ..core.trainer import Evaluation
from ..protocol.manifest import Manifest
from ..protocol.update_header import PersonalScores
from .local.rule import Rule, Work, own_slot

_TAG = struct.Struct("<I")
MAX_LOSS = float(np.finfo(np.float32).max)  # the update's header carries a float32


class Verdict(NamedTuple):
    """The model that the device keeps, (P,) float32; whether that is its `own`; the header's fields of all scores."""

    params: np.ndarray
    own: bool
    scores: dict[str, Any]


def is_personal(manifest: Manifest, rule: Rule | None) -> bool:
    """Whether devices of this federation have something of their own."""
    return bool(manifest.personal) or (rule is not None and rule.makes_model)


def with_own(manifest: Manifest, received: np.ndarray, blob: bytes | None) -> np.ndarray:
    """`received` (P,) with the personal params in the slot `blob`; itself if there are none for this mask, or if
    they are not finite."""
    mask = manifest.mask
    if not mask.personal or blob is None:
        return received
    own = np.frombuffer(blob, "<f4", offset=_TAG.size) if len(blob) == _TAG.size + 4 * mask.num_personal else None
    if own is None or _TAG.unpack_from(blob)[0] != _tag(manifest) or not np.isfinite(own).all():
        return received
    return mask.with_own(received, own.astype(np.float32))


def slot_of(manifest: Manifest, params: np.ndarray, delta: np.ndarray) -> dict[str, bytes]:
    """The slot that keeps what `delta` (P,) makes of the personal ones of `params`; {} where nothing is personal, and
    where they are not finite any more."""
    mask = manifest.mask
    if not mask.personal:
        return {}
    with np.errstate(over="ignore"):
        return own_slot(mask.own(params) + mask.own(delta), _TAG.pack(_tag(manifest)))


def _tag(manifest: Manifest) -> int:
    return crc32c(f"{manifest.plan.hash} {manifest.personal}".encode())


def own_model(manifest: Manifest, work: Work, rule: Rule | None) -> np.ndarray | None:
    """(P,) of the device's own model as it receives another; None if it has none yet."""
    if manifest.personal:
        return work.params if work.load("personal") is not None else None
    return None if rule is None else rule.own(work)


def judge(work: Work, received: np.ndarray, own: np.ndarray | None) -> Verdict:
    """Which of the two models (P,) the device keeps. Without two examples held out it keeps its own, unjudged."""
    evaluate, x, y = work.trainer.evaluate, work.shares.x_held, work.shares.y_held
    if len(x) < 2:
        return Verdict(received if own is None else own, own is not None, {})
    keeps, kept = False, received
    if own is not None and _is_better(evaluate(own, x[::2], y[::2]), evaluate(received, x[::2], y[::2])):
        keeps, kept = True, own
    theirs = evaluate(work.params, x[1::2], y[1::2])
    ours = theirs if kept is work.params else evaluate(kept, x[1::2], y[1::2])
    if not (abs(theirs.loss) <= MAX_LOSS and abs(ours.loss) <= MAX_LOSS):
        return Verdict(kept, keeps, {})
    scores = {"num_eval": theirs.num_examples, "eval_loss": theirs.loss, "eval_accuracy": theirs.accuracy}
    return Verdict(kept, keeps, {**scores, "personal": PersonalScores(keeps, ours.loss, ours.accuracy)})


def _is_better(one: Evaluation, other: Evaluation) -> bool:
    """Whether the first scores are the better ones; a loss that is not finite is the worst."""
    return _rank(one) > _rank(other)


def _rank(scores: Evaluation) -> tuple[float, float]:
    loss = scores.loss if math.isfinite(scores.loss) else math.inf
    return (-1.0 if math.isinf(loss) else scores.accuracy or 0.0), -loss
