"""simulate(): a whole federated run on one machine, over the sessions, coordinator and wire format of real ones."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from ..codecs import Codec
from ..coordinator.cohort import expected_reports
from ..coordinator.coordinator import RoundCoordinator
from ..coordinator.events import Evaluated
from ..core.seeds import derived_seed
from ..core.trainer import Trainer
from ..data import Dataset, fit_shape
from ..device.training import MAX_CHUNK
from ..errors import UsageError
from ..federation import Recipe, round_config, train_config
from ..history import History, RoundRecord
from ..machine import Note
from ..onnx.model import Model
from ..strategies import Site, Strategy
from .faults import Faults
from .fleet import AggregatorHost, DeviceHost, Fleet
from .partitions import Partition, split
from .workers import Workers

FEDERATION = "simulation"


def simulate(
    model: Model,
    data: Dataset,
    *,
    devices: int = 100,
    rounds: int = 20,
    fraction: float = 1.0,
    partition: str | Partition = "iid",
    epochs: int = 1,
    batch_size: int | None = 10,
    lr: float = 0.1,
    strategy: str | Strategy = "fedavg",
    strategy_options: dict[str, Any] | None = None,
    codec: str | Codec = "raw32",
    codec_options: dict[str, Any] | None = None,
    downlink_codec: str | Codec = "raw32",
    downlink_options: dict[str, Any] | None = None,
    span: int = 1,
    error_feedback: bool | None = None,
    holdout: float = 0.0,
    evaluate_every: int | None = None,
    train_options: dict[str, Any] | None = None,
    faults: str = "",
    deadline_s: float = 600.0,
    min_reports: int = 1,
    round_options: dict[str, Any] | None = None,
    target_accuracy: float | None = None,
    workers: int | None = None,
    seed: int = 0,
    on_round: Callable[[RoundRecord], None] = lambda record: None,
    note: Callable[[str, Note], None] = lambda name, note: None,
) -> History:
    """Run `rounds` rounds of `strategy` on `devices` simulated devices and return what happened.

    Strategy, codecs and partition may be objects, or named as plug-ins are (docs/plugins.md).

    `partition` is how the training data is spread (iid, shards:K, dirichlet:A, natural, ...), `fraction` McMahan's C,
    `batch_size` None one batch of all examples, `error_feedback` None what the codec wants, `train_options` further
    fields of TrainConfig (momentum, prox_mu, ...), `round_options` of RoundConfig (mode, goal, late, ...). With error
    feedback, every device that has reported keeps 4 P bytes. `holdout` is the share of its examples that each device
    only evaluates on; each `evaluate_every`th round trains nothing. Seconds in the history are virtual. Raises
    UsageError, DataError, ModelError, CodecError.
    """
    if not 0 < fraction <= 1 or devices < 1 or rounds < 1:
        raise UsageError("simulate wants devices >= 1, rounds >= 1 and a fraction above 0, at most 1")
    data = fit_shape(data, tuple(model.plan.input_shape))
    train = train_config(epochs=epochs, batch_size=batch_size, lr=lr, seed=seed % 2**32, **(train_options or {}))
    recipe = Recipe(
        train,
        strategy,
        strategy_options or {},
        codec,
        codec_options or {},
        error_feedback=error_feedback,
        downlink=downlink_codec,
        downlink_options=downlink_options or {},
        span=span,
        holdout=holdout,
    )
    manifest = recipe.make_manifest(FEDERATION, f"{derived_seed(seed, 'run'):016x}", model.plan)
    parts = split(data, partition, devices, seed)
    settings = {
        "deadline_s": deadline_s, "min_reports": min_reports, "fraction": fraction, "expect": len(parts),
        "rounds": rounds, "target_accuracy": target_accuracy, "evaluate_every": evaluate_every,
    }  # fmt: skip
    config = round_config(**settings | (round_options or {}))
    rng = random.Random(derived_seed(seed, "coordinator"))
    rule = recipe.make_strategy()
    rule.restore({})  # an object may have been in a run before
    rule.prepare(Site(model.plan.num_params, model.plan.num_trainable, expected_reports(config)))
    coordinator = RoundCoordinator(manifest, config, rule, model.params, rng=rng)
    pool = Workers(
        workers or os.cpu_count() or 1, lambda: Trainer(model.plan, batch=min(batch_size or MAX_CHUNK, MAX_CHUNK))
    )
    fleet = Fleet(pool, Faults.parse(faults), on_round, note)
    aggregator = AggregatorHost(fleet, coordinator, _evaluator(model, data))
    width = len(str(len(parts) - 1))
    hosts = [
        DeviceHost(
            fleet, f"dev-{i:0{width}d}", data.x_train[part], data.y_train[part], federation=FEDERATION, seed=seed
        )
        for i, part in enumerate(parts)
    ]
    try:
        fleet.run(aggregator, hosts, max_virtual_s=10 * rounds * deadline_s)
    finally:
        pool.close()
    return History(coordinator.params, aggregator.rounds)


def _evaluator(model: Model, data: Dataset) -> Callable[[np.ndarray], Evaluated]:
    if data.x_test is None or data.y_test is None:
        return lambda params: Evaluated()
    trainer, x, y = Trainer(model.plan, batch=MAX_CHUNK), data.x_test, data.y_test

    def evaluate(params: np.ndarray) -> Evaluated:
        result = trainer.evaluate(params, x, y)
        return Evaluated(result.loss if math.isfinite(result.loss) else None, result.accuracy)

    return evaluate
