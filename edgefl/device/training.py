"""Local training and evaluation: from one round's job and a device's own data to the update that leaves the device.

Every host of a DeviceSession calls it, in a thread or process of its own. The data stays on the device.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from ..codecs import Codec
from ..codecs import feedback as error_feedback
from ..core.params import l2_norm, params_from_bytes
from ..core.rows import Rows
from ..core.seeds import derived_seed
from ..core.trainer import Cancelled, Diverged, Trainer
from ..protocol.update_header import UpdateHeader
from ..strategies.local_steps import gain
from ..strategies.weights import Weights
from . import holdout, local, personal
from .events import TrainJob
from .local.rule import Learned, Rule, Work
from .owner.policy import OPEN, Policy
from .personal import MAX_LOSS, Verdict
from .slots import LoadSlot, no_slots

MAX_CHUNK = 128  # examples that the arena holds at once
log = logging.getLogger("edgefl.training")


class LocalUpdate(NamedTuple):
    """What a round's work has made: the update, header and encoded delta; the slots that it leaves (slots.py); the
    norms of the delta that an Origin has."""

    blob: bytes
    slots: Mapping[str, bytes] = MappingProxyType({})
    norm: float = 0.0
    clipped_from: float = 0.0


def make_trainer(job: TrainJob, max_arena_bytes: int | None = None, threads: int = 1) -> Trainer:
    """A Trainer for the job's plan, with an arena for one of its batches; ModelError if the plan is refused."""
    batch = arena_batch(job.manifest.train.batch_size)
    return Trainer(job.manifest.plan, batch=batch, max_arena_bytes=max_arena_bytes, threads=threads)


def arena_batch(batch_size: int | Literal["all"]) -> int:
    """Examples that the arena holds at once: a batch's, as far as they fit."""
    return MAX_CHUNK if batch_size == "all" else min(batch_size, MAX_CHUNK)


def trains_plainly(job: TrainJob) -> bool:
    """Whether nothing but Trainer's calls read the examples, so that they may be Rows."""
    manifest = job.manifest
    plain = manifest.local is None and not manifest.personal and manifest.local_mode != "gradient"
    return plain and job.round.mode == "train"


def train_update(
    trainer: Trainer,
    job: TrainJob,
    device: str,
    x: np.ndarray | Rows,
    y: np.ndarray | Rows,
    *,
    load_slot: LoadSlot = no_slots,
    wanted: Callable[[], bool] = lambda: True,
    policy: Policy = OPEN,
    keep: Callable[[Verdict], None] = lambda verdict: None,
    randomness: Callable[[int], bytes] = os.urandom,
) -> LocalUpdate:
    """Train and encode.

    x (n, *input shape), y (n, ...): the examples that the manifest holds out evaluate the model first. In a round that
    only evaluates, the update is the header alone; in one of mode "profile" it is column statistics. `load_slot`
    reads a current slot when it is needed: until then it takes no memory. `wanted` is asked before each
    training, and while statistics are computed. `keep` is told which model the device is to use for itself, where it
    has one of its own (personal.py). The masks of a masked round come from `randomness`. Raises DataError, Cancelled,
    Diverged, CodecError; PolicyError if the owner's policy does not allow the work.
    """
    if job.round.mode == "profile":
        return _profile(job, device, x, y, wanted=wanted, policy=policy, randomness=randomness)
    rule = None if job.manifest.local is None else local.get(job.manifest.local)
    shares = holdout.split(device, x, y, job.manifest.holdout)
    if job.round.mode == "train" or (rule is not None and rule.trains_to_judge and not job.judges):
        policy.check_update(job.manifest, len(shares.x))
    work = _work(trainer, job, device, shares, load_slot=load_slot, wanted=wanted)
    scores = _scores(work, job, rule, keep)
    if job.round.mode == "evaluate":
        return LocalUpdate(UpdateHeader(0, 0, 0.0, 0, job.bytes_down, **scores).to_bytes())
    if not wanted():
        raise Cancelled("training was cancelled before it began: start the round's training again to take part")
    started = time.monotonic()
    work, learned = _learned(work, job, rule)
    own = personal.slot_of(job.manifest, work.params, learned.delta)
    delta = job.manifest.stack(learned.delta, learned.sides)
    sent = policy.clipped(delta)
    payload, slots = _encoded(
        work, job, learned, sent, device=device, scores=scores, load_slot=load_slot, randomness=randomness
    )
    slots = own | slots
    if personal.is_personal(job.manifest, rule) and "personal" not in slots and work.load("personal") is not None:
        log.warning("what this device has of its own is not finite any more: it begins anew with the next model")
    train_ms = int(1000 * (time.monotonic() - started))
    header = UpdateHeader(len(shares.x), learned.steps, learned.loss, train_ms, job.bytes_down, **scores)
    if job.round.terms:
        header = UpdateHeader.masked()
    clipped_from = 0.0 if sent is delta else l2_norm(delta)
    return LocalUpdate(header.to_bytes() + payload, slots, l2_norm(sent), clipped_from)


