"""One coordinator and three sessions, with their disks, broker and network; the test that drives them picks the faults.

Safety is checked at every commit; liveness when the faults stop: a round then commits within two deadlines, as rounds
announce them. A device that gave a round up is back at that round's deadline, and the next round has one of its own.
"""

from __future__ import annotations

import numpy as np
from machines import PARAMS, TOPICS, P, make_coordinator, make_manifest, make_session, make_update

from edgefl import codecs, strategies
from edgefl.coordinator.events import (
    Commit,
    Evaluate,
    Evaluated,
    LateUpdate,
    ReloadedLate,
    ReloadLate,
    SaveAttempt,
    SaveLate,
)
from edgefl.coordinator.opening import DEADLINES
from edgefl.device.events import (
    CancelTraining,
    DropUpdate,
    Failed,
    MarkCounted,
    Pause,
    SaveUpdate,
    StartTraining,
    Trained,
)
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Sent, Subscribe, Tick, Unsubscribe
from edgefl.protocol.inbox import Inbox, Receipt
from edgefl.protocol.messages import Status, decode, encode
from edgefl.protocol.round import Round
from edgefl.protocol.update_header import UpdateHeader
from edgefl.simulation.hosts.disk import Disk
from edgefl.strategies import Update
from edgefl.transports.memory import MemoryBroker

DEVICES = ["a", "b", "c"]
AGGREGATOR = "aggregator"
DEADLINE_S = 60.0
SLACK_S = 10.0  # for what happens at a deadline
MANIFEST = make_manifest(part_bytes=2048, error_feedback=True)  # model and update are two parts each


def delta_of(device: str, round: int, version: int) -> np.ndarray:
    """What `device` learns from that model in that round: another (P,) float32 for each."""
    seed = [ord(device), round, version]
    return np.random.default_rng(seed).normal(size=P).astype(np.float32)


