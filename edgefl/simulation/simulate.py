"""simulate(): a whole federated run on one machine, over the sessions, coordinator and wire format of real ones."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import _core, auto, masked_fit
from .. import data as sources
from ..arena_budget import within
from ..codecs.feedback import FEEDBACK_ROUNDS
from ..coordinator.cohort import expected_reports, size
from ..coordinator.coordinator import RoundCoordinator
from ..coordinator.masked_terms import MaskedTerms
from ..core.plan import Plan
from ..core.seeds import derived_seed
from ..core.trainer import Trainer
from ..data import Dataset, fit_plan
from ..device.status import DeviceStatus
from ..device.training import arena_batch
from ..errors import UsageError
from ..federation import Objects, make_manifest, make_strategy
from ..helper.least import Least
from ..history import History, Run
from ..history_record import RoundRecord
from ..machine import Note
from ..onnx.load import load
from ..onnx.model import Model
from ..onnx.scaling import with_scaling
from ..onnx.specs import is_spec
from ..privacy.ledger import Ledger
from ..protocol.envelope import MAX_PART_BYTES
from ..protocol.manifest import Manifest
from ..protocol.messages import Status
from ..protocol.topics import Topics
from ..settings import RoundSettings, Settings
from ..settings.privacy import HELPER
from ..settings.schema import checked
from ..strategies import Site
from ..strategies.masked import over, site_of
from . import names
from .adversary import Adversary
from .body import PLAIN
from .crowd import Crowd, device_names, number_of
from .device_host import DeviceHost
from .energy import Meter
from .evaluation import evaluator
from .faults import NO_HANDICAP, Faults
from .fleet import AggregatorHost, Fleet
from .helper_host import HelperHost
from .journal import Journal, identity
from .keyring import Keyring
from .options import DEFAULTS, ROUNDS, FleetOptions, cores
from .partitions import Partition
from .shares import Shares
from .shifts import spread
from .workers import make_pool
from .world import Bodies, World

if TYPE_CHECKING:
    import onnx

FEDERATION = "simulation"
DAY_S = 86400.0
RARE = 0.05  # probability that a device is asked again before its residual expires: below it, it keeps none
S = TypeVar("S", bound=Settings)


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
    _check_callable(
        on_start=on_start, on_round=on_round, on_model=on_model, on_update=on_update, on_end=on_end, note=note
    )
    objects = Objects.out_of(overrides)
    named = partition if isinstance(partition, str) else getattr(partition, "__name__", "a function")
    options = checked(FleetOptions(devices, named, faults, workers, threads, engine, resume_mb))
    given = {"rounds.rounds": rounds, "train.seed": seed}
    overrides |= {key: value for key, value in given.items() if value is not None}
    settings = fill(_checked_settings(settings).replace(**overrides), options.devices)
    names.check(settings, partition, options.faults, objects)
    world = world if world is None or isinstance(world, World) else World.load(world)
    seed = settings.train.seed
    found = _as_dataset(data, seed)
    model = _as_model(model, seed, found)
    model = with_scaling(model) if settings.features.is_federated else model
    model = within(model.adapt(settings.adapters), settings)
    dataset = _fitted(found, settings, model)
    settings.gate.check(dataset.x_test is not None, settings.evaluate.holdout)
    choice = auto.choose(settings, model.plan) if auto.wanted(settings) else None
    fleet_options = {key: getattr(options, key) for key in ("devices", "partition", "faults")}
    if world is not None:
        fleet_options["world"] = world.told()
    run = Run.of(settings, choice, fleet_options)
    settings = run.settings
    kinds = Faults.parse(options.faults)
    if settings.privacy.masked and kinds.attack is not None:
        raise UsageError("privacy.masked: attacks read the updates of other devices, which are masked: leave them out")
    cut = settings if world is not None or kinds.slow_links else uncut(settings)
    manifest = make_manifest(cut, FEDERATION, f"{derived_seed(seed, 'run'):016x}", model.plan, objects=objects)
    dataset, parts = spread(dataset, partition, options.devices, seed)
    rng = random.Random(derived_seed(seed, "coordinator"))
    strategy = over(manifest.mask, make_strategy(settings, objects))
    strategy.prepare(site := _site(settings, model.plan))
    strategy.restore({})  # an object may have been in a run before
    devices_of = device_names(len(parts))
    keyring = Keyring(FEDERATION, seed, devices_of, settings.privacy.helper_names) if settings.privacy.masked else None
    coordinator = RoundCoordinator(
        manifest, masked_fit.rounds_of(settings), strategy, model.params, rng=rng, gate=settings.gate,
        admission=masked_fit.admission_of(settings), features=settings.features,
        keys=None if keyring is None else keyring.aggregator,
        masked=None if keyring is None else _masked(settings, manifest, keyring),
    )  # fmt: skip
    plan, batch = model.plan, arena_batch(settings.train.batch_size)
    evaluate = evaluator(model, dataset, manifest.mask, options.workers or cores())
    pool = make_pool(options, lambda threads: Trainer(plan, batch=batch, threads=threads))
    fleet = Fleet(
        pool, kinds, on_round=on_round, note=note, on_model=on_model,
        meter=None if world is None else Meter(),
    )  # fmt: skip
    fleet.on_update = on_update
    fleet.keeps_residuals = size(settings.rounds, len(parts)) * FEEDBACK_ROUNDS >= RARE * len(parts)
    aggregator = AggregatorHost(fleet, coordinator, evaluate)
    bodies = None if world is None else world.bodies(len(parts), _core.plan_flops(plan), seed)
    crowd = _crowd(fleet, devices_of, Shares(dataset, parts), seed, bodies=bodies, keyring=keyring)
    if (attack := fleet.faults.attack) is not None:
        adversary = Adversary(attack, devices_of, seed, coordinator)
        inner = site_of(manifest.mask, site)
        adversary.prepare(dataset.y_train, strategy, lambda: make_strategy(settings, objects), inner)
        fleet.adversary = adversary
    journal = None if resume is None else Journal.of(resume, options.resume_mb)
    if journal is not None:
        journal.begin(identity(run, model, dataset))
        journal.follow(aggregator)
    on_start(run)
    try:
        fleet.run(aggregator, crowd, 10 * longest_s(settings.rounds), _helpers(fleet, settings, keyring))
        if journal is not None:
            journal.done()
    finally:
        fleet.close()
        if journal is not None:
            journal.close()
        history = History(coordinator.params, aggregator.rounds, run)
        on_end(history)
    return history


def _masked(settings: Settings, manifest: Manifest, keyring: Keyring) -> MaskedTerms:
    most = masked_fit.most_of(settings)
    assert most is not None  # masked_fit.check has seen to that
    return MaskedTerms(
        settings.privacy, manifest, most=most, fleet=masked_fit.fleet_of(settings), rounds=settings.rounds.rounds or 0,
        helpers=keyring.parties, certificates=keyring.certificates, ledger=Ledger(keyring.root, settings.privacy.delta),
    )  # fmt: skip


def _helpers(fleet: Fleet, settings: Settings, keyring: Keyring | None) -> list[HelperHost]:
    names = () if keyring is None else keyring.helpers
    privacy = settings.privacy
    most_clip = privacy.clipping.bounds[1]
    least = Least(devices=privacy.least, weight=privacy.weight, clip=most_clip, delta=privacy.delta)
    return [HelperHost(fleet, keyring.helper(name), keyring.roster, least) for name in names if keyring is not None]


def _crowd(
    fleet: Fleet, devices: list[str], shares: Shares, seed: int, *, bodies: Bodies | None, keyring: Keyring | None
) -> Crowd:
    """A device for each share."""
    handicaps = fleet.faults.handicaps(devices, seed)
    topics = Topics(FEDERATION)

    def make(number: int) -> DeviceHost:
        name = devices[number]
        host = DeviceHost(
            fleet, name, shares.of(number), federation=FEDERATION, seed=seed,
            handicap=handicaps.get(name, NO_HANDICAP), body=bodies.body(number) if bodies else PLAIN, keyring=keyring,
        )  # fmt: skip
        fleet.hosts[name] = host
        return host

    @cache
    def status(examples: int) -> Status:
        return DeviceStatus(topics.status(""), examples).first()

    lives = (name for name, handicap in handicaps.items() if handicap.away_s or handicap.bytes_per_s)
    lively = {*map(number_of, lives), *(bodies.lively() if bodies else ())}
    shown = 0 if keyring is not None else 1
    return Crowd(devices, make, lambda number: status(shown * len(shares.of(number))), lively)


def _site(settings: Settings, plan: Plan) -> Site:
    reports, spill_bytes = expected_reports(settings.rounds), int(settings.strategy.spill_mb * 1e6)
    return Site(
        plan.num_params,
        plan.num_trainable,
        reports,
        spill_bytes=spill_bytes,
        late_rounds=settings.rounds.late_window,
        devices=settings.rounds.expect,
    )


def fill(settings: S, devices: int) -> S:
    """What a simulation of so many devices knows beforehand: how many rounds, how many devices to expect, and that
    nothing is gained by waiting between rounds. UsageError if there are too few devices for any round."""
    rounds = settings.rounds
    if devices < rounds.min_reports:
        raise UsageError(
            f"{devices} device{'s' * (devices > 1)} can't make the {rounds.min_reports} reports that a round needs: "
            f"set min_reports to {devices} (--min-reports {devices}), or simulate {rounds.min_reports} devices"
        )
    return settings.replace(
        **{
            "rounds.rounds": rounds.rounds or ROUNDS,
            "rounds.expect": rounds.expect or devices,
            "rounds.interval_s": rounds.interval_s or 0.0,
            "privacy.helpers": settings.privacy.helpers or (HELPER if settings.privacy.masked else None),
        }
    )


def longest_s(rounds: RoundSettings) -> float:
    """Seconds that all rounds take if each runs into its deadline, and each day's window has room for one."""
    each_s = max(rounds.deadline_s, rounds.interval_s or 0.0) + (DAY_S if rounds.window else 0.0)
    return (rounds.rounds or 1) * each_s


