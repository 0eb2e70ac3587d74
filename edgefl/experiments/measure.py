"""Measure: run one case, and judge its models on the examples that the devices hold out."""

from __future__ import annotations

import math
import time
from functools import lru_cache

import numpy as np

from .. import data as sources
from ..core.params import params_sha256
from ..core.trainer import Trainer
from ..data import Dataset, fit_shape
from ..device.holdout import held_out
from ..device.training import MAX_CHUNK
from ..history import History, RoundRecord, Run
from ..onnx import zoo
from ..onnx.load import load
from ..onnx.model import Model
from ..onnx.scaling import with_scaling
from ..onnx.specs import is_spec
from ..settings import Settings
from ..simulation.crowd import device_names
from ..simulation.options import DEFAULTS
from ..simulation.partitions import split
from ..simulation.simulate import simulate
from .cases import Case
from .results import Curve, Result

WORST = 10  # the worst of so many devices


class HeldOut:
    """The held-out examples of every device, each device's together."""

    def __init__(self, model: Model, data: Dataset, case: Case, settings: Settings) -> None:
        self._trainer = Trainer(model.plan, batch=MAX_CHUNK)
        data = fit_shape(data, tuple(model.plan.input_shape))
        devices = case.fleet.get("devices", DEFAULTS.devices)
        parts = split(data, case.fleet.get("partition", DEFAULTS.partition), devices, case.seed)
        self._shares = []
        for name, part in zip(device_names(devices), parts, strict=True):
            rows = part[held_out(name, len(part), settings.evaluate.holdout)]
            if len(rows):
                self._shares.append((data.x_train[rows], data.y_train[rows]))

    def scores(self, params: np.ndarray) -> dict[str, float | None]:
        """Means over all examples, and over the devices that fare worst; None where nothing is held out."""
        found = [(len(x), self._trainer.evaluate(params, x, y)) for x, y in self._shares]
        counts = [count for count, _ in found]
        losses = [result.loss for _, result in found]
        accuracies = [result.accuracy for _, result in found if result.accuracy is not None]
        return {
            "held_loss": _mean(losses, counts),
            "worst_loss": _mean(sorted(losses, reverse=True)[: _tenth(losses)]),
            "held_accuracy": _mean(accuracies, counts) if len(accuracies) == len(counts) else None,
            "worst_accuracy": _mean(sorted(accuracies)[: _tenth(accuracies)]),
        }


def _tenth(values: list[float]) -> int:
    return -(-len(values) // WORST)


def _mean(values: list[float], weights: list[int] | None = None) -> float | None:
    if not values:
        return None
    mean = float(np.average(values, weights=weights))
    return mean if math.isfinite(mean) else None


def measure(case: Case) -> Result:
    """Run a case to its end. Raises what simulate() raises."""
    started = time.monotonic()
    settings, data = case.to_settings(), _data(case.data, case.seed)
    model = _model(case, data)
    model = with_scaling(model) if settings.features.is_federated else model
    held = HeldOut(model, data, case, settings)
    curve, runs, scores = Curve(), list[Run](), dict[int, dict[str, float | None]]()

    def judge(record: RoundRecord, params: np.ndarray) -> None:
        if record.round % case.held_every == 0 or record.round == settings.rounds.rounds:
            scores[record.round] = held.scores(params)

    history: History = simulate(
        model, data, settings, workers=1, world=case.world or None, on_start=runs.append, on_model=judge,
        on_round=lambda record: curve.add(record, scores.pop(record.round, {})), **case.fleet,
    )  # fmt: skip
    took_s = round(time.monotonic() - started, 3)
    return Result(case, runs[0], curve, params_sha256(history.params), took_s)


@lru_cache(1)
def _data(spec: str, seed: int) -> Dataset:
    return sources.load(spec, seed=seed)


def _model(case: Case, data: Dataset) -> Model:
    source = zoo.from_spec(case.model, case.seed) if is_spec(case.model) else case.model
    return load(source, loss=case.loss, freeze=case.freeze, dims=case.dims, y=data.y_train)
