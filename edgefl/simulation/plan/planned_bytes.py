"""Planned bytes: how long updates and models will be, from real codecs on real deltas. For planning.py.

A few devices train a few rounds from the start; their updates are encoded, what is decoded makes the next model, and
the downlink encodes that. The deltas of models have their usual size only after two spans, so the model then goes on
for three spans as it did in these rounds, without further training. A strategy's side vectors are taken to move as the
model does: they are sums of the same updates. Those behind the delta of an update are taken to be like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from ...codecs import feedback
from ...coordinator.model.downlink import Downlink, Step
from ...core.seeds import derived_seed
from ...core.trainer import Trainer
from ...data import Dataset
from ...device import holdout
from ...device.local.rule import Work
from ...device.training import arena_batch
from ...protocol.manifest import Manifest

ROUNDS = 4  # under error feedback, updates grow in the first few


class Sizes(NamedTuple):
    """Bytes of an update; of a model for a device that holds an older one, and in how many payloads; of the first
    model, with which a run begins; of a later one, for a device that has none; and of the list of frames that a round
    announces. On a grid, the first model has finer steps than all later ones, and is longer."""

    up: int
    down: float
    payloads: float
    first: int
    later: int
    frames: int


def sizes(manifest: Manifest, params: np.ndarray, devices: Sequence[Dataset], *, share: float) -> Sizes:
    """Sizes where each device takes part in this `share` of the rounds; `devices` are the ones that train."""
    count = 1 + len(manifest.sides)
    model = np.concatenate((params, np.zeros((count - 1) * len(params), np.float32)))
    downlink = Downlink(manifest, model, 0)
    numbers = manifest.moving.own(params)
    base = len(manifest.base_codec.encode(numbers)) if manifest.base else 0
    first = len(downlink.payloads[0].blob) + base
    trainer = Trainer(manifest.plan, batch=arena_batch(manifest.train.batch_size))
    residuals: list[np.ndarray | None] = [None] * len(devices)
    up, means = [0], list[np.ndarray]()
    for number in range(1, ROUNDS + 1):
        mean, up = np.zeros_like(params), []
        shown, _ = manifest.unstack(downlink.shown)
        for device, examples in enumerate(devices):
            work = _work(manifest, trainer, shown, examples, (number, device))
            learned = work.fit().delta
            delta = manifest.stack(learned, dict.fromkeys(manifest.sent_sides, learned))
            payload, residuals[device] = _encoded(manifest, delta, residuals[device])
            decoded = manifest.update_codec.decode(payload, len(delta))[: manifest.mask.num_shared]
            mean += manifest.mask.with_shared(np.zeros_like(params), decoded) / np.float32(len(devices))
            up.append(len(payload))
        means.append(np.tile(mean, count))
        model = model + means[-1]
        downlink.advance(model, number)
    down, payloads, later = _fetched(downlink, model, means, span=manifest.span, share=share)
    frames = len(msgspec.json.encode(downlink.frames))
    return Sizes(round(float(np.mean(up))), down, payloads, first, round(later) + base, frames)


def _work(
    manifest: Manifest, trainer: Trainer, params: np.ndarray, examples: Dataset, when: tuple[int, int]
) -> Work:  # fmt: skip
    """What a device does; `when` is the round and its number."""
    number, device = when
    shares = holdout.split(str(device), examples.x_train, examples.y_train, manifest.holdout)
    seed = derived_seed(manifest.train.seed, number, device)
    return Work(
        trainer, params, shares, manifest.train.in_round(number), seed, number, load=lambda slot: None,
        mask=manifest.mask,
    )  # fmt: skip


def _encoded(manifest: Manifest, delta: np.ndarray, residual: np.ndarray | None) -> tuple[bytes, np.ndarray | None]:
    """The payload of a delta, and the residual that it leaves under error feedback."""
    if not manifest.error_feedback:
        return manifest.update_codec.encode(delta), None
    payload, left = feedback.encode(manifest.update_codec, delta, residual)
    return payload, None if left is None else feedback.unpack(left, len(delta))


def _fetched(
    downlink: Downlink, model: np.ndarray, means: Sequence[np.ndarray], *, span: int, share: float
) -> tuple[float, float, float]:
    """Bytes and payloads that a device fetches when it takes part, after a random number of rounds without it, and the
    bytes for one that has no model yet."""
    fetched, whole = [], []
    last = len(means) + 3 * span
    for number in range(len(means) + 1, last + 1):
        model = model + means[number % len(means)]
        downlink.advance(model, number)
        if number > last - span:
            gaps = range(1, number + 1)
            odds = [share * (1 - share) ** (gap - 1) for gap in gaps]
            ways = [_shortest(downlink.steps, {number - gap, (number - gap) // span * span}) for gap in gaps]
            fetched.append(np.average(ways, weights=odds, axis=0))
            whole.append(_shortest(downlink.steps, set())[0])
    size, payloads = np.mean(fetched, axis=0).tolist()
    return size, payloads, float(np.mean(whole))


def _shortest(steps: Sequence[Step], held: set[int]) -> tuple[int, int]:
    """Bytes and payloads from one of these versions, or a keyframe, to the newest version (device/model/fetch.py)."""
    ways, after = [], 0
    for payloads, step in enumerate(reversed(steps)):
        if step.frame.version in held:
            ways.append((after, payloads))
        if step.keyframe:
            ways.append((len(step.keyframe) + after, payloads + 1))
        after += len(step.delta)
    return min(ways)
