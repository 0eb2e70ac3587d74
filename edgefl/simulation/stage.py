"""The machines of a simulated federation and what they stand on, made from the inputs and not yet running."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from .. import _core, masked_fit
from ..codecs.feedback import FEEDBACK_ROUNDS
from ..coordinator.coordinator import RoundCoordinator
from ..coordinator.devices.cohort import expected_reports, size
from ..coordinator.masked.terms import MaskedTerms
from ..core.plan import Plan
from ..core.seeds import derived_seed
from ..core.trainer import Trainer
from ..data import Dataset
from ..device.status import DeviceStatus
from ..device.training import arena_batch
from ..federation import make_manifest, make_strategy
from ..helper.least import Least
from ..history_record import RoundRecord
from ..machine import Note
from ..privacy.ledger import Ledger
from ..protocol.manifest import Manifest
from ..protocol.messages import Status
from ..protocol.topics import Topics
from ..settings import Settings
from ..strategies import Site, Strategy
from ..strategies.masked import over, site_of
from .devices.adversary import Adversary
from .devices.body import PLAIN
from .devices.energy import Meter
from .devices.faults import NO_HANDICAP
from .devices.world import Bodies
from .evaluation import evaluator
from .filling import uncut
from .hosts.crowd import Crowd, device_names, number_of
from .hosts.device_host import DeviceHost
from .hosts.fleet import AggregatorHost, Fleet
from .hosts.helper_host import HelperHost
from .hosts.keyring import Keyring
from .inputs import Inputs
from .options import cores
from .split.partitions import Partition
from .split.shifts import spread
from .tasks.shares import Shares
from .tasks.workers import make_pool

FEDERATION = "simulation"
RARE = 0.05  # probability that a device is asked again before its residual expires: below it, it keeps none


@dataclass(frozen=True)
class Listeners:
    """What to call while the rounds run; simulate() says when."""

    on_round: Callable[[RoundRecord], None]
    on_model: Callable[[RoundRecord, np.ndarray], None]
    on_update: Callable[[str, bytes], None]
    note: Callable[[str, Note], None]


@dataclass(frozen=True)
class Stage:
    """One aggregator, its helpers, a device for each share of `dataset`, which the partition may have shifted, and the
    fleet in which they meet."""

    dataset: Dataset
    coordinator: RoundCoordinator
    aggregator: AggregatorHost
    fleet: Fleet
    crowd: Crowd
    helpers: list[HelperHost]

    @classmethod
    def of(cls, given: Inputs, partition: str | Partition, listeners: Listeners) -> Stage:
        settings, plan, seed = given.settings, given.model.plan, given.seed
        cut = settings if given.world is not None or given.faults.slow_links else uncut(settings)
        run = f"{derived_seed(seed, 'run'):016x}"
        manifest = make_manifest(cut, FEDERATION, run, plan, objects=given.objects)
        dataset, parts = spread(given.dataset, partition, given.options.devices, seed)
        site, strategy = _strategy(given, manifest)
        devices = device_names(len(parts))
        keyring = Keyring(FEDERATION, seed, devices, settings.privacy.helper_names) if settings.privacy.masked else None
        coordinator = _coordinator(given, manifest, strategy, keyring)
        evaluate = evaluator(given.model, dataset, manifest.mask, given.options.workers or cores())
        fleet = _fleet(given, listeners, len(parts))
        aggregator = AggregatorHost(fleet, coordinator, evaluate)
        bodies = None if given.world is None else given.world.bodies(len(parts), _core.plan_flops(plan), seed)
        crowd = _crowd(fleet, devices, Shares(dataset, parts), seed, bodies=bodies, keyring=keyring)
        if (attack := fleet.faults.attack) is not None:
            adversary = Adversary(attack, devices, seed, coordinator)
            inner = site_of(manifest.mask, site)
            adversary.prepare(dataset.y_train, strategy, lambda: make_strategy(settings, given.objects), inner)
            fleet.adversary = adversary
        return cls(dataset, coordinator, aggregator, fleet, crowd, _helpers(fleet, settings, keyring))


def _strategy(given: Inputs, manifest: Manifest) -> tuple[Site, Strategy]:
    """The strategy at its start, and where it works."""
    strategy = over(manifest.mask, make_strategy(given.settings, given.objects))
    strategy.prepare(site := _site(given.settings, given.model.plan))
    strategy.restore({})  # an object may have been in a run before
    return site, strategy


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


def _coordinator(given: Inputs, manifest: Manifest, strategy: Strategy, keyring: Keyring | None) -> RoundCoordinator:
    settings, rng = given.settings, random.Random(derived_seed(given.seed, "coordinator"))
    return RoundCoordinator(
        manifest, masked_fit.rounds_of(settings), strategy, given.model.params, rng=rng, gate=settings.gate,
        admission=masked_fit.admission_of(settings), features=settings.features,
        keys=None if keyring is None else keyring.aggregator,
        masked=None if keyring is None else _masked(settings, manifest, keyring),
    )  # fmt: skip


def _masked(settings: Settings, manifest: Manifest, keyring: Keyring) -> MaskedTerms:
    most = masked_fit.most_of(settings)
    assert most is not None  # masked_fit.check has seen to that
    return MaskedTerms(
        settings.privacy, manifest, most=most, fleet=masked_fit.fleet_of(settings), features=settings.features,
        rounds=settings.rounds.rounds or 0, helpers=keyring.parties, certificates=keyring.certificates,
        ledger=Ledger(keyring.root, settings.privacy.delta),
    )  # fmt: skip


def _fleet(given: Inputs, listeners: Listeners, devices: int) -> Fleet:
    plan, batch = given.model.plan, arena_batch(given.settings.train.batch_size)
    pool = make_pool(given.options, lambda threads: Trainer(plan, batch=batch, threads=threads))
    fleet = Fleet(
        pool, given.faults, on_round=listeners.on_round, note=listeners.note, on_model=listeners.on_model,
        meter=None if given.world is None else Meter(),
    )  # fmt: skip
    fleet.on_update = listeners.on_update
    fleet.keeps_residuals = size(given.settings.rounds, devices) * FEEDBACK_ROUNDS >= RARE * devices
    return fleet


def _helpers(fleet: Fleet, settings: Settings, keyring: Keyring | None) -> list[HelperHost]:
    if keyring is None:
        return []
    privacy = settings.privacy
    most_clip = privacy.clipping.bounds[1]
    least = Least(devices=privacy.least, weight=privacy.weight, clip=most_clip, delta=privacy.delta)
    return [HelperHost(fleet, keyring.helper(name), keyring.roster, least) for name in keyring.helpers]


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
