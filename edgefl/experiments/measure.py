"""Measure: run one case, and judge its models on the examples that the devices hold out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import data as sources
from ..arena_budget import within
from ..core.params import params_sha256
from ..core.trainer import Trainer
from ..data import Dataset, fit_plan
from ..device.holdout import held_out
from ..device.training import MAX_CHUNK
from ..errors import EdgeFLError
from ..history import Run
from ..history_record import RoundRecord
from ..onnx import zoo
from ..onnx.load import load
from ..onnx.model import Model
from ..onnx.scaling import with_scaling
from ..onnx.specs import is_spec
from ..protocol.update_header import UpdateHeader
from ..settings import Settings
from ..settings.reading import choices
from ..simulation.hosts.crowd import device_names
from ..simulation.options import DEFAULTS
from ..simulation.resume import journal_file
from ..simulation.resume.journal_file import Busy
from ..simulation.simulate import simulate
from ..simulation.split.shifts import spread
from .cases import Case
from .results import Curve, Result, Scores

WORST = 10  # the worst of so many devices


class HeldOut:
    """The held-out examples of every device, which judge a model that all devices share."""

    def __init__(self, model: Model, data: Dataset, case: Case, settings: Settings) -> None:
        self._trainer = Trainer(model.plan, batch=MAX_CHUNK)
        self._shares: list[tuple[np.ndarray, np.ndarray]] = []
        if not settings.evaluate.holdout:
            return
        data = fit_plan(data, model.plan)
        devices = case.fleet.get("devices", DEFAULTS.devices)
        data, parts = spread(data, case.fleet.get("partition", DEFAULTS.partition), devices, case.seed)
        for name, part in zip(device_names(devices), parts, strict=True):
            rows = part[held_out(name, len(part), settings.evaluate.holdout)]
            if len(rows):
                self._shares.append((data.x_train[rows], data.y_train[rows]))

    def scores(self, params: np.ndarray) -> Scores:
        """Over all devices."""
        found = [(len(x), self._trainer.evaluate(params, x, y)) for x, y in self._shares]
        return summed_up([(count, result.loss, result.accuracy) for count, result in found])


class Reports:
    """What each device has reported last of the model that it uses: its own if it has one that is better on its
    held-out examples, else the one that it has received."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, float, float | None]] = {}

    def add(self, device: str, update: bytes) -> None:
        header = UpdateHeader.from_bytes(update)
        if header.personal is not None:
            self._newest[device] = (header.num_eval, header.personal.loss, header.personal.accuracy)
        elif header.num_eval and header.eval_loss is not None:
            self._newest[device] = (header.num_eval, header.eval_loss, header.eval_accuracy)

    def scores(self) -> Scores:
        """Over the devices that have reported."""
        return summed_up(list(self._newest.values()))


def summed_up(found: Sequence[tuple[int, float, float | None]]) -> Scores:
    """Of (examples, loss, accuracy) for each device: means over all examples, and over the tenth of the devices that
    fare worst. None where nothing is held out."""
    counts, losses = [count for count, _, _ in found], [loss for _, loss, _ in found]
    accuracies = [accuracy for _, _, accuracy in found if accuracy is not None]
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


def measure(case: Case, journal: Path) -> Result:
    """Run a case to its end, or go on with it where `journal` was left. Raises what simulate() raises."""
    resumes = journal.exists()
    try:
        return _measure(case, journal)
    except Busy:  # a process that has outlived its command is at it
        raise
    except Exception as error:
        journal_file.remove(journal)
        if not (resumes and isinstance(error, EdgeFLError)):
            raise
    return measure(case, journal)  # the journal was damaged, or of another version


def _measure(case: Case, journal: Path) -> Result:
    started = time.monotonic()
    settings, data = case.to_settings(), _data(case.data, case.seed)
    model = _model(case, data)
    model = with_scaling(model) if settings.features.is_federated else model
    model = within(model.adapt(settings.adapters), settings)
    held = HeldOut(model, data, case, settings) if case.judge == "model" else None
    reports, runs, scores = Reports(), list[Run](), dict[int, Scores]()

    def on_model(record: RoundRecord, params: np.ndarray) -> None:
        if held and (record.round % case.held_every == 0 or record.round == settings.rounds.rounds):
            scores[record.round] = held.scores(params)

    def on_round(record: RoundRecord) -> None:
        if not held:
            scores[record.round] = reports.scores()

    history = simulate(
        model, data, settings, workers=1, world=case.world or None, resume=journal, on_start=runs.append,
        on_model=on_model, on_round=on_round, on_update=reports.add, **case.fleet,
    )  # fmt: skip
    if held and data.x_test is not None and all(record.loss is None for record in history.rounds):
        scores.clear()  # devices have personal params: the aggregator's model is nobody's
    took_s = round(time.monotonic() - started, 3)
    return Result(case, runs[0], Curve.of(history.rounds, scores), params_sha256(history.params), took_s)


@lru_cache(1)
def _data(spec: str, seed: int) -> Dataset:
    return sources.load(spec, seed=seed)


def _model(case: Case, data: Dataset) -> Model:
    source = zoo.from_spec(case.model, case.seed) if is_spec(case.model) else case.model
    return load(source, loss=case.loss, **choices(case), dims=case.dims, y=data.y_train)
