"""simulate(): a whole federated run on one machine, over the sessions, coordinator and wire format of real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Dataset
from ..federation import Objects
from ..history import History, Run
from ..history_record import RoundRecord
from ..machine import Note
from ..onnx.model import Model
from ..settings import Settings
from ..settings.schema import checked
from .devices.world import World
from .filling import longest_s
from .inputs import Inputs, as_settings, check_callable
from .options import DEFAULTS, FleetOptions
from .resume.journal import Journal, identity
from .split.partitions import Partition
from .stage import Listeners, Stage

if TYPE_CHECKING:
    import onnx


def simulate(
    model: Model | str | os.PathLike[str] | bytes | onnx.ModelProto,
    data: Dataset | str,
    settings: Settings | None = None,
    *,
    devices: int = DEFAULTS.devices,
    rounds: int | None = None,
    partition: str | Partition = DEFAULTS.partition,
    workers: int | None = DEFAULTS.workers,
    threads: int = DEFAULTS.threads,
    engine: str = DEFAULTS.engine,
    seed: int | None = None,
    faults: str = DEFAULTS.faults,
    world: World | str | os.PathLike[str] | None = None,
    resume: Journal | str | os.PathLike[str] | None = None,
    resume_mb: float = DEFAULTS.resume_mb,
    on_start: Callable[[Run], None] = lambda run: None,
    on_round: Callable[[RoundRecord], None] = lambda record: None,
    on_model: Callable[[RoundRecord, np.ndarray], None] = lambda record, params: None,
    on_update: Callable[[str, bytes], None] = lambda device, blob: None,
    on_end: Callable[[History], None] = lambda history: None,
    note: Callable[[str, Note], None] = lambda name, note: None,
    **overrides: Any,
) -> History:
    """Run a federation on simulated devices and return what happened.

    `model` is an edgefl.Model, an ONNX file or a spec such as "mlp:64-32-10"; `data` a Dataset or a spec such as
    "digits". `settings` are changed by `overrides`: any setting by its name (`lr=0.1`, `codec="ecq:step=2"`,
    `**{"rounds.goal": 5}`, docs/settings.md has them all) or a whole section (`train=TrainSettings(...)`).
    `rounds` and `seed` are settings too; without them it is the settings' numbers, or 20 rounds.

    `strategy`, `codec`, `downlink` and `partition` may be objects, or named as plug-ins are (docs/plugins.md).
    `partition` spreads the training data over `devices`, `faults` stops and slows some of them, `world` says what they
    are like (an object, or the path of a TOML file: docs/simulation.md), `workers` train them at once, each with
    `threads` threads. `on_start` is told the settings with every "auto" resolved, `on_round` each round, `on_model`
    before it the params (P,) of each round that was committed, `on_update` each device's update with its header when
    its training ends, and `on_end` what happened, also if an exception or Ctrl-C ends the run. With error feedback,
    every device that has reported keeps 2 P bytes, in a file where it is much. Seconds in the history are virtual.

    `resume` names a journal, a file of at most `resume_mb`: the run writes it and removes it at its end. If it is there
    at the start, the run that was stopped goes on from it, and comes to the bits that it would have come to. The
    callbacks are told all rounds again. Raises UsageError, DataError, ModelError, CodecError, StoreError.
    """
    check_callable(
        on_start=on_start, on_round=on_round, on_model=on_model, on_update=on_update, on_end=on_end, note=note
    )
    objects = Objects.out_of(overrides)
    named = partition if isinstance(partition, str) else getattr(partition, "__name__", "a function")
    options = checked(FleetOptions(devices, named, faults, workers, threads, engine, resume_mb))
    shorthands = {"rounds.rounds": rounds, "train.seed": seed}
    overrides |= {key: value for key, value in shorthands.items() if value is not None}
    settings = as_settings(settings).replace(**overrides)
    given = Inputs.of(model, data, settings, options, partition=partition, objects=objects, world=world)
    stage = Stage.of(given, partition, Listeners(on_round, on_model, on_update, note))
    journal = None if resume is None else Journal.of(resume, options.resume_mb)
    if journal is not None:
        journal.begin(identity(given.run, given.model, stage.dataset))
        journal.follow(stage.aggregator)
    on_start(given.run)
    try:
        stage.fleet.run(stage.aggregator, stage.crowd, 10 * longest_s(given.settings.rounds), stage.helpers)
        if journal is not None:
            journal.done()
    finally:
        stage.fleet.close()
        if journal is not None:
            journal.close()
        history = History(stage.coordinator.params, stage.aggregator.rounds, given.run)
        on_end(history)
    return history
