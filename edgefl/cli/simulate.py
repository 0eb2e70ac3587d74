"""`edgefl simulate`: its options, and the run in memory; simulate_mqtt.py has the one over MQTT."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..errors import EdgeFLError, UsageError, nearest
from ..history import History, Run
from ..history_costs import spent
from ..history_record import RoundRecord
from ..history_text import total
from ..hosting import command, daemon
from ..settings import Settings, schema
from ..settings.reading import choices
from ..simulation.options import DEFAULTS, ROUNDS, FleetOptions
from . import model as cli_model
from .progress import Progress
from .run_folder import Job, RunFolder
from .simulate_mqtt import over_mqtt
from .text import line, say
from .values import add_settings, given

EXAMPLE = (
    "edgefl simulate --model mlp:64-32-10 --data digits --devices 50 --rounds 20 --partition shards:2\n"
    "  edgefl simulate --config aggregator.toml --data digits --devices 50 --set train.momentum=0.9"
)
SETTINGS = list(schema.settings_of(Settings().replace(rounds=ROUNDS)))
FLEET = list(schema.settings_of(FleetOptions))


def add_options(parser: argparse.ArgumentParser) -> None:
    """A federated run on this machine, in memory or over MQTT.

    A settings file is the very aggregator.toml of a deployment; options and --set replace what it says.
    """
    group = parser.add_argument_group("what is trained, and where the results go")
    add = group.add_argument
    add("--config", metavar="FILE", help="settings, model and how it is read, from this aggregator.toml")
    command.add_set_option(add)
    add("--model", metavar="M.onnx", help="an ONNX file, mlp:SIZES such as mlp:784-200-200-10, or mcmahan:cnn")
    help = (
        "digits, mnist:DIR, shakespeare:FILE, csv:FILE?target=COL, npz:FILE, python:MODULE:CALLABLE; see docs/data.md"
    )
    add("--data", required=True, metavar="SPEC", help=help)
    add("--out", type=Path, metavar="DIR", help="write run.json, history.jsonl (each round) and model.onnx there")
    add(
        "--resume",
        action="store_true",
        help="go on with the run in the --out folder that was stopped, in the same bits",
    )
    add("--force", action="store_true", help="replace a run that the --out folder holds")
    add("--json", metavar="FILE", help="write the history there; - for standard output")
    group = parser.add_argument_group("the fleet")
    add_settings(group, FLEET)
    help = "what the devices are like: speed, hours, link, battery, energy (docs/simulation.md); in memory only"
    group.add_argument("--devices-file", metavar="FILE.toml", help=help)
    help = "memory, mqtt (an embedded broker) or mqtt:URL"
    group.add_argument("--transport", default="memory", metavar="T", help=help)
    _add_sections(parser)
    cli_model.add_options(parser)
    parser.set_defaults(command=_simulate)


def _add_sections(parser: argparse.ArgumentParser) -> None:
    """A group of options for each section of the settings."""
    for section in msgspec.structs.fields(Settings):
        table = schema.table_type(section.type)
        text = (table.__doc__ or "").strip().partition("\n")[0]
        group = parser.add_argument_group(f"[{section.name}]", text)
        add_settings(group, [setting for setting in SETTINGS if setting.path[0] == section.name])


def _simulate(options: argparse.Namespace) -> int:
    from .. import data
    from ..arena_budget import within
    from ..onnx.scaling import with_scaling

    kind, _, url = options.transport.partition(":")
    if kind not in ("memory", "mqtt") or (kind == "memory" and url):
        shown = kind if "@" in url else options.transport  # without the password
        raise UsageError(f"unknown transport {shown!r}: {nearest(kind, ('memory', 'mqtt', 'mqtt:URL'))}")
    _check_json(options)
    settings = settings_of(options)
    _check_names(settings, options)
    folder = RunFolder(options.out, options.force, options.resume)
    dataset = data.load(options.data, seed=settings.train.seed)
    model = cli_model.load(options, settings.train.seed, dataset.y_train)
    model = with_scaling(model) if settings.features.is_federated else model
    model = within(model.adapt(settings.adapters), settings)
    dataset = data.fit_plan(dataset, model.plan)  # so that devices' files have the columns in the model's order
    options.loss = model.losses  # so that a later load, without the data, takes the same loss
    show = say if options.json != "-" else lambda line: None
    run = _in_memory if kind == "memory" else over_mqtt
    with daemon.unwind_on_termination():
        history = run(Job(options, settings, model, dataset, folder, show))
    _finish(options, history, show)
    if not history.final.committed:
        raise EdgeFLError(
            "no round was committed, the model is as it was: --log-level info says why devices did not report; "
            "then raise --deadline-s or lower --min-reports"
        )
    return 0


def _check_names(settings: Settings, options: argparse.Namespace) -> None:
    """UsageError for what is misspelt, before any data are read."""
    from ..simulation import names
    from ..simulation.devices.world import World

    wanted = schema.checked(FleetOptions(**given(options, FLEET)))
    names.check(settings, wanted.partition, wanted.faults)
    if options.devices_file:
        World.load(options.devices_file)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of --config, --set and the options; later ones win. Fills in the model and how it is read."""
    from ..hosting.config import AggregatorConfig
    from ..settings import files

    if options.config is None:
        if options.model is None:
            raise UsageError("there is no model: give --model, or --config with an aggregator.toml that names one")
        settings = files.build(Settings, {}, options.set)
    else:
        beneath = {"federation": "simulation", "model": options.model or "", "mqtt": {"url": "mqtt://127.0.0.1"}}
        config = files.load(options.config, AggregatorConfig, options.set, beneath=beneath)
        options.model = options.model or config.model
        if not options.model:
            raise UsageError(f"{options.config} names no model: add model = ..., or give --model")
        options.loss = options.loss or config.loss
        for name, names in choices(config).items():
            setattr(options, name, getattr(options, name) or names)
        options.dim = [*config.dims.items(), *options.dim]
        settings = Settings(**{name: getattr(config, name) for name in Settings.__struct_fields__})
    return settings.replace(**given(options, SETTINGS))