def uncut(settings: S) -> S:
    """With parts as long as they may be, where the settings leave that open: on links where a message of any length
    passes at once, short parts cost time and nothing else."""
    return settings.replace(**{"codec.part_bytes": MAX_PART_BYTES}) if settings.codec.part_bytes == "auto" else settings


def _checked_settings(settings: Settings | None) -> Settings:
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise UsageError(f"settings is {_shown(settings)}: give edgefl.Settings(...) or edgefl.Settings.load(path)")
    return settings.checked()


def _as_model(model: Any, seed: int, data: Dataset) -> Model:
    """The model; where its loss is inferred here, by the data's targets too."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str) and is_spec(model):
        from ..onnx import zoo

        return load(zoo.from_spec(model, seed), y=data.y_train)
    if isinstance(model, (str, os.PathLike, bytes)) or hasattr(model, "SerializeToString"):
        return load(model, y=data.y_train)
    raise UsageError(f'model is {_shown(model)}: give edgefl.load(...), an ONNX file or a spec such as "mlp:64-32-10"')


def _as_dataset(data: Any, seed: int) -> Dataset:
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


def _check_callable(**callbacks: object) -> None:
    for name, value in callbacks.items():
        if not callable(value):
            raise UsageError(f"{name} is {_shown(value)}: give a function")


def _shown(value: Any) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"
