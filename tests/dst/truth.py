"""Truth: all updates that were ever made, and all that has become durable at the aggregator, as nobody in it knows."""

from __future__ import annotations

import itertools

import numpy as np
from edgefl_broker.store import State

from edgefl.accumulator import SCALE
from edgefl.device_events import Outbox
from edgefl.history import RoundRecord
from edgefl.params import params_from_bytes, params_to_bytes
from edgefl.protocol.messages import UpdateHeader

from .schedule import Schedule
from .violation import require


class Truth:
    """`versions` has every durable version's (P,) float32 bytes, `newest` its number; `start` the aggregator's."""

    def __init__(self, schedule: Schedule) -> None:
        self.records: list[RoundRecord] = []
        self.committed_in: list[int] = []  # the start, for each
        self.versions: dict[int, bytes] = {0: params_to_bytes(schedule.params)}
        self.newest = 0
        self.start = 0
        self.fallbacks: list[int] = []  # rounds before which a damaged model was replaced by the one before
        self._manifest = schedule.manifest
        self._config, self._examples = schedule.config, schedule.examples
        self._min_reports = max(1, schedule.config.min_reports)
        self._updates: dict[tuple[str, int, int], dict[bytes, None]] = {}

    @property
    def round(self) -> int:
        """The one that is to be committed next."""
        return len(self.records) + 1

    @property
    def _evaluates(self) -> bool:
        return self._config.mode_of(self.round) == "evaluate"

    def trained(self, device: str, round: int, version: int, blob: bytes) -> None:
        self._updates.setdefault((device, round, version), {})[blob] = None

    def may_count(self, saved: Outbox) -> bool:
        """Whether an aggregator that goes on from what is durable could still count this update."""
        return (saved.manifest, saved.round, saved.version) == (self._manifest.id, self.round, self.newest)

    def resumed(self, state: State, damaged: bool) -> None:
        """I08 and I12: an aggregator goes on from all that was committed, or from the model before a damaged one."""
        require(state.round == self.round, "I08", "resumed at round %d, not %d", state.round, self.round)
        blob = params_to_bytes(state.params)
        if damaged:
            require(state.version > self.newest, "I05", "version %d is used again", state.version)
            require(blob in self.versions.values(), "I12", "resumed with params that were never committed")
            self.fallbacks.append(self.round)
            self.newest = state.version
            self.versions[self.newest] = blob
        require(state.version == self.newest, "I08", "resumed at version %d, not %d", state.version, self.newest)
        require(blob == self.versions[self.newest], "I08", "version %d has other params than before", self.newest)
        self.start = state.start

    def committed(self, record: RoundRecord, params: np.ndarray | None) -> None:
        """I01 to I05: the record and the bytes are what an honest sum of one update a device gives."""
        require(record.round == self.round, "I05", "round %d committed in place of %d", record.round, self.round)
        require(record.reported == len(record.devices) == len(set(record.devices)), "I01", "%r", record)
        held = sum(self._examples[device] for device in record.devices)
        require(record.device_examples == held, "I01", "%d examples evaluated on, not %d", record.device_examples, held)
        if params is None:
            ends = "evaluated" if self._evaluates and record.reported >= self._min_reports else "abandoned"
            require((record.state, record.version) == (ends, self.newest), "I04", "%r", record)
        else:
            require(record.version == self.newest + 1, "I05", "version %d after %d", record.version, self.newest)
            require(not self._evaluates, "I03", "round %d was to evaluate only", record.round)
            enough = record.state == "committed" and record.reported >= self._min_reports
            require(enough, "I04", "committed with %d of %d reports", record.reported, self._min_reports)
            self._check_aggregate(record, params_to_bytes(params))
            self.newest = record.version
            self.versions[self.newest] = params_to_bytes(params)
        self.records.append(record)
        self.committed_in.append(self.start)

    def _check_aggregate(self, record: RoundRecord, params: bytes) -> None:
        """I02, I03. A device that lost an update before it was durable has made two; either may have been counted."""
        choices = []
        for device in record.devices:
            made = self._updates.get((device, record.round, self.newest), {})
            require(bool(made), "I03", "%s made no update for round %d", device, record.round)
            choices.append(list(made))
        found = any(self._aggregate(updates) == params for updates in itertools.product(*choices))
        require(found, "I02", "round %d is not the mean of the updates of %s", record.round, record.devices)

    def _aggregate(self, updates: tuple[bytes, ...]) -> bytes:
        """The next version's bytes, from whole numbers: deltas are multiples of 2^-30."""
        total = np.zeros(self._manifest.plan.num_params, np.int64)
        weight = 0
        for blob in updates:
            n = UpdateHeader.from_bytes(blob).num_examples
            delta = self._manifest.make_codec().decode(blob[UpdateHeader.SIZE :], total.size)
            total += n * np.rint(delta.astype(np.float64) * SCALE).astype(np.int64)
            weight += n
        mean = (total / (float(weight) * SCALE)).astype(np.float32)
        return params_to_bytes(params_from_bytes(self.versions[self.newest]) + mean)
