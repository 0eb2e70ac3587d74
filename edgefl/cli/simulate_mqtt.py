"""`edgefl simulate --transport mqtt`: the real aggregator and agents, as processes on one machine."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import UsageError
from ..history import History
from ..settings import Settings, schema
from ..simulation.options import DEFAULTS, FleetOptions
from . import model as cli_model
from .run_folder import Job, RunFolder
from .text import line
from .values import given

if TYPE_CHECKING:
    from ..simulation.processes import ProcessFleet

FLEET = list(schema.settings_of(FleetOptions))


def over_mqtt(job: Job) -> History:
    """Run the aggregator and agents as processes on an MQTT broker. UsageError for what only a run in memory has."""
    import math
    import os

    from .. import auto
    from ..simulation.filling import fill, longest_s
    from ..simulation.processes import ProcessFleet
    from ..simulation.split.shifts import spread
    from ..transports.embedded import EmbeddedBroker

    options, model = job.options, job.model
    wanted = FleetOptions(**given(options, FLEET))
    _check(options, wanted, job.settings)
    dataset, parts = spread(job.dataset, wanted.partition, wanted.devices, job.settings.train.seed)
    settings = fill(job.settings, len(parts))
    if auto.wanted(settings):
        job.show_auto(auto.choose(settings, model.plan).explain(settings))
    workers = wanted.workers or os.cpu_count() or 1
    with ExitStack() as stack:
        home = options.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefl-")))
        url = options.transport.partition(":")[2]
        broker = url or stack.enter_context(EmbeddedBroker()).url
        fleet = ProcessFleet(
            home.resolve(), broker, model.to_bytes(merge=False), dataset, parts, settings=_tables(settings, options),
            agents_per_process=math.ceil(len(parts) / workers),
        )  # fmt: skip
        stack.callback(_copy, job.folder, model, fleet, options)  # after the daemons' end, however that came
        stack.enter_context(fleet)
        fleet.wait(lambda record: job.show(line(record)), timeout_s=longest_s(settings.rounds) + 60)
        return _history(fleet, options)


def _check(options: argparse.Namespace, wanted: FleetOptions, settings: Settings) -> None:
    """UsageError for what only a run in memory has."""
    for used, what, instead in [
        (wanted.faults, "--faults", "over MQTT stop real processes instead"),
        (wanted.engine != DEFAULTS.engine, "--engine", "agents over MQTT train where they run"),
        (settings.sparse.arena_mb, "--arena-mb", "edgefl-aggregator takes [sparse] from its file"),
        (wanted.threads != DEFAULTS.threads, "--threads", "agents over MQTT have one core each"),
        (options.resume, "--resume", "an aggregator goes on from its state by itself"),
        (options.devices_file, "--devices-file", "real processes are as fast as this machine"),
    ]:
        if used:
            raise UsageError(f"{what} works on the memory transport; {instead}")


def _tables(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """aggregator.toml, as far as it says what is trained and how."""
    tables = {
        **msgspec.to_builtins(settings), "loss": options.loss, "freeze": options.freeze, "also_train": options.train,
        "tie": options.tie, "untie": options.untie, "dims": dict(options.dim), "constants": dict(options.constants),
    }  # fmt: skip
    tables["adapters"]["merge"] = False  # the model is read back from the aggregator's file
    return tables


def _history(fleet: ProcessFleet, options: argparse.Namespace) -> History:
    return fleet.history(cli_model.load_trained(options, fleet.model).params)


def _copy(folder: RunFolder, model: Any, fleet: ProcessFleet, options: argparse.Namespace) -> None:
    """Write the rounds and the model of a run of processes to `folder`, as a run in memory does while it runs."""
    if not fleet.model.exists():  # no model has been written yet
        return
    history = _history(fleet, options)
    folder.begin(history.run)
    for record in history.rounds:
        folder.add(record)
    folder.end(model, history)
