"""Checker: what must hold after every step of a host, by what only the simulation knows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from edgefl_broker.store import State

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.coordinator.updates.receipts import NOT_KEPT, REFUSED, TOO_LATE
from edgefl.core.params import digest_of, params_to_bytes
from edgefl.device.events import Outbox, TrainJob
from edgefl.device.report.update_report import UpdateReport
from edgefl.history_record import RoundRecord
from edgefl.machine import Publish, Received, Subscribe
from edgefl.profiles import Profile
from edgefl.protocol.envelope import HEADER_BYTES, Envelope
from edgefl.protocol.fleet import decode_page, decode_summary
from edgefl.protocol.inbox import Inbox, Receipt
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import RETAINED_LIMIT, STARTS, Status, decode
from edgefl.protocol.round import Round
from edgefl.protocol.terms import Terms
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import Mode

from .keys import NOW, is_keyed, plain
from .liveness import Liveness
from .masked import MaskedTruth, masked_terms, privacy_of
from .operator import gate_of, judges
from .truth import Truth
from .violation import require
from .witness import Witness

if TYPE_CHECKING:
    from .host import Host
    from .hosts import AggregatorHost, DeviceHost
    from .world import World


@dataclass
class Before:
    """What an aggregator held before a step."""

    updates: tuple[int, int]
    statuses: dict[str, Status]


class Checker(Witness):
    """Hosts call it before and after each step, and before what they do to disk and network. Raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.masked = MaskedTruth(world.schedule)
        self.truth = Truth(world.schedule, self.masked, lambda: world.aggregator.disk.ledger)
        self.liveness = Liveness(world, self.truth)
        self.listen()
        self._terms = masked_terms(world.schedule)
        self._topics = Topics(self._manifest.federation)
        self.announced: Round | None = None
        self._unearned: dict[int, frozenset[str]] = {}  # devices that each round has named, as it was announced last
        self._sent_in: dict[str, int] = {}  # the attempt in which a part of an update was sent last, by topic
        self._rounds: set[tuple[object, ...]] = set()  # all that were announced
        self._shown: dict[int, set[str]] = {}  # version -> SHA-256 of what devices are to have of it
        self._made_in: dict[tuple[str, bytes], int] = {}  # device, its update -> epoch of the aggregator's certificate
        self._under_others: set[tuple[str, int]] = set()  # device, round: one of its updates was under other terms

    @property
    def _manifest(self) -> Manifest:
        return self._world.schedule.manifest

    def listen(self) -> None:
        """To the aggregator's disk."""
        disk = self._world.aggregator.disk
        disk.told, disk.told_ask, disk.told_ledger = self._committed, self._asked, self.masked.noise.paid
        disk.told_attempt = self._owned
        self.announced = None

    def _committed(self, record: RoundRecord, params: np.ndarray | None) -> None:
        self.truth.committed(record, params)
        if record.state == "committed":
            self._world.losses.committed()

    def _asked(self, saved: SavedAsk) -> None:
        self.masked.asked(saved)
        self._world.losses.asks()

    def _owned(self, attempt: int) -> None:
        """It may be more than a start has counted, if the aggregator takes over."""
        if self._world.losses:
            self.truth.start = attempt

    def begin_run(self) -> None:
        """The aggregator's database is lost, and the schedule's run another one."""
        world = self._world
        self.truth = self.liveness.truth = Truth(world.schedule, self.masked, lambda: world.aggregator.disk.ledger)
        self.masked.begin_run()

    # Around a step

    def before(self, host: Host) -> Before | None:
        if host is not self._world.aggregator:
            return None
        machine = self._world.aggregator.machine
        return Before(_updates(machine), dict(machine.presence.statuses))

    def after(self, host: Host, event: object, before: object, damaged: bool) -> None:
        if host in self._world.helpers:
            return  # what leaves it is looked at there (masked.py)
        if not isinstance(before, Before):
            self._device(host)  # type: ignore[arg-type]
        else:
            self._aggregator(self._world.aggregator, event, before, damaged)

    def _aggregator(self, host: AggregatorHost, event: object, before: Before, damaged: bool) -> None:
        machine, truth, schedule = host.machine, self.truth, self._world.schedule
        require(machine.version == truth.newest, "I08", "version %d, on disk %d", machine.version, truth.newest)
        require(params_to_bytes(machine.params) == truth.versions[truth.newest], "I03", "params changed in a round")
        require(machine.presence.statuses.keys() <= set(schedule.devices), "I13", "statuses of unknown devices")
        lost = [late for late in truth.receipts - truth.spent if not truth.in_a_model(*late)]
        lost = [late for late in lost if late not in host.disk.late]
        require(not lost, "I06", "late updates %r have a receipt, and are in no model and on no disk", lost)
        require(machine.presence.paused == host.disk.paused, "I08", "a pause is not durable")
        if machine.tally is not None and machine.phase == "open":
            tally = machine.tally
            asked = tally.waiting & machine.presence.paused.keys()
            require(not asked, "I07", "the round waits for %r, which are paused", asked)
            told = tally.num_counted + len(tally.folded)
            if tally.mode == "train":
                sums = getattr(machine.strategy, "_strategy", machine.strategy).combine.accumulator
                held = sums.count + len(machine.admission.room)
                held = held if tally.masked is None else len(tally.masked.entries)
                require(held == told, "I01", "%d updates of %r", held, sorted(tally.counted))
            most = len(schedule.devices) * (1 + schedule.config.late_window) * self._longest_update(tally.mode)
            require(_updates(machine)[0] <= most, "I13", "%d bytes of parts", _updates(machine)[0])
        if damaged:
            require(_updates(machine) == before.updates, "I16", "a damaged part was taken in")
        if isinstance(event, Received) and event.topic.endswith("/status") and event.payload:
            self._will(host, event, before)

    def _longest_update(self, mode: Mode) -> int:
        if self._terms is not None:
            return UpdateHeader.MAX_SIZE + self._terms.max_payload(mode)
        return UpdateHeader.MAX_SIZE + self._manifest.update_codec.bound(self._manifest.update_size)

    def _will(self, host: AggregatorHost, event: Received, before: Before) -> None:
        """A connection that has been replaced says nothing of the new one."""
        status = decode(Status, event.payload)
        device = self._topics.device_of(event.topic)
        assert device is not None
        known = before.statuses.get(device)
        if known is None or status.boot >= known.boot:
            return
        there = known.state in ("ready", "training") and status.boot // STARTS == known.boot // STARTS
        if there or status.state in ("lost", "disconnected"):  # else its disk may have been wiped
            unchanged = host.machine.presence.statuses[device] == known
            require(unchanged, "I07", "%s is taken for %s by boot %d", device, status.state, status.boot)

    def _device(self, host: DeviceHost) -> None:
        machine, saved = host.machine, host.disk.truth.outbox
        held = machine._saved.outbox
        same = (held is None) == (saved is None) and (held is None or saved is None or held.blob == saved.blob)
        require(same, "I08", "%s has another update on its disk than it thinks", host.name)
        held_models = machine._part.models.held
        require(len(held_models) <= 2, "I13", "%s holds %d models", host.name, len(held_models))
        if machine.round is not None:
            last, now = host.last_round, machine.round
            back = last is not None and last.manifest == now.manifest and self._number(now) < self._number(last)
            turned, host.last_epoch = host.last_epoch < epoch_of(host), epoch_of(host)
            require(turned or not back, "I19", "%s went back to round %d", host.name, now.round)
            host.last_round = now
            if is_keyed(self._world.schedule) and now.run == self._manifest.run:
                self._is_announced(host, now)
                order = epoch_of(host), now.attempt, now.round
                replayed = order < host.disk.highest  # also by an earlier process
                require(not replayed, "I19", "%s goes by round %d again", host.name, now.round)
                host.disk.highest = order
        trouble, (_, of_terms) = machine.status.trouble, machine._part.consent._judged or (None, None)
        refused = trouble is not None and trouble.code == "signer" and trouble != of_terms  # which a loss may bring
        require(not refused, "I20", "%s refuses its own aggregator: %s", host.name, trouble)
        work = machine.work
        if isinstance(work, UpdateReport):
            queued = len(work._unsent) + len(work._in_flight)
            require(queued <= work._splitter.parts, "I13", "%s has %d parts to send", host.name, queued)
            if work.counted and work.number == work.round.round:
                self._counted(host, work.round)

    def _number(self, round: Round) -> tuple[int, int]:
        """What only goes up. A restart may pass over fewer rounds, where devices rest, or helpers have opened some."""
        fewer = self._world.schedule.noisy.separation > 1 or self._world.losses
        return (round.attempt, round.round) if fewer else (round.round, round.attempt)

    def keeps(self, host: DeviceHost, round: Round) -> None:
        if is_keyed(self._world.schedule):
            self._is_announced(host, round)

    def _is_announced(self, host: DeviceHost, round: Round) -> None:
        """A round that a device goes by is the aggregator's."""
        if round.run == self._manifest.run:
            require(_identity(round) in self._rounds, "I20", "%s goes by a forged round %d", host.name, round.round)

    def _counted(self, host: DeviceHost, round: Round) -> None:
        """A device that has stopped sending is in the sum, as long as that attempt lasts."""
        aggregator = self._world.aggregator
        if not aggregator.alive or aggregator.machine.tally is None or round.manifest != self._manifest.id:
            return
        now = aggregator.machine.round, self.truth.start, self._epoch
        if (round.round, round.attempt, epoch_of(host)) == now:
            there = host.may_be_left_out or host.name in aggregator.machine.tally.counted
            require(there, "I06", "%s believes to be counted in round %d", host.name, round.round)

    # Aggregator

    def resumes(self, host: AggregatorHost, state: State, damaged: bool) -> None:
        self.truth.resumed(state, damaged)
        self.masked.began()

    def stops(self, host: AggregatorHost, reason: str) -> None:
        require(False, "I07", "stopped for another aggregator, where there is none: %s", reason)

    def publishes(self, host: Host, action: Publish) -> None:
        self._world.adversary.hear(action.topic, action.payload)
        if host is self._world.aggregator:
            self._announces(action)
        elif not action.retain and not action.payload.startswith(b"{"):  # else a verdict
            self._reports(host, action)  # type: ignore[arg-type]

    def _announces(self, action: Publish) -> None:
        """I08, I09: what is announced is durable."""
        truth = self.truth
        if action.topic == self._topics.round:
            round = decode(Round, plain(action.payload), RETAINED_LIMIT)
            self._rounds.add(_identity(round))
            if round.state == "open" and round.mode == "profile":
                truth.profiles.add(round.round)
            require(round.version == truth.newest, "I09", "version %d announced, not durable", round.version)
            truth.passes(round.round, self._world.aggregator.disk.ledger)
            self.masked.announced(round)
            self.masked.noise.announced(Terms.read(round.terms) if round.terms else None)
            require(round.attempt == truth.start, "I06", "attempt %d announced again", round.attempt)
            require(
                round.attempt == self._world.aggregator.disk.start, "I05", "attempt %d is not durable", round.attempt
            )
            if self._manifest.model_codecs[1] is None:
                digest = hashlib.sha256(truth.versions[truth.newest]).hexdigest()
                require(round.model_sha256 == digest, "I09", "version %d with another SHA-256", round.version)
            self._shown.setdefault(round.version, set()).add(round.model_sha256)
            self.announced = round
            self._unearned[round.round] = frozenset(round.unearned)
        elif action.topic == self._topics.summary:
            shown = decode_summary(plain(action.payload))
            paused, known = len(self._world.aggregator.disk.paused), len(self._world.schedule.devices)
            require(shown.total <= known, "I13", "%d devices are shown", shown.total)
            require((shown.version, shown.paused) == (truth.newest, paused), "I09", "shown: %r", shown)
            self.masked.noise.shows(shown.privacy, self._world.aggregator.disk.ledger)
        elif self._topics.page_of(action.topic) is not None and action.payload:
            names = [row.id for row in decode_page(plain(action.payload)).devices]
            require(len(set(names)) == len(names), "I13", "a device has two rows: %r", names)
        elif where := self._topics.model_part(action.topic):
            self._lies(where.slot, action.payload)
        elif self._topics.ask_part(action.topic) is not None:
            asked, machine = self._world.aggregator.disk.asked, self._world.aggregator.machine
            durable = asked is not None and asked.record.round == truth.round
            shows_none = machine.phase != "unmasking" and machine._inquiry is not None
            require(durable or shows_none, "I35", "round %d: a set is asked for that is not durable", truth.round)
        elif action.topic.endswith("/inbox"):
            self._receipt(action)

    def _lies(self, slot: int, payload: bytes) -> None:
        """I09, and a slot that the announced round names is not reused until another round has been announced."""
        if not payload:
            return
        part = Envelope.from_bytes(payload)
        judged = gate_of(self._world.schedule).judge == "canaries" and part.version == self.truth.newest + 1
        require(judged or part.version in self.truth.versions, "I09", "model %d published, not durable", part.version)
        if self.announced is not None and self.announced.attempt == self.truth.start:
            named = _named(self.announced)
            same = slot not in named or (part.version, part.total) == named[slot]
            require(same, "I10", "slot %d of round %d is overwritten", slot, self.announced.round)

    def _receipt(self, action: Publish) -> None:
        if not action.payload:
            return  # the inbox of a device that was removed is cleared
        receipt, machine = decode(Inbox, plain(action.payload)), self._world.aggregator.machine  # type: ignore[arg-type]
        if not isinstance(receipt, Receipt):
            return
        device = self._topics.device_of(action.topic)
        if receipt.reason.startswith(NOT_KEPT):
            refused = (device, receipt.round) not in self._world.aggregator.disk.late
            require(refused, "I06", "%s is refused as not kept, and is kept", device)
            self.truth.refused.add((device, receipt.round))
            return
        if receipt.reason == REFUSED:
            spent = (device, receipt.round) in self.truth.spent
            require(spent, "I06", "%s is told that round %d was refused", device, receipt.round)
            return
        if receipt.reason.startswith(TOO_LATE):
            self._credit(receipt, device, machine)
            return
        if receipt.outcome == "rejected":
            self._rejected(receipt, device, machine)
            return
        scores = self._world.schedule.config.mode_of(receipt.round) == "evaluate"
        scattered = self._world.schedule.masked and privacy_of(self._world.schedule).groups > 1  # may be at its end
        if (scores or scattered or receipt.round in self.truth.profiles) and machine.round > receipt.round:
            return  # its last receipt and its record are of one step
        tally = machine.tally
        assert device is not None
        if receipt.round == machine.round:
            counted = tally is not None and device in tally.counted
        else:
            closed = machine.earlier.closed.get(receipt.round)
            counted = closed is not None and closed.counted_in(device) == receipt.folded
            counted = counted or (tally is not None and (device, receipt.round) in tally.folded)
            late = (device, receipt.round)
            durable = late in self._world.aggregator.disk.late or self.truth.in_a_model(*late)
            durable = durable or late in self.truth.spent
            require(durable, "I06", "receipt for a late update of %s that is not durable", device)
            # Such a round folds nothing in, and says what earlier ones did.
            scored = tally is not None and tally.mode != "train"
            counted = counted or closed is None or scored or machine.phase == "waiting"  # kept for the next round
            self.truth.receipts.add(late)
        require(counted, "I06", "receipt for %s, which is not counted", device)

    def _rejected(self, receipt: Receipt, device: str | None, machine: RoundCoordinator) -> None:
        """No update is bad here, but one that a helper does not open. It must be of an attempt of its round that asked
        others, or had another model, or was no profile."""
        schedule = self._world.schedule
        if receipt.round in self.truth.profiles or device in (schedule.hostile, schedule.unlisted):
            return
        if self._anew and "other terms" in receipt.reason:  # made under keys of the helper's that are over
            self._under_others.add((device or "", receipt.round))
            return
        if device and self.masked.noise.rests(receipt.round, device):  # it was wiped, and has forgotten that it rests
            return
        closed = machine.earlier.closed.get(receipt.round)
        require(closed is not None, "I06", "%s: %s", device, receipt.reason)
        assert closed is not None and device is not None
        held = next(host.disk.truth.outbox for host in self._world.devices if host.name == device)
        useful = held is not None and (held.round, held.version) == (receipt.round, closed.version)
        useful = useful and receipt.version in (None, closed.version)
        require(not (useful and closed.cohort.asks(device)), "I06", "%s: %s", device, receipt.reason)

    def _credit(self, receipt: Receipt, device: str | None, machine: RoundCoordinator) -> None:
        """A late update that can't count any more is refused only to a device that rounds do not wait for."""
        assert device is not None
        tally = None if machine.phase == "waiting" else machine.tally
        named = tally is None or device in tally.opening.unearned
        if tally is not None and receipt.folded < tally.round:  # one step has closed its round and opened the next
            named = device in self._unearned[receipt.folded]
        named = named or machine.announcer.manifest.keeps_own  # then devices ask, however late updates are treated
        require(named, "I06", "%s is refused as late, and was not named", device)
        settled = self.truth.settled(device, receipt.round)
        require(not settled, "I06", "%s is refused as late, and counts in round %d", device, receipt.round)
        trains = tally is None or tally.mode == "train"
        folds = trains and machine.earlier.closed.get(receipt.round) is not None
        folds = folds or receipt.round >= machine.round
        require(not folds, "I06", "%s is refused as late in round %d, and may count", device, receipt.round)

    # Devices

    def _reports(self, host: DeviceHost, action: Publish) -> None:
        """I06: what is sent is durable on the device, byte for byte. I07: and it is not on its way already."""
        round = host.machine.round
        attempt = round.attempt if round is not None else 0
        if self._sent_in.get(action.topic) == attempt:  # an aggregator that has started again may have lost all
            passes = host.connection is not None and host.connection.is_passing("up " + action.topic)
            self._passes_once(host, action.topic, passes)
        self._sent_in[action.topic] = attempt
        self._world.faults.hear(action.topic, action.payload)
        saved = host.disk.truth.outbox
        require(saved is not None, "I06", "%s sends an update that is not durable", host.name)
        assert saved is not None
        part = int(action.topic.rsplit("/", 1)[1])
        data, size = action.payload[HEADER_BYTES:], self._manifest.part_bytes
        require(saved.blob[part * size :].startswith(data), "I06", "%s sends what is not durable", host.name)

    def subscribes(self, host: Host, action: Subscribe) -> None:
        connection = host.connection
        for topic in action.topics if connection is not None else ():
            if self._topics.model_part(topic) is not None:
                self._passes_once(host, topic, connection.is_awaited("down " + topic))

    def _passes_once(self, host: Host, topic: str, passes: bool) -> None:
        """I07: what is queued or flowing on a connection that lives is not sent, or asked for, again.

        Under faults a device can't always know: its clock leaps, or parts come that an earlier process has asked for.
        """
        again = passes and not self._world.schedule.faults
        require(not again, "I07", "%s: %s is still passing", host.name, topic)

    def trains(self, host: DeviceHost, job: TrainJob) -> None:
        """I11: no round twice. I20: on what was announced, byte for byte."""
        saved = host.disk.truth.outbox
        wanted = (job.round.manifest, job.round.round, job.round.version)
        if judges(self._world.schedule, job.round):
            return  # of a model that no round has named
        again = saved is not None and (saved.manifest, saved.round, saved.version) == wanted
        again = again and saved is not None and saved.mode == job.round.mode and not self._is_of_before(host, saved)
        require(not again, "I11", "%s trains round %d again", host.name, job.round.round)
        if job.round.mode == "profile":
            require(job.params == b"", "I20", "%s fetches a model for a profile", host.name)
            return
        require(digest_of(job.params) == job.round.frames[-1].digest, "I20", "%s trains on another model", host.name)
        if job.manifest.id == self._manifest.id:
            shown = hashlib.sha256(job.params).hexdigest() in self._shown[job.round.version]
            require(shown, "I20", "%s trains on what was not version %d", host.name, job.round.version)

    def trained(self, host: DeviceHost, job: TrainJob, blob: bytes) -> None:
        if job.round.terms:
            epsilon = Terms.read(job.round.terms).epsilon
            require(epsilon >= host.disk.told, "I38", "%s is told %r after %r", host.name, epsilon, host.disk.told)
            host.disk.told = epsilon
        if job.round.mode == "profile":
            return
        if job.manifest.id == self._manifest.id and not judges(self._world.schedule, job.round):
            self.truth.trained(host.name, job.round.round, job.round.version, blob)

    def saves(self, host: DeviceHost, outbox: Outbox) -> None:
        """I06, within a run: which of two runs is the newer one a device can't know, if a broker goes back to one."""
        saved = host.disk.truth.outbox
        replaced = saved is not None and saved.manifest == outbox.manifest and self._may_count(host, saved)
        require(not replaced, "I06", "%s overwrites its update", host.name)
        self._made_in[host.name, digest_of(outbox.blob)] = epoch_of(host)

    def profiles(self, host: AggregatorHost, profile: Profile) -> None:
        if self._world.schedule.masked:
            self.masked.profiled(profile)

    def drops(self, host: DeviceHost, applied: bool) -> None:
        """I06. And the residual of an update that is in the model becomes the device's, of another it does not:
        wherever a device can know, which is when it has a receipt of the attempt that ended the round, and missed none.
        """
        saved, truth = host.disk.truth.outbox, self.truth
        assert saved is not None
        may_count = self._may_count(host, saved) and not host.may_be_left_out
        may_count = may_count and not self._is_under_other_terms(host, saved)
        may_count = may_count and not self.masked.noise.rests(saved.round, host.name)  # it was wiped
        require(not may_count, "I06", "%s drops its update of round %d", host.name, saved.round)
        if self._manifest.keeps_own and saved.manifest == self._manifest.id and saved.mode == "train":
            known = applied or truth.fallbacks or not truth.in_a_model(host.name, saved.round)
            require(known, "I11", "%s loses what it has of its own in round %d", host.name, saved.round)
            known = not applied or truth.fallbacks or truth.settled(host.name, saved.round) or self._rolled_back(saved)
            require(known, "I11", "%s keeps what round %d never counted", host.name, saved.round)
        if not self._manifest.error_feedback or saved.manifest != self._manifest.id:
            return
        if truth.settled(host.name, saved.round):
            return
        require(saved.counted > 0 or not applied, "EF", "%s: the residual of what was never counted", host.name)
        record = truth.record_of(saved.round)
        if record is None:
            return
        if truth.committed_in[saved.round] != saved.counted or saved.round + 1 in truth.fallbacks:
            return
        if record.state == "rollback":
            return  # the device sees a newer model
        require(host.name in record.devices, "I01", "%s has a receipt of round %d", host.name, record.round)
        next_round = host.machine.round
        missed = next_round is None or next_round.round > saved.round + 1
        require(applied == (record.state == "committed") or missed, "EF", "%s: the residual", host.name)

    @property
    def _epoch(self) -> int:
        return self._world.losses.epoch

    def _may_count(self, host: DeviceHost, saved: Outbox) -> bool:
        return not self._is_of_before(host, saved) and self.truth.may_count(host.name, saved)

    def _is_of_before(self, host: DeviceHost, saved: Outbox) -> bool:
        """Whether the update was made before the aggregator's database went back: it counts no more."""
        return self._made_in.get((host.name, digest_of(saved.blob)), 0) < self._epoch

    @property
    def _anew(self) -> bool:
        """Whether the terms of a round may be others than they were: the helper's keys are not those of the first
        epoch, or the operator has set what devices were told."""
        return any(helper.epoch > 1 for helper in self._world.helpers) or self._world.losses.told > 0

    def _is_under_other_terms(self, host: DeviceHost, saved: Outbox) -> bool:
        """Whether its round was opened again under other terms, since the helper has begun another epoch, or the
        operator has said what devices were told. A receipt for what was made under those before may come when the next
        update is made."""
        round = self.announced
        if (host.name, saved.round) in self._under_others:
            return True
        if not self._anew or round is None or not round.terms or round.round != saved.round:
            return False
        return not saved.blob[UpdateHeader.size_of(saved.blob) :].startswith(Terms.read(round.terms).digest)

    def _rolled_back(self, saved: Outbox) -> bool:
        """Whether a roll-back has ended the update's round: its device sees a newer model."""
        record = self.truth.record_of(saved.round)
        return record is not None and record.state == "rollback"


def epoch_of(host: DeviceHost) -> int:
    """Of the newest certificate of the aggregator's that the device goes by; 0 without keys."""
    seen = host.disk.seen
    return NOW if seen is None else seen.epoch


def _updates(machine: RoundCoordinator) -> tuple[int, int]:
    """Bytes of updates that are not whole yet, and updates that are."""
    tally, late = machine.tally, machine.earlier.closed.partial().values()
    buffered = sum(intake.buffered for intake in late)
    if tally is None:
        return buffered, 0
    return buffered + tally.intake.buffered, tally.num_counted + len(tally.folded)


def _named(round: Round) -> dict[int, tuple[int, int]]:
    """slot -> version and length, of each payload that the round names."""
    keyframes = {f.keyframe_slot: (f.version, f.keyframe) for f in round.frames if f.keyframe}
    return keyframes | {f.delta_slot: (f.version, f.delta) for f in round.frames if f.delta}


def _identity(round: Round) -> tuple[object, ...]:
    """What tells a round that was announced from a forged one."""
    return round.manifest, round.state, round.round, round.attempt, round.version, round.model_sha256
