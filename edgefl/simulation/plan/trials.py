"""Trials: candidates of a plan, simulated until they reach a target: how many rounds that is, and is the plan right."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import numpy as np

from ...data import Dataset
from ...history_costs import Cost, costs
from ...history_record import RoundRecord
from ..simulate import simulate
from ..split.partitions import Parts
from .planning import Candidate, Ground

SETTLED = 1  # rounds from which on a round is like the others: in the first, devices fetch a whole model


class Trial(msgspec.Struct, frozen=True):
    """`cost`: until the target was reached, or of all rounds; `best`: the best accuracy until then. Of the rounds
    from `begin` to `end`, on average: `round_s`, the bytes of a report, and the joules of all devices."""

    reached: bool
    best: float
    cost: Cost
    begin: int
    end: int
    round_s: float
    bytes_up: float
    bytes_down: float
    joules: tuple[float, float]


class _Reached(Exception):
    """Not an error: the simulation has shown what it was run for."""


class _Watch:
    """The records of a simulation, which ends when it has shown enough."""

    def __init__(self, target: float) -> None:
        self.target, self.records = target, list[RoundRecord]()

    def add(self, record: RoundRecord) -> None:
        self.records.append(record)
        if (record.accuracy or 0.0) >= self.target and len(self.records) > SETTLED + 1:
            raise _Reached


def run(ground: Ground, candidate: Candidate, *, target: float, rounds: int, workers: int | None = None) -> Trial:
    """A simulation of at most `rounds` rounds, which ends at the first whose accuracy is the target or more."""
    watch, parts = _Watch(target), ground.parts

    def planned(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
        return parts

    settings = ground.settings_of(candidate).replace(**{"rounds.rounds": rounds})
    with suppress(_Reached):
        simulate(
            ground.model, ground.dataset, settings, devices=len(parts), partition=planned, world=ground.world,
            on_round=watch.add, workers=workers,
        )  # fmt: skip
    return _trial(watch)


def _trial(watch: _Watch) -> Trial:
    records = watch.records
    reached = next((place for place, record in enumerate(records) if (record.accuracy or 0.0) >= watch.target), None)
    cost = list(costs(records))[-1 if reached is None else reached]
    settled = records[SETTLED:] or records
    before = records[SETTLED - 1].elapsed_s if len(records) > SETTLED else 0.0
    reports = max(1, sum(record.reported for record in settled))
    joules = [record.joules or (0.0, 0.0) for record in settled]
    return Trial(
        reached is not None, max(record.accuracy or 0.0 for record in records), cost,
        settled[0].round, settled[-1].round, (settled[-1].elapsed_s - before) / len(settled),
        sum(record.bytes_up for record in settled) / reports, sum(record.bytes_down for record in settled) / reports,
        (sum(each[0] for each in joules) / len(settled), sum(each[1] for each in joules) / len(settled)),
    )  # fmt: skip
