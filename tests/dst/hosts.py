"""The two kinds of host: an agent and an aggregator, with their disks."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgefl.codecs import feedback as error_feedback
from edgefl.coordinator import events as coordinator_events
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import (
    Answered,
    Commit,
    Erase,
    Evaluate,
    Fenced,
    Finished,
    HelpersRead,
    Reconfigured,
    ReloadedLate,
    ReloadLate,
    Rollback,
    SaveAsk,
    SaveAttempt,
    SaveLate,
    SavePaused,
    SaveProfile,
    SaveSuspects,
)
from edgefl.core.seeds import derived_seed
from edgefl.device import events as device_events
from edgefl.device.columns.statistics import of_examples
from edgefl.device.events import (
    CancelTraining,
    DropUpdate,
    Failed,
    KeepBase,
    KeepModel,
    MarkCounted,
    SavePlan,
    SaveSeen,
    SaveSpent,
    SaveUpdate,
    StartTraining,
    Trained,
    TrainJob,
)  # fmt: skip
from edgefl.device.session import DeviceSession
from edgefl.errors import StoreError
from edgefl.machine import Publish
from edgefl.privacy.ledger import SaveLedger
from edgefl.protocol import statistics
from edgefl.protocol.envelope import MAGIC, Envelope
from edgefl.protocol.messages import STARTS, Status, encode
from edgefl.protocol.round import Round
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import RoundSettings
from edgefl.strategies.checkpoint import pack

from . import masked
from .disks import AggregatorDisk, DeviceDisk
from .files import OwnersFiles
from .helpers import certified
from .host import Host
from .influence import admission_of
from .keys import aggregators_keys, devices_keys
from .lasting import AWAKE_S, FLAP_S, FROZEN_S
from .masked import features_of, masked_terms
from .operator import Order, accuracy, gate_of, is_watched, judges, score

if TYPE_CHECKING:
    from .world import World

AGGREGATOR = "aggregator"
_LESSONS = np.random.default_rng(0).integers(-256, 256, 8192).astype(np.float32) / 256


class DeviceHost(Host[device_events.Event, device_events.Action]):
    """An agent. It learns, from each model and in each round, something that is known beforehand."""

    machine: DeviceSession

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.disk = DeviceDisk()
        self.files = OwnersFiles(self)
        self.fail_next = False
        self.last_round: Round | None = None  # that the checker has seen
        self.last_epoch = 0  # in which that was
        self.handicap = world.schedule.lasting.handicaps.get(name, "")
        self.is_hostile = name == world.schedule.hostile
        self.may_be_left_out = name in (world.schedule.hostile, world.schedule.unlisted)  # by a helper's word
        self._job: TrainJob | None = None
        rate = world.schedule.lasting.rate_of(name)
        if rate is not None:
            world.broker.rates[name] = rate
        if self.handicap in ("frozen", "flapping"):
            self._again()

    # Handicaps

    def _again(self) -> None:
        """A device that freezes or flaps does it again after a while."""
        rng, freezes = self.world.rng, self.handicap == "frozen"
        self.clock.after(rng.uniform(*(AWAKE_S if freezes else FLAP_S)), self._freeze if freezes else self._flap)

    def _freeze(self) -> None:
        if self.handicap:
            seconds = self.world.rng.uniform(*FROZEN_S)
            self.freeze(seconds)
            self.clock.after(seconds, self._again)

    def _flap(self) -> None:
        if self.handicap and not self.gone:
            if self.connection is not None:
                connection = self.connection
                connection.sever()
                self.world.broker.notice(connection)
                self.on_closed(connection)
                self.connect()
            self._again()

    def recover(self) -> None:
        """The handicap is over. A training that hung ends, and so does a connection that has lost parts."""
        handicap, self.handicap = self.handicap, ""
        if handicap == "one part" and self.connection is not None:
            self.world.sever(self.connection)
        if handicap == "slow link":
            del self.world.broker.rates[self.name]
            if self.connection is not None:
                self.connection.heal()
        if handicap in ("slow", "hung", "flapping") and self._job is not None:
            self._trained(self._job)

    # The process

    def boot_up(self) -> None:
        self.boot = self.disk.count_start() * STARTS
        self._job = self.last_round = None
        schedule = self.world.schedule
        self.machine = DeviceSession(
            self.name, schedule.manifest.federation, num_examples=schedule.examples[self.name],
            rng=random.Random(self.world.rng.getrandbits(32)), outbox=self.disk.load(),
            in_model=self.disk.truth.in_model, keys=devices_keys(self), wanted=self.files.wanted(),
            base=self.disk.truth.base, owner=masked.OWNER if schedule.masked else None,
        )  # fmt: skip

    def connect(self) -> None:
        self.will = (self.machine.topics.status(self.name), encode(Status("lost", self.boot)))
        super().connect()

    def act(self, action: device_events.Action) -> None:
        match action:
            case StartTraining(job):
                self.world.checker.trains(self, job)
                self._train(job)
            case CancelTraining():
                self._job = None
            case SaveUpdate(outbox, slots):
                self.world.checker.saves(self, outbox)
                self.disk.save(outbox, slots)
            case MarkCounted(attempt):
                self.disk.mark_counted(attempt)
            case DropUpdate(applied):
                self.world.checker.drops(self, applied)
                self.disk.drop(applied)
            case SaveSeen(seen):
                self.disk.save_seen(seen)
            case KeepModel():
                self.files.keep(action)
            case KeepBase(_, numbers):
                self.disk.save_base(numbers)
            case SaveSpent() | SavePlan():
                pass  # a simulated device has no byte budget, and no owner who wants to be asked
            case _:
                self.carry_out_shared(action)

    def _train(self, job: TrainJob) -> None:
        rng, schedule = self.world.rng, self.world.schedule
        self._job = job
        usual_s = rng.uniform(*schedule.lasting.usual_s) + (schedule.config.deadline_s if self._is_slow() else 0)
        seconds = schedule.lasting.training_s(self.handicap, usual_s, rng)
        starts = self.starts
        if seconds is not None:
            self.clock.after(seconds, lambda: self._trained(job) if starts == self.starts else None)

    def _is_slow(self) -> bool:
        return self.world.healed_at is None and self.world.rng.random() < self.world.schedule.slow

    def _trained(self, job: TrainJob) -> None:
        if not self.alive or self._job is not job:
            return
        self._job = None
        if self.fail_next or self.handicap == "dying":
            self.fail_next = False
            self.feed(Failed(job, "no data"))
            return
        blob, slots = self._answer(job)
        self.world.checker.trained(self, job, blob)
        self.feed(Trained(job, blob, slots))

    def publish(self, action: Publish) -> None:
        if self.handicap == "one part" and action.payload.startswith(MAGIC):
            part = Envelope.from_bytes(action.payload)
            if part.part == part.parts - 1:
                return
        super().publish(action)

    def _answer(self, job: TrainJob) -> tuple[bytes, dict[str, bytes]]:
        examples = self.world.schedule.examples[self.name]
        if job.round.mode == "evaluate":
            told = accuracy(self.world.schedule, job.params) if judges(self.world.schedule, job.round) else None
            return UpdateHeader(0, 0, 0.0, 0, job.bytes_down, examples, 0.5, told).to_bytes(), {}
        if job.round.mode == "profile":
            return self._profile(job, examples), {}
        if job.round.terms:
            return self._mask(job)
        payload, slots = self._encode(job)
        return UpdateHeader(examples, 1, 0.5, 10, job.bytes_down, examples, 0.5).to_bytes() + payload, slots

    def _profile(self, job: TrainJob, examples: int) -> bytes:
        x, y = table_of(job, examples)
        if not job.round.terms:
            header = UpdateHeader(examples, 0, 0.0, 0, job.bytes_down, is_profile=True)
            return header.to_bytes() + statistics.encode(of_examples(job.manifest.plan, x, y))
        salt = self.world.rng.getrandbits(64)
        blob, q, digest = masked.profile_answer(job, self.name, x, y, salt, nonsense=self.is_hostile)
        self.world.checker.masked.made[self.name, digest] = q
        return blob

    def _mask(self, job: TrainJob) -> tuple[bytes, dict[str, bytes]]:
        delta = job.manifest.mask.shared(lesson(self.name, job.round.round, job.params))
        blob, q, digest = masked.answer(job, self.name, delta, self.world.rng.getrandbits(64), nonsense=self.is_hostile)
        self.world.checker.masked.made[self.name, digest] = q
        return blob, {}

    def _encode(self, job: TrainJob) -> tuple[bytes, dict[str, bytes]]:
        """As edgefl.device.training does it."""
        codec, delta = job.manifest.update_codec, lesson(self.name, job.round.round, job.params)
        delta = job.manifest.mask.shared(delta)
        if not job.manifest.error_feedback:
            return codec.encode(delta), {}
        own = self.disk.truth.slots.get("residual")
        sound = own is not None and not own.unusable("residual", job.manifest, job.round.round)
        usable = error_feedback.unpack(own.blob, len(delta)) if own is not None and sound else None
        payload, left = error_feedback.encode(codec, delta, usable)
        return payload, {} if left is None else {"residual": left}


class AggregatorHost(Host[coordinator_events.Event, coordinator_events.Action]):
    """An aggregator."""

    machine: RoundCoordinator

    def __init__(self, world: World, disk: AggregatorDisk) -> None:
        super().__init__(world, AGGREGATOR)
        self.disk = disk
        self.config = world.schedule.config  # as the file of settings has it
        self.takes_over = False  # its operator starts it with --take-over, until the federation is its own

    def boot_up(self) -> None:
        world, schedule, disk = self.world, self.world.schedule, self.disk
        damaged = disk.newest_is_damaged
        state = disk.resume(schedule.params)
        world.checker.resumes(self, state, damaged)
        strategy = schedule.make_strategy()
        strategy.restore(state.state)
        self.machine = RoundCoordinator(
            schedule.manifest, self.config, strategy, state.params,
            rng=random.Random(world.rng.getrandbits(32)), round=state.round, version=state.version,
            attempt=state.start, instance=world.rng.getrandbits(64),
            recent=disk.recent(100), gate=gate_of(schedule), suspects=disk.suspects, take_over=self.takes_over,
            keys=aggregators_keys(schedule, world.losses.epoch), admission=admission_of(schedule),
            watched=is_watched(schedule), paused=disk.paused,
            masked=masked_terms(schedule, disk.clip, disk.ledger, self._helpers_epoch, world.losses),
            asked=disk.asked, features=features_of(schedule),
        )  # fmt: skip

    def start(self) -> None:
        began = self.starts
        super().start()
        for name, version in list(self.disk.orders.items()) if self.starts > began else []:
            self._feed_order(name, version)

    def order(self, name: str, order: Order) -> None:
        """The operator's order is durable, and carried out as soon as this process runs."""
        self.disk.orders[name] = order
        if self.alive:
            self._feed_order(name, order)

    @property
    def _helpers_epoch(self) -> int:
        """Of the keys that the folder of keys names."""
        return self.world.helpers[0].epoch if self.world.helpers else 1

    def adopt(self) -> None:
        """The helper's certificate is another one, and a process that runs reads it."""
        if self.alive:
            party, certificate = certified(self._helpers_epoch)
            self.feed(HelpersRead((party,), (certificate,)))

    def reload(self, config: RoundSettings) -> None:
        """The file of settings is another one, and a process that runs reads it."""
        self.config = config
        if self.alive:
            self.feed(Reconfigured(config, gate_of(self.world.schedule)))

    def _feed_order(self, name: str, order: Order) -> None:
        if not isinstance(order, int):
            self.feed(replace(order, order=name))
            return
        found = self.disk.model(order)
        if found is None:
            del self.disk.orders[name]  # not kept any more
        else:
            self.feed(Rollback(name, order, *found))

    def act(self, action: coordinator_events.Action) -> None:
        match action:
            case Evaluate():
                self.answer(score(self.world.schedule, action.params))
            case Answered(order):
                del self.disk.orders[order]
            case SaveAttempt(attempt):
                self.disk.save_attempt(attempt)
                self.takes_over = False
            case Commit(record, params, drop, state, clip):
                self.disk.commit(record, params, drop, pack(self.machine.strategy.name, state), clip)
            case SaveLate(update):
                self.disk.save_late(update)
            case SaveAsk(saved):
                self.disk.save_ask(saved)
            case SaveSuspects(suspects):
                self.disk.save_suspects(suspects)
            case SavePaused(paused):
                self.disk.save_paused(paused)
            case SaveLedger(ledger):
                self.disk.save_ledger(ledger)
            case SaveProfile(profile):  # the operator can ask for another one
                self.world.checker.profiles(self, profile)
            case Erase():
                pass  # no record names it
            case ReloadLate():
                self.answer(ReloadedLate(self.disk.late.values()))
            case Fenced(reason):
                if self.world.losses:  # by a claim of before, that is repeated or was not lost: its operator insists
                    self.takes_over = True
                    raise StoreError(reason)
                self.world.checker.stops(self, reason)
                self.gone = True  # nobody starts it again without thinking
                raise StoreError(reason)
            case Finished():
                pass
            case _:
                self.carry_out_shared(action)


def table_of(job: TrainJob, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a device with so many examples, of which it tells: columns that are 0 throughout."""
    rows = min(3, examples)
    return np.zeros((rows, *job.manifest.plan.input_shape), np.float32), np.zeros(rows, np.int64)


def lesson(device: str, round: int, params: bytes) -> np.ndarray:
    """(P,) float32, what `device` learns in that round from that model: multiples of 2^-18, not larger than 1/4."""
    size = len(params) // 4
    coarse = derived_seed(round, device, params.hex()) % (len(_LESSONS) - 2 * size)
    return _LESSONS[coarse : coarse + size] / 4 + _LESSONS[coarse + size : coarse + 2 * size] / 1024
