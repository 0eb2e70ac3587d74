"""What simulate() is given, looked at before anything runs: the model, the data and the settings that go together."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from .. import auto
from .. import data as sources
from ..arena_budget import within
from ..data import Dataset, fit_plan
from ..errors import UsageError
from ..federation import Objects
from ..history import Run
from ..onnx.load import load
from ..onnx.model import Model
from ..onnx.scaling import with_scaling
from ..onnx.specs import is_spec
from ..settings import Settings
from . import names
from .devices.faults import Faults
from .devices.world import World
from .filling import fill
from .options import FleetOptions
from .split.partitions import Partition


@dataclass(frozen=True)
class Inputs:
    """`run` has the settings with every "auto" resolved; `dataset` is shaped as the model wants it, and whole."""

    model: Model
    dataset: Dataset
    run: Run
    objects: Objects
    options: FleetOptions
    faults: Faults
    world: World | None

    @property
    def settings(self) -> Settings:
        return self.run.settings

    @property
    def seed(self) -> int:
        return self.settings.train.seed

    @classmethod
    def of(
        cls, model: Any, data: Any, settings: Settings, options: FleetOptions, *, partition: str | Partition,
        objects: Objects, world: World | str | os.PathLike[str] | None,
    ) -> Inputs:  # fmt: skip
        """All that was given, read and checked against each other; UsageError, DataError, ModelError."""
        settings = fill(settings, options.devices)
        names.check(settings, partition, options.faults, objects)
        world = world if world is None or isinstance(world, World) else World.load(world)
        seed = settings.train.seed
        found = _dataset(data, seed)
        model = _model(model, seed, found)
        model = with_scaling(model) if settings.features.is_federated else model
        model = within(model.adapt(settings.adapters), settings)
        dataset = _fitted(found, settings, model)
        settings.gate.check(dataset.x_test is not None, settings.evaluate.holdout)
        choice = auto.choose(settings, model.plan) if auto.wanted(settings) else None
        told: dict[str, Any] = {key: getattr(options, key) for key in ("devices", "partition", "faults")}
        if world is not None:
            told["world"] = world.told()
        faults = Faults.parse(options.faults)
        if settings.privacy.masked and faults.attack is not None:
            raise UsageError(
                "privacy.masked: attacks read the updates of other devices, which are masked: leave them out"
            )
        return cls(model, dataset, Run.of(settings, choice, told), objects, options, faults, world)


def as_settings(settings: Any) -> Settings:
    """The settings that were given, checked; the defaults without any."""
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise UsageError(f"settings is {_shown(settings)}: give edgefl.Settings(...) or edgefl.Settings.load(path)")
    return settings.checked()


def check_callable(**callbacks: object) -> None:
    for name, value in callbacks.items():
        if not callable(value):
            raise UsageError(f"{name} is {_shown(value)}: give a function")


def _model(model: Any, seed: int, data: Dataset) -> Model:
    """The model; where its loss is inferred here, by the data's targets too."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str) and is_spec(model):
        from ..onnx import zoo

        return load(zoo.from_spec(model, seed), y=data.y_train)
    if isinstance(model, (str, os.PathLike, bytes)) or hasattr(model, "SerializeToString"):
        return load(model, y=data.y_train)
    raise UsageError(f'model is {_shown(model)}: give edgefl.load(...), an ONNX file or a spec such as "mlp:64-32-10"')


def _dataset(data: Any, seed: int) -> Dataset:
    found = sources.load(data, seed=seed) if isinstance(data, str) else data
    if not isinstance(found, Dataset):
        raise UsageError(f'data is {_shown(data)}: give edgefl.data.load(...), a Dataset or a spec such as "digits"')
    return found


def _fitted(found: Dataset, settings: Settings, model: Model) -> Dataset:
    """The examples, shaped as the model wants them, with the test set that the settings name."""
    dataset = fit_plan(found, model.plan)
    model.check_targets(dataset.y_train)
    model.check_classes(dataset.labels, dataset.target_labels)
    if settings.evaluate.test_data is None:
        return dataset
    test = sources.load_test_set(settings.evaluate.test_data, model.plan)
    model.check_classes(test.labels, test.target_labels)
    return replace(dataset, x_test=test.x_test, y_test=test.y_test)


def _shown(value: Any) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"
