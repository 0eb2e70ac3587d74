"""Local training: from one round's job and a device's own data to the update that leaves it.

Called by every host of a DeviceSession, in a thread or process of its own. The data stays here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from . import error_feedback
from .device_events import TrainJob
from .error_feedback import Residual
from .federation import derived_seed
from .params import params_from_bytes
from .protocol.messages import UpdateHeader
from .trainer import Diverged, Trainer

MAX_CHUNK = 128  # examples that the arena holds at once
MAX_LOSS = float(np.finfo(np.float32).max)  # the update's header carries a float32


def make_trainer(job: TrainJob, max_arena_bytes: int | None = None) -> Trainer:
    """A Trainer for the job's plan, with an arena for one of its batches; ModelError if the plan is refused."""
    batch = job.manifest.train.batch_size or MAX_CHUNK
    return Trainer(job.manifest.plan, batch=min(batch, MAX_CHUNK), max_arena_bytes=max_arena_bytes)


def train_update(
    trainer: Trainer,
    job: TrainJob,
    device: str,
    x: np.ndarray,
    y: np.ndarray,
    load_residual: Callable[[], Residual | None] = lambda: None,
) -> tuple[bytes, bytes | None]:
    """Header and encoded delta; and, under error feedback, the residual that this leaves (SaveUpdate).

    x (n, *input shape), y (n, ...). `load_residual` reads the device's own, when training is done: it need not be in
    memory before. Raises DataError, Cancelled, Diverged, CodecError.
    """
    config = job.manifest.train
    params = params_from_bytes(job.params)
    started = time.monotonic()
    if config.mode == "gradient":
        delta = -trainer.gradient(params, x, y)
        steps, loss = 1, trainer.evaluate(params, x, y).loss
    else:
        result = trainer.fit(
            params, x, y, epochs=config.epochs, batch_size=config.batch_size, lr=config.lr,
            momentum=config.momentum, weight_decay=config.weight_decay, prox_mu=config.prox_mu,
            clip_norm=config.clip_norm, optimizer=config.optimizer, max_steps=config.max_steps,
            seed=derived_seed(config.seed, job.round.round, device),
        )  # fmt: skip
        delta, steps, loss = result.delta, result.steps, result.loss
    if not abs(loss) <= MAX_LOSS:  # NaN is not either
        raise Diverged(f"training reached a loss of {loss:g} in {steps} steps: lower lr or standardise the features")
    payload, residual = _encode(job, delta, load_residual)
    train_ms = int(1000 * (time.monotonic() - started))
    return UpdateHeader(len(x), steps, loss, train_ms, job.bytes_down).to_bytes() + payload, residual


def _encode(
    job: TrainJob, delta: np.ndarray, load_residual: Callable[[], Residual | None]
) -> tuple[bytes, bytes | None]:
    codec = job.manifest.make_codec()
    if not job.manifest.error_feedback:
        return codec.encode(delta), None
    saved = load_residual()
    residual = None if saved is None else saved.usable(job.manifest.id, job.round.round, len(delta))
    return error_feedback.encode(codec, delta, residual)