def _profile(
    job: TrainJob, device: str, x: np.ndarray | Rows, y: np.ndarray | Rows, *, wanted: Callable[[], bool],
    policy: Policy, randomness: Callable[[int], bytes],
) -> LocalUpdate:  # fmt: skip
    """The update of a round of mode "profile"."""
    from .columns.profiling import report

    x, y = np.asarray(x), np.asarray(y)
    return LocalUpdate(report(job, device, x, y, policy, wanted=wanted, randomness=randomness))


def _evaluate(
    trainer: Trainer, params: np.ndarray, x: np.ndarray | Rows, y: np.ndarray | Rows
) -> dict[str, Any]:  # fmt: skip
    """Fields of the header about the model as it was received; only a line in the log if its loss is not finite."""
    if len(x) == 0:
        return {}
    loss, accuracy, count = trainer.evaluate(params, x, y)
    if not abs(loss) <= MAX_LOSS:
        log.warning("the model's loss on the %d examples held out is %g: not reported", count, loss)
        return {}
    return {"num_eval": count, "eval_loss": loss, "eval_accuracy": accuracy}


def _work(
    trainer: Trainer, job: TrainJob, device: str, shares: holdout.Shares, *, load_slot: LoadSlot,
    wanted: Callable[[], bool],
) -> Work:  # fmt: skip
    """What the round asks of the device, from the model that it received and what it has of its own."""
    manifest, number = job.manifest, job.round.round
    params, sides = manifest.unstack(params_from_bytes(job.params))
    train = manifest.train.in_round(number)
    if manifest.personal and (own := _usable(job, load_slot, "personal")) is not None:
        received, params = params, personal.with_own(manifest, params, own)
        if params is received:
            log.warning("the personal params that are kept here are of another mask: dropped")
    return Work(
        trainer, params, shares, train, derived_seed(train.seed, number, device), number,
        load=lambda name: _usable(job, load_slot, name), mask=manifest.mask, sides=sides,
        feedback=manifest.error_feedback, wanted=wanted,
    )  # fmt: skip


def _scores(work: Work, job: TrainJob, rule: Rule | None, keep: Callable[[Verdict], None]) -> dict[str, Any]:
    """Fields of the header about the model as it was received, and about the one that the device keeps for itself."""
    received, _ = job.manifest.unstack(params_from_bytes(job.params))
    if job.judges or not personal.is_personal(job.manifest, rule):
        return _evaluate(work.trainer, received, work.shares.x_held, work.shares.y_held)
    try:
        own = personal.own_model(job.manifest, work, rule)
    except Diverged as error:
        log.warning("what this device makes of the model for itself diverged, so it keeps the received one: %s", error)
        own = None
    verdict = personal.judge(work, received, own)
    keep(verdict)
    if not verdict.scores and len(work.shares.x_held) > 1:
        log.warning("the loss on the examples held out is not finite: no scores are reported")
    return verdict.scores


def _learned(work: Work, job: TrainJob, rule: Rule | None) -> tuple[Work, Learned]:
    """What training has taught, and the work that it was. A device whose training diverges from what it has of its own
    begins anew with the received model: it would diverge in every round to come, and its slot never be replaced."""
    try:
        return work, _train(work, job, rule)
    except Diverged:
        if not personal.is_personal(job.manifest, rule) or work.load("personal") is None:
            raise
    received, _ = job.manifest.unstack(params_from_bytes(job.params))
    anew = replace(work, params=received, load=lambda name: None if name == "personal" else work.load(name))
    learned = _train(anew, job, rule)
    log.warning("training from what this device has of its own diverged: it begins anew with the received model")
    return anew, learned


