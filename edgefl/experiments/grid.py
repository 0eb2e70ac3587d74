"""From an experiment to the cases that it compares: strategies × codecs × partitions × faults × seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import msgspec

from .. import codecs, strategies
from ..errors import UsageError, nearest
from ..settings import Settings
from ..settings.schema import find
from ..settings.spec import join, split
from ..simulation import names
from ..simulation.devices.world import World
from ..simulation.options import ROUNDS
from .cases import NO_BITS, Case, changed, contents_of, examples_of, fleet_of, plain
from .experiment import Experiment
from .results import COSTS

Point = Mapping[str, Any]  # settings, or options of a strategy, by name


class Cell(NamedTuple):
    """What is compared: all runs of a cell differ by their seed alone."""

    variant: str
    codec: str
    partition: str
    faults: str


class Grid:
    """An experiment whose names have been looked up. UsageError says which one is wrong."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        wanted, fleet = experiment.compare, experiment.fleet
        if strange := changed(fleet).keys() & set(NO_BITS):
            raise UsageError(f"[fleet] {min(strange)}: every run is a process with one thread; --jobs says how many")
        base = plain(experiment)
        self.base = base.replace(rounds=base.rounds.rounds or ROUNDS)
        self.variants = self._variants()
        self.codecs = list(dict.fromkeys(wanted.codecs)) or [""]
        self.partitions = list(dict.fromkeys(wanted.partitions)) or [fleet.partition]
        self.faults = list(dict.fromkeys(wanted.faults)) or [fleet.faults]
        if strange := wanted.budgets.keys() - set(COSTS):
            raise UsageError(f"[compare.budgets] {min(strange)}: {nearest(min(strange), COSTS)}")
        if experiment.devices_file:
            World.load(experiment.devices_file)
        for codec in self.codecs:
            _with_codec(self.base, codec)
        for changes, partition, faults in product(self.variants.values(), self.partitions, self.faults):
            names.check(self.base.replace(**changes), partition, faults)

    def _variants(self) -> dict[str, dict[str, Any]]:
        """Name -> settings. A strategy's name is its row's."""
        wanted = self.experiment.compare
        found: dict[str, dict[str, Any]] = {name: {"strategy": name} for name in wanted.strategies}
        if twice := found.keys() & wanted.variants.keys():
            raise UsageError(f"[compare.variants] {min(twice)} is in strategies too: choose another name")
        found.update({name: dict(changes) for name, changes in wanted.variants.items()})
        if not found:
            found = {self.base.strategy.name: {}}
        for changes in found.values():
            self.base.replace(**changes)
        return found

    @cached_property
    def contents(self) -> dict[str, str]:
        """The hashes of the experiment's files and examples."""
        experiment = self.experiment
        found = contents_of(experiment.model, experiment.devices_file)
        return found | examples_of(self.base, experiment.data)

    @property
    def seeds(self) -> list[int]:
        return [self.base.train.seed + number for number in range(self.experiment.compare.seeds)]

    def cells(self) -> Iterator[Cell]:
        """In the order of the tables: all variants of one partition come together."""
        for partition, faults, variant, codec in product(self.partitions, self.faults, self.variants, self.codecs):
            yield Cell(variant, codec, partition, faults)

    def case(self, cell: Cell, seed: int, point: Point | None = None, **changes: Any) -> Case:
        """The run of a cell with a seed, with what was tuned, and with `changes` of settings."""
        experiment, variant = self.experiment, self.variants[cell.variant]
        settings = _with_codec(self.base.replace(**variant), cell.codec)
        settings = with_point(settings, point or {}).replace(**{"train.seed": seed}, **changes)
        fleet = msgspec.structs.replace(experiment.fleet, partition=cell.partition, faults=cell.faults)
        return Case(
            model=experiment.model, data=experiment.data, settings=changed(settings), fleet=fleet_of(fleet),
            held_every=experiment.compare.every, judge=experiment.compare.judge,
            loss=experiment.loss, freeze=experiment.freeze, also_train=experiment.also_train,
            tie=experiment.tie, untie=experiment.untie, dims=experiment.dims,
            constants=experiment.constants, world=experiment.devices_file,
            contents=self.contents,
        )  # fmt: skip


def with_point(settings: Settings, point: Point) -> Settings:
    """`settings` with the values of a point: of a setting where there is one of that name, else of an option of the
    strategy. UsageError for what is neither."""
    name, options = split(settings.strategy.name)
    changes = {}
    for key, value in point.items():
        try:
            changes[find(settings, key).key] = value
        except UsageError:
            options[key] = value
    if options != split(settings.strategy.name)[1]:
        strategies.get(name, **options)
        changes["strategy.name"] = join(name, options)
    return settings.replace(**changes)


def _with_codec(settings: Settings, label: str) -> Settings:
    """The codec of updates, and after a slash that of models; "" leaves both as they are."""
    if not label:
        return settings
    up, slash, down = (word.strip() for word in label.partition("/"))
    for spec in filter(None, (up, down)):
        if spec != "auto":
            name, options = split(spec)
            codecs.get(name, **options)
    return settings.replace(**{"codec.name": up}, **({"downlink.name": down} if slash else {}))


def differing(points: list[Point]) -> list[str]:
    """Names whose values are not the same in all points."""
    names = dict.fromkeys(name for point in points for name in point)
    return [name for name in names if len({repr(point.get(name, math.nan)) for point in points}) > 1]