def _check_json(options: argparse.Namespace) -> None:
    """UsageError if the history could not be written: better before a long run than after it."""
    file = Path(options.json or "-")
    if options.json != "-" and (file.is_dir() or not file.parent.is_dir()):
        raise UsageError(f"can't write {file}: name a file in a folder that exists with --json")


def _in_memory(job: Job) -> History:
    from ..simulation.simulate import simulate

    options = given(job.options, FLEET)
    journal = job.folder.journal(options.get("resume_mb", DEFAULTS.resume_mb))

    began = False

    def start(run: Run) -> None:
        nonlocal began
        began = True
        job.folder.begin(run, 0 if journal is None else journal.replays)
        job.show_auto(run.auto)
        if journal is not None and journal.replays:
            job.show(f"resume: rounds 1 to {journal.replays} are played again from {journal.path}")

    with Progress(job.settings.rounds.rounds or ROUNDS) as progress:

        def after(record: RoundRecord) -> None:
            job.folder.add(record)
            is_new = journal is None or not journal.is_replaying
            progress.round_over(is_new)
            if is_new:
                job.show(line(record))

        try:
            return simulate(
                job.model, job.dataset, job.settings, **options, world=job.options.devices_file, resume=journal,
                on_start=start, on_round=after, on_end=lambda history: job.folder.end(job.model, history),
                note=_log_note,
            )  # fmt: skip
        finally:
            if not began and journal is not None:
                journal.close()
                job.folder.drop_journal()


def _finish(options: argparse.Namespace, history: History, show: Callable[[str], None]) -> None:
    if options.json == "-":
        sys.stdout.write(history.to_json().decode() + "\n")
    elif options.json:
        Path(options.json).write_bytes(history.to_json() + b"\n")
    show(total(history.final))
    for told in _costs(history):
        show(told)


def _costs(history: History) -> Iterator[str]:
    """What the run took, where a world says so, and what the accuracy that was wanted took."""
    final, target = history.final, history.run and history.run.settings.rounds.target_accuracy
    if final.joules is not None:
        yield f"the devices took {spent(final.elapsed_s, final.joules)}"
    if target and (cost := history.cost_to(target)) is not None:
        yield f"accuracy {target:g} after round {cost.round}: {cost}"


def _log_note(name: str, note: Any) -> None:
    import logging

    logging.getLogger(f"edgefl.{name}").log(getattr(logging, note.level.upper()), "%s: %s", name, note.text)