class World:
    """Hosts, broker and network. `pending` holds (receiver, event): the driving test picks what arrives and when."""

    def __init__(self, **config) -> None:
        self.config = config
        self.now = 0.0
        self.pending: list[tuple[str, object]] = []
        self.broker = MemoryBroker(lambda client, topic, payload: self.arrive(client, Received(topic, payload)))
        self.machines: dict = {}
        self.disks = {device: Disk() for device in DEVICES}
        self.jobs: dict[str, object] = {}
        self.boots = dict.fromkeys(DEVICES, 0)
        self.models = [PARAMS]  # the aggregator's disk: every version, and the rounds' records
        self.records: list = []
        self.committed_in: list[int] = []  # the attempt, for each
        self.late: dict[tuple[str, int], LateUpdate] = {}
        self.starts = 0
        self.deadline_s = DEADLINE_S  # the longest that a round has announced: slow reports make later rounds longer
        self.receipts: set[tuple[str, int]] = set()  # device and round, of each that said "counted"
        self.told: set[tuple[str, int]] = set()  # of these, the rounds that were over by then
        self.crash_at_commit = False
        self.start_aggregator()
        for device in DEVICES:
            self.start_device(device)

    def arrive(self, client: str, event: object) -> None:
        self.pending.append((client, event))

    def cut(self, client: str) -> None:
        """The connection breaks: what was under way to the client is gone."""
        self.broker.cut(client)
        self.pending = [(receiver, event) for receiver, event in self.pending if receiver != client]

    def start_aggregator(self) -> None:
        self.cut(AGGREGATOR)
        self.starts += 1
        start = {"round": len(self.records) + 1, "version": len(self.models) - 1, "attempt": self.starts}
        config = {"min_reports": 2, "deadline_s": DEADLINE_S} | self.config
        self.machines[AGGREGATOR] = make_coordinator(
            params=self.models[-1], manifest=MANIFEST, start=start | {"recent": self.records}, **config
        )
        self.step(AGGREGATOR, Connected())

    def start_device(self, device: str) -> None:
        self.jobs.pop(device, None)
        self.cut(device)
        self.machines[device] = make_session(device, self.disks[device].outbox)
        self.connect(device)

    def connect(self, device: str) -> None:
        self.boots[device] += 1
        self.broker.connect(device, (TOPICS.status(device), encode(Status("lost", self.boots[device]))))
        self.step(device, Connected(self.boots[device]))

    def reconnect(self, client: str) -> None:
        self.cut(client)
        self.step(client, Disconnected())
        if client == AGGREGATOR:
            self.step(client, Connected())
        else:
            self.connect(client)

    def step(self, client: str, event: object) -> None:
        for action in self.machines[client].step(event, self.now):
            if isinstance(action, Commit):
                self.commit(action)
                if self.crash_at_commit:
                    self.crash_at_commit = False
                    return self.start_aggregator()
            self.carry_out(client, action)

    def carry_out(self, client: str, action: object) -> None:
        match action:
            case Publish():
                self.note_deadline(action)
                self.note_receipt(action)
                self.broker.publish(action.topic, action.payload, action.retain)
                if action.token is not None:
                    self.arrive(client, Sent(action.token, True))
            case Subscribe():
                self.broker.subscribe(client, action.topics)
            case Unsubscribe():
                self.broker.unsubscribe(client, action.topics)
            case StartTraining():
                saved = self.disks[client].outbox
                assert saved is None or (saved.manifest, saved.round) != (MANIFEST.id, action.job.round.round), "I11"
                self.jobs[client] = action.job
            case CancelTraining():
                self.jobs.pop(client)
            case SaveUpdate():
                assert self.disks[client].outbox is None
                self.disks[client].save(action.outbox, action.slots)
            case MarkCounted():
                self.disks[client].mark_counted(action.attempt)
            case DropUpdate():
                self.check_settled(client, action.applied)
                self.disks[client].drop(action.applied)
            case Evaluate():
                self.step(client, Evaluated())
            case SaveLate(update):
                assert 0 < len(self.records) + 1 - update.round <= self.config["late_rounds"], "I03"
                self.late[update.device, update.round] = update
            case ReloadLate():
                self.step(client, ReloadedLate(list(self.late.values())))
            case _:
                assert isinstance(action, Commit | Note | SaveAttempt), action

    def note_deadline(self, action: Publish) -> None:
        if action.topic == TOPICS.round:
            announced_s = decode(Round, action.payload).deadline_s
            assert announced_s <= DEADLINES * DEADLINE_S, "I07"
            self.deadline_s = max(self.deadline_s, announced_s)

    def note_receipt(self, action: Publish) -> None:
        if action.topic.endswith("/inbox"):
            message = decode(Inbox, action.payload)
            if isinstance(message, Receipt) and message.outcome == "counted":
                update = TOPICS.device_of(action.topic), message.round
                self.receipts.add(update)
                if message.folded == message.round:
                    self.told.add(update)

    def commit(self, action: Commit) -> None:
        """I01 to I05: the record and the bytes are what an honest sum of each device's one update gives."""
        record, version = action.record, len(self.models) - 1
        assert record.round == len(self.records) + 1
        self.records.append(record)
        self.committed_in.append(self.starts)
        if action.params is None:
            assert not action.drop
            assert (record.state, record.version) == ("abandoned", version)
            assert len(record.devices) < 2
            return
        assert record.version == version + 1
        updates = [(device, record.round) for device in record.devices] + record.folded
        assert record.reported == len(updates) >= 2
        assert self.config.get("mode") == "async" or len(record.devices) >= 2
        committed = self.committed()
        assert len(committed) == len(set(committed)), "I01"
        assert action.params.tobytes() == self.honest_sum(record.round, updates).tobytes()
        self.models.append(action.params)
        for key in action.drop:
            del self.late[key]

    def committed(self) -> list[tuple[str, int]]:
        """Device and round of every update that is in a model."""
        records = [record for record in self.records if record.state == "committed"]
        return [u for r in records for u in [*((device, r.round) for device in r.devices), *r.folded]]

    def honest_sum(self, round: int, updates: list[tuple[str, int]]) -> np.ndarray:
        expected = strategies.get("fedavg")
        expected.start(self.models[-1], round)
        for device, own in updates:
            base = self.records[own - 1].version - (self.records[own - 1].state == "committed")
            payload = make_update(delta_of(device, own, base))[UpdateHeader.SIZE :]
            staleness = len(self.models) - 1 - base
            assert own == round or (device, own) in self.late
            expected.add(Update(device, 5, codecs.get("raw32"), payload, staleness))
        return expected.finish()

    def check_settled(self, device: str, applied: bool) -> None:
        """The residual of an update that is in the model becomes the device's, of another it does not: wherever a
        device can know, which is when it has a receipt of the attempt that ended the round, and missed no round; or
        when that receipt was lost, and a later round that named the device has told it."""
        saved = self.disks[device].outbox
        update = device, saved.round
        assert update in self.receipts or not applied
        if self.machines[device].round.late_rounds:
            assert not applied or update in self.late or update in self.committed(), "I11"
            return  # folded: the receipt is all that it can know
        if applied and not saved.counted:
            assert update in self.told
            assert update in self.committed(), "I11"
            return
        if len(self.records) < saved.round or self.committed_in[saved.round - 1] != saved.counted:
            return
        record = self.records[saved.round - 1]
        assert device in record.devices
        missed = self.machines[device].round.round > saved.round + 1
        assert applied == (record.state == "committed") or missed

    def finish_training(self, device: str, reason: str = "") -> None:
        job = self.jobs.pop(device)
        blob = make_update(delta_of(device, job.round.round, job.round.version))
        self.step(device, Failed(job, reason) if reason else Trained(job, blob, {"residual": b"what encoding took"}))

    def advance(self) -> None:
        """To the next time that anybody waits for; a second if nobody does."""
        wanted = [m.wake_at for m in self.machines.values() if m.wake_at is not None]
        self.now = max(self.now, min(wanted, default=self.now + 1))
        for client, machine in list(self.machines.items()):
            if machine.wake_at is not None and machine.wake_at <= self.now:
                self.step(client, Tick())
                assert machine.wake_at is None or machine.wake_at > self.now, f"{client} spins"

    def heal(self) -> None:
        """No more faults: everybody connects again, trains, and gets what is sent; a round must commit."""
        self.crash_at_commit = False
        for device in DEVICES:
            self.step(device, Pause(""))
            self.reconnect(device)
        self.reconnect(AGGREGATOR)
        versions, healed_at = len(self.models), self.now
        while len(self.models) == versions:
            bound_s = 2 * self.deadline_s + SLACK_S
            assert self.now <= healed_at + bound_s, f"no round committed in {bound_s} s after the faults stopped"
            if self.pending:
                self.step(*self.pending.pop(0))
            elif self.jobs:
                self.finish_training(next(iter(self.jobs)))
            else:
                self.advance()