def _train(work: Work, job: TrainJob, rule: Rule | None) -> Learned:
    """What training on the examples that are not held out has taught, by the manifest's rule. Raises Diverged for a
    loss that no header can carry, too."""
    learned = _by_rule(work, job, rule)
    if not abs(learned.loss) <= MAX_LOSS:  # true for NaN too
        what = f"training reached a loss of {learned.loss:g} in {learned.steps} steps"
        raise Diverged(f"{what}: lower lr or standardise the features")
    return learned


def _by_rule(work: Work, job: TrainJob, rule: Rule | None) -> Learned:
    if job.manifest.local_mode == "gradient":
        x, y = work.shares.x, work.shares.y
        loss = work.trainer.evaluate(work.params, x, y).loss
        return Learned(-work.trainer.gradient(work.params, x, y), 1, loss)
    if rule is not None:
        return rule.train(work)
    result = work.fit()
    return Learned(result.delta, result.steps, result.loss)


def _usable(job: TrainJob, load_slot: LoadSlot, name: str) -> bytes | None:
    """The bytes of a current slot, if the job can use them; else the log says why not."""
    slot = load_slot(name)
    if slot is None:
        return None
    why = slot.unusable(name, job.manifest, job.round.round)
    if why:
        level = logging.WARNING if why == "damaged" else logging.INFO
        log.log(level, "the %s of round %d is %s: dropped", name, slot.round, why)
        return None
    return slot.blob


def _encoded(
    work: Work, job: TrainJob, learned: Learned, sent: np.ndarray, *, device: str, scores: Mapping[str, Any],
    load_slot: LoadSlot, randomness: Callable[[int], bytes],
) -> tuple[bytes, dict[str, bytes]]:  # fmt: skip
    """The payload of what is sent, and the slots that it and the local rule leave."""
    slots: dict[str, bytes] = {}
    if job.round.terms:
        from . import masked

        payload = masked.encode(
            masked.terms_of(job.round, job.manifest), sent, device=device, num_examples=len(work.shares.x),
            scored=masked.scored(scores), randomness=randomness,
        )  # fmt: skip
    else:
        payload, slots = _encode(job, sent, load_slot, _weight(work, job, learned))
    kept = learned.keep(sent, lambda: job.manifest.update_codec.decode(payload, len(sent)))
    return payload, slots | dict(kept)


class _Weight(NamedTuple):
    """What the numbers of an update count in the sum, from `start` on."""

    weight: float
    start: int = 0


def _weight(work: Work, job: TrainJob, learned: Learned) -> _Weight | None:
    """Where it differs from one update of a device to the next, as updates are divided by their steps: in FedNova all
    of them (combine/normalized.py), in Mime-lite what is behind the delta."""
    if learned.sides_count is not None:
        return _Weight(learned.sides_count, job.manifest.mask.num_shared)
    if not job.manifest.by_step:
        return None
    examples = Weights.of(job.manifest.by_step).weigh(len(work.shares.x))
    return _Weight(examples / gain(work.train, work.train.lr, learned.steps))


def _encode(
    job: TrainJob, delta: np.ndarray, load_slot: LoadSlot, weight: _Weight | None
) -> tuple[bytes, dict[str, bytes]]:
    """The payload and, under error feedback, the residual that it leaves. An update that the device's byte budget
    shortens is coarser; under error feedback the next ones make up for that."""
    codec = job.manifest.update_codec
    payload, slots = _encode_with(codec, job, delta, load_slot, weight)
    if job.max_bytes and len(payload) > job.max_bytes:
        log.info(
            "an update of %d bytes is shortened to the %d that the byte budget allows", len(payload), job.max_bytes
        )
        payload, slots = _encode_with(codec.within(job.max_bytes), job, delta, load_slot, weight)
    return payload, slots


def _encode_with(
    codec: Codec, job: TrainJob, delta: np.ndarray, load_slot: LoadSlot, weight: _Weight | None
) -> tuple[bytes, dict[str, bytes]]:
    if not job.manifest.error_feedback:
        return codec.encode(delta), {}
    blob = _usable(job, load_slot, "residual")
    residual = None
    if blob is not None:
        if weight is None:
            residual = error_feedback.unpack(blob, len(delta))
        else:
            residual = error_feedback.recounted(blob, len(delta), *weight)
    payload, left = error_feedback.encode(codec, delta, residual)
    if left is None:
        return payload, {}
    return payload, {"residual": left if weight is None else error_feedback.counted(left, weight.weight)}
