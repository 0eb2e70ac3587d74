"""Truth: all updates that were ever made, and all that has become durable at the aggregator, as nobody in it knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from edgefl_broker.store import State as Stored

from edgefl.coordinator.devices.cohort import Cohort
from edgefl.core.accumulator import SCALE
from edgefl.core.params import params_from_bytes, params_to_bytes
from edgefl.device.events import Outbox
from edgefl.history_record import RoundRecord
from edgefl.privacy.ledger import Ledger
from edgefl.protocol.round import Draw
from edgefl.protocol.update_header import UpdateHeader
from edgefl.strategies import State
from edgefl.strategies.pre.staleness import stale_weight

from .influence import Influences
from .kept import Kept, kept, put_back
from .masked import MaskedTruth
from .operator import BAD, gate_of, is_refused
from .schedule import RULES, Schedule
from .violation import require


class Truth:
    """`versions` has every durable version's (P,) float32 bytes, `newest` its number; `start` the aggregator's.
    `ledger` gives what its disk has."""

    GOES_BACK = (
        "records", "_record_of", "committed_in", "round", "versions", "newest", "states", "start", "fallbacks",
        "receipts", "spent", "refused", "profiles", "_bases", "_counted",
    )  # fmt: skip

    def __init__(self, schedule: Schedule, masked: MaskedTruth, ledger: Callable[[], Ledger | None]) -> None:
        self._masked, self._ledger = masked, ledger
        self.records: list[RoundRecord] = []
        self._record_of: dict[int, RoundRecord] = {}
        self.committed_in: dict[int, int] = {}  # round -> the start
        self.round = 1  # the one that is to be committed next
        self.versions: dict[int, bytes] = {0: params_to_bytes(schedule.params)}
        self.newest = 0
        self.states: dict[int, dict[str, np.ndarray]] = {0: {}}  # of the strategy, by version
        self._rule = schedule.rule
        self.start = 0
        self.fallbacks: list[int] = []  # rounds before which a damaged model was replaced by the one before
        self.receipts: set[tuple[str, int]] = set()  # for updates that were late: device, round
        self.spent: set[tuple[str, int]] = set()  # updates of models that the gate refused: device, round
        self.refused: set[tuple[str, int]] = set()  # late updates for which there was no room: device, round
        self._manifest, self._config, self._examples = schedule.manifest, schedule.config, schedule.examples
        self._schedule = schedule
        self._influences = Influences(schedule)
        self.profiles: set[int] = set()  # rounds that an aggregator has opened as one
        self._bases: dict[int, int] = {}  # round -> the version that its devices trained from
        self._counted: set[tuple[str, int]] = set()  # device, round: what is in a model
        self._updates: dict[tuple[str, int, int], dict[bytes, None]] = {}

    def kept(self) -> Kept:
        return kept(self, self.GOES_BACK)

    def went_back(self, backup: Kept, pending: RoundRecord | None) -> None:
        """The database has; helpers were still to answer for the round `pending` then."""
        put_back(self, backup)
        profile = pending is not None and pending.profile
        self.profiles = {one for one in self.profiles if one in self._record_of or (profile and one == self.round)}

    def record_of(self, round: int) -> RoundRecord | None:
        """None if it is not over, or was passed over."""
        return self._record_of.get(round)

    def passes(self, round: int, ledger: Ledger | None) -> None:
        """I09: a round is announced. Rounds before it are passed over only if noise was paid for them, helpers have
        opened them, or devices rest in them."""
        passed = range(self.round, round)
        paid = 0 if ledger is None else ledger.round
        led = self._masked.newest_lost(self._manifest.run)
        odd = [one for one in passed if one > max(paid, led) and not self._masked.noise.rests(one)]
        require(round >= self.round and not odd, "I09", "round %d announced before its time", round)
        self.round = round

    def base(self, round: int) -> int:
        """The version that devices train from in `round`."""
        return self.newest if round == self.round else self._bases[round]

    def _evaluates(self, round: int) -> bool:
        return self._config.mode_of(round) == "evaluate" or round in self.profiles

    def trained(self, device: str, round: int, version: int, blob: bytes) -> None:
        self._updates.setdefault((device, round, version), {})[blob] = None

    def may_count(self, device: str, saved: Outbox) -> bool:
        """Whether an aggregator that goes on from what is durable could still count this update.

        A late one is settled by its receipt.
        """
        age = self.round - saved.round
        if saved.manifest != self._manifest.id or not 0 <= age <= self._config.late_window:
            return False
        if (device, saved.round) in self.refused | self.spent:
            return False
        if saved.round in self.profiles:  # by now it may be another kind of round than the one that was reported to
            return False
        if age > 0 and self._record_of[saved.round].state == "rollback":
            return False  # it may, and its device can't know: the next round has a newer model
        if age > 0 and (self.settled(device, saved.round) or not self._asked(device, saved.round)):
            return False
        if age > 0 and any(self._evaluates(round) for round in range(saved.round, self.round + 1)):
            return False  # rounds to evaluate take no late updates, and theirs are never late
        return saved.version == self.base(saved.round)

    def _asked(self, device: str, round: int) -> bool:
        """Whether the attempt that ended the round asked the device."""
        rule = msgspec.json.decode(self._record_of[round].cohort, type=list[str] | Draw | None)
        return Cohort(round, frozenset(rule) if isinstance(rule, list) else rule).asks(device)

    def in_a_model(self, device: str, round: int) -> bool:
        """Whether the device's update of that round is."""
        return (device, round) in self._counted

    def settled(self, device: str, round: int) -> bool:
        """Whether the update is in a model, or was late and has a receipt."""
        return self.in_a_model(device, round) or (device, round) in self.receipts

    def resumed(self, state: Stored, damaged: bool) -> None:
        """I08 and I12: an aggregator goes on from all that was committed, or from the model before a damaged one."""
        due = self.records[-1].round + 1 if self.records else 1
        require(state.round == due, "I08", "resumed at round %d, not %d", state.round, due)
        self.round = due
        blob = params_to_bytes(state.params)
        if damaged:
            require(state.version > self.newest, "I05", "version %d is used again", state.version)
            require(blob in self.versions.values(), "I12", "resumed with params that were never committed")
            self.fallbacks.append(self.round)
            former = max(version for version, known in self.versions.items() if known == blob)
            self.newest = state.version
            self.versions[self.newest], self.states[self.newest] = blob, self.states[former]
        require(state.version == self.newest, "I08", "resumed at version %d, not %d", state.version, self.newest)
        require(blob == self.versions[self.newest], "I08", "version %d has other params than before", self.newest)
        mine = _bits(state.state) == _bits(self.states[self.newest])
        require(mine, "I08", "version %d comes with another model's state", self.newest)
        self.start = state.start

    def committed(self, record: RoundRecord, params: np.ndarray | None) -> None:
        """I01 to I05: the record and the bytes are what an honest sum of one update a device gives."""
        require(record.round == self.round, "I05", "round %d committed in place of %d", record.round, self.round)
        updates = [*((device, record.round) for device in record.devices), *record.folded]
        require(record.reported == len(updates) == len(set(updates)), "I01", "%r", record)
        held = sum(self._examples[device] for device in record.devices)
        held = 0 if record.profile or self._schedule.masked else held
        require(record.device_examples == held, "I01", "%d examples evaluated on, not %d", record.device_examples, held)
        if record.profile:
            require(record.round in self.profiles, "I05", "round %d was no profile", record.round)
        if record.state == "rollback":
            self._roll_back(record, params)
        elif record.state == "refused":
            self._refuse(record, params, updates)
        elif params is None:
            least = max(2, self._config.min_reports) if record.profile else max(1, self._config.min_reports)
            done = self._evaluates(record.round) and record.reported >= least
            done = done and not (record.profile and self._schedule.masked and record.why)  # its sum was not opened
            ends = "evaluated" if done else "abandoned"
            require((record.state, record.version) == (ends, self.newest), "I04", "%r", record)
        else:
            require(record.version == self.newest + 1, "I05", "version %d after %d", record.version, self.newest)
            only = self._config.mode_of(record.round) == "evaluate" or record.profile
            require(not only, "I03", "round %d was to evaluate only", record.round)
            reports = len({device for device, _ in updates})
            if self._config.mode == "async":
                require(reports == len(updates), "I01", "%d updates of %d devices", len(updates), reports)
            else:
                reports = len(record.devices)
            enough = record.state == "committed" and reports >= max(1, self._config.min_reports)
            require(enough, "I04", "committed with %d of %d reports", reports, self._config.min_reports)
            again = self._counted.intersection(updates)
            require(not again, "I01", "%r have counted before", again)
            spent = self.spent.intersection(updates)
            require(not spent, "I01", "%r were in a model that was refused", spent)
            require(not is_refused(self._schedule, params), "I04", "a model that the gate refuses: %r", record)
            if self._schedule.masked:
                self._check_sum(record, params_to_bytes(params))
            else:
                self._check_aggregate(updates, params_to_bytes(params))
            self._counted.update(updates)
        if self._schedule.masked:
            self._masked.over(record)
            self._masked.noise.over(self._manifest.run, record, self._ledger())
        self._bases[record.round] = self.newest
        if params is not None:
            self.newest = record.version
            self.versions[self.newest] = params_to_bytes(params)
        self.records.append(record)
        self._record_of[record.round] = record
        self.committed_in[record.round] = self.start
        self.round = record.round + 1

    def _roll_back(self, record: RoundRecord, params: np.ndarray | None) -> None:
        """The bytes of an earlier version become a new one, with the strategy's state that belongs to them."""
        require(record.version == self.newest + 1, "I05", "version %d after %d", record.version, self.newest)
        wanted = self.versions[record.restored or 0]
        require(params is not None and params_to_bytes(params) == wanted, "I02", "%r brings another model", record)
        require(not record.devices and not record.folded, "I01", "devices count in %r", record)
        self.states[record.version] = self.states[record.restored or 0]

    def _refuse(self, record: RoundRecord, params: np.ndarray | None, updates: list[tuple[str, int]]) -> None:
        """I04: a model that is refused changes nothing, and its updates are spent."""
        require(params is None and record.version == self.newest, "I04", "%r changes the model", record)
        judge = gate_of(self._schedule).judge
        refused = judge == "canaries" or (judge == "test" and record.accuracy == BAD)
        require(refused and self._config.mode_of(record.round) != "evaluate", "I04", "refused for nothing: %r", record)
        enough = len({device for device, _ in updates}) >= max(1, self._config.min_reports)
        require(enough, "I04", "refused with too few reports: %r", record)
        self.spent.update(updates)

    def _check_aggregate(self, updates: list[tuple[str, int]], params: bytes) -> None:
        """I02, I03. A device that lost an update before it was durable has made two; either may have been counted."""
        choices = []
        for device, round in updates:
            made = self._updates.get((device, round, self.base(round)), {})
            require(bool(made), "I03", "%s made no update for round %d", device, round)
            choices.append(list(made))
        staleness = [self.newest - self.base(round) for _, round in updates]
        before, mask = params_from_bytes(self.versions[self.newest]), self._manifest.mask
        for blobs in itertools.product(*choices):
            mean = self._mean(blobs, staleness, self._influences.weights(self.round, updates, blobs))
            move, state = MOVES[self._rule](mean, self.states[self.newest])
            if params_to_bytes(mask.with_shared(before, mask.shared(before) + move)) == params:
                self._influences.counted(self.round, updates, blobs)
                self.states[self.newest + 1] = state
                return
        require(False, "I02", "version %d is not the mean of %r", self.newest + 1, updates)

    def _check_sum(self, record: RoundRecord, params: bytes) -> None:
        """I35: the model moves by the mean of exactly these devices' integers."""
        delta = self._masked.mean(record.round, record.devices)
        mean = (np.rint(delta.astype(np.float64) * SCALE).astype(np.int64) / SCALE).astype(np.float32)
        before, mask = params_from_bytes(self.versions[self.newest]), self._manifest.mask
        move, state = MOVES[self._rule](mean, self.states[self.newest])
        moved = params_to_bytes(mask.with_shared(before, mask.shared(before) + move))
        require(moved == params, "I35", "version %d is not the sum of %r", self.newest + 1, record.devices)
        self.states[self.newest + 1] = state

    def _mean(self, blobs: tuple[bytes, ...], staleness: list[int], weights: list[int]) -> np.ndarray:
        """(P,) float32, the mean delta; from whole numbers: deltas are multiples of 2^-30."""
        total = np.zeros(self._manifest.update_size, np.int64)
        examples = 0
        for blob, stale, n in zip(blobs, staleness, weights, strict=True):
            delta = self._manifest.update_codec.decode(blob[UpdateHeader.SIZE :], total.size)
            total += stale_weight(n, stale) * np.rint(delta.astype(np.float64) * SCALE).astype(np.int64)
            examples += n
        mean: np.ndarray = (total / (float(examples) * SCALE)).astype(np.float32)
        return mean


def _bits(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.items()}


def _momentum(mean: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    move = mean + np.float32(RULES["fedavgm"]["momentum"]) * state.get("server.velocity", np.zeros_like(mean))
    return move, {"server.velocity": move}


def _adam(mean: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    rate, tau, beta1, beta2 = (np.float32(RULES["fedadam"][name]) for name in ("server_lr", "tau", "beta1", "beta2"))
    first = beta1 * state.get("server.first", np.zeros_like(mean)) + (1 - beta1) * mean
    second = beta2 * state.get("server.second", np.full_like(mean, tau**2)) + (1 - beta2) * (mean * mean)
    return rate * (first / (np.sqrt(second) + tau)), {"server.first": first, "server.second": second}


# By how much the mean moves the model, and the strategy's state afterwards
MOVES = {"fedavg": lambda mean, state: (mean, {}), "fedavgm": _momentum, "fedadam": _adam}
