"""One coordinator and three sessions on a network that loses, repeats and reorders, with restarts at any moment.

Safety is checked at every commit; liveness when the faults stop: a round then commits within BOUND_S.
"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from machines import PARAMS, TOPICS, P, make_coordinator, make_manifest, make_session, make_update

from edgefl import codecs, strategies
from edgefl.coordinator_events import Commit, Evaluate, Evaluated
from edgefl.device_events import (
    CancelTraining,
    DropUpdate,
    Failed,
    MarkCounted,
    Pause,
    SaveUpdate,
    StartTraining,
    Trained,
)
from edgefl.protocol.machine import Connected, Disconnected, Note, Publish, Received, Sent, Subscribe, Tick, Unsubscribe
from edgefl.protocol.messages import Status, UpdateHeader, encode
from edgefl.simulation.disk import Disk
from edgefl.strategies import Update
from edgefl.transports.memory import MemoryBroker

DEVICES = ["a", "b", "c"]
AGGREGATOR = "aggregator"
DEADLINE_S = 60.0
BOUND_S = 2 * DEADLINE_S + 10  # a device that gave a round up is back at that round's deadline
MANIFEST = make_manifest(part_bytes=2048, error_feedback=True)  # model and update are two parts each


def delta_of(device: str, round: int, version: int) -> np.ndarray:
    """What `device` learns from that model in that round: another (P,) float32 for each."""
    seed = [ord(device), round, version]
    return np.random.default_rng(seed).normal(size=P).astype(np.float32)


class World:
    """Hosts, broker and network. `pending` holds (receiver, event): whoever drives picks what arrives and when."""

    def __init__(self) -> None:
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
        self.starts = 0
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
        self.machines[AGGREGATOR] = make_coordinator(
            params=self.models[-1], manifest=MANIFEST, start=start, min_reports=2, deadline_s=DEADLINE_S
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
                self.disks[client].save(action.outbox, action.residual)
            case MarkCounted():
                self.disks[client].mark_counted(action.attempt)
            case DropUpdate():
                self.check_settled(client, action.applied)
                self.disks[client].drop(action.applied)
            case Evaluate():
                self.step(client, Evaluated())
            case _:
                assert isinstance(action, Commit | Note), action

    def commit(self, action: Commit) -> None:
        """I01 to I05: the record and the bytes are what an honest sum of each device's one update gives."""
        record, version = action.record, len(self.models) - 1
        assert record.round == len(self.records) + 1
        self.records.append(record)
        self.committed_in.append(self.starts)
        if action.params is None:
            assert (record.state, record.version) == ("abandoned", version)
            assert record.reported < 2
            return
        assert record.version == version + 1
        assert record.reported == len(record.devices) == len(set(record.devices)) >= 2
        expected = strategies.get("fedavg")
        expected.start(self.models[-1], record.round)
        for device in record.devices:
            payload = make_update(delta_of(device, record.round, version))[UpdateHeader.SIZE :]
            expected.add(Update(device, 5, codecs.get("raw32"), payload))
        assert action.params.tobytes() == expected.finish().tobytes()
        self.models.append(action.params)

    def check_settled(self, device: str, applied: bool) -> None:
        """The residual of an update that is in the model becomes the device's, of another it does not: wherever a
        device can know, which is when it has a receipt of the attempt that ended the round, and missed no round."""
        saved = self.disks[device].outbox
        assert saved.counted or not applied
        if len(self.records) < saved.round or self.committed_in[saved.round - 1] != saved.counted:
            return
        record = self.records[saved.round - 1]
        assert device in record.devices
        missed = self.machines[device].round.round > saved.round + 1
        assert applied == (record.state == "committed") or missed

    def finish_training(self, device: str, reason: str = "") -> None:
        job = self.jobs.pop(device)
        blob = make_update(delta_of(device, job.round.round, job.round.version))
        self.step(device, Failed(job, reason) if reason else Trained(job, blob, b"what encoding took"))

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
        versions, until = len(self.models), self.now + BOUND_S
        while len(self.models) == versions:
            assert self.now <= until, f"no round committed in {BOUND_S} s after the faults stopped"
            if self.pending:
                self.step(*self.pending.pop(0))
            elif self.jobs:
                self.finish_training(next(iter(self.jobs)))
            else:
                self.advance()


class Federation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    any_device = st.sampled_from(DEVICES)
    any_number = st.integers(0, 2**16)

    def pick(self, number: int) -> int:
        return number % len(self.world.pending)

    @precondition(lambda self: self.world.pending)
    @rule(count=st.integers(1, 30))
    def deliver_in_order(self, count):
        for _ in range(min(count, len(self.world.pending))):
            if self.world.pending:
                self.world.step(*self.world.pending.pop(0))

    @precondition(lambda self: self.world.pending)
    @rule(number=any_number)
    def deliver_out_of_order(self, number):
        self.world.step(*self.world.pending.pop(self.pick(number)))

    @precondition(lambda self: self.world.pending)
    @rule(number=any_number)
    def deliver_and_keep(self, number):
        self.world.step(*self.world.pending[self.pick(number)])

    @precondition(lambda self: self.world.pending)
    @rule(number=any_number)
    def lose(self, number):
        self.world.pending.pop(self.pick(number))

    @precondition(lambda self: self.world.jobs)
    @rule(number=any_number, reason=st.sampled_from(["", "", "", "no data"]))
    def finish_training(self, number, reason):
        jobs = list(self.world.jobs)
        self.world.finish_training(jobs[number % len(jobs)], reason)

    @rule()
    def advance(self):
        self.world.advance()

    @rule(device=any_device)
    def kill_device(self, device):
        self.world.start_device(device)

    @rule(client=st.sampled_from([*DEVICES, AGGREGATOR]))
    def reconnect(self, client):
        self.world.reconnect(client)

    @rule(device=any_device, reason=st.sampled_from(["on battery", ""]))
    def pause(self, device, reason):
        self.world.step(device, Pause(reason))

    @rule()
    def kill_aggregator(self):
        self.world.start_aggregator()

    @rule()
    def kill_aggregator_at_its_next_commit(self):
        self.world.crash_at_commit = True

    def teardown(self):
        self.world.heal()


Federation.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestI07FederationSurvivesAnything = Federation.TestCase


def test_i07_without_faults_a_round_takes_no_deadline():
    world = World()
    for version in range(1, 4):
        world.heal()
        assert len(world.models) == version + 1
    assert world.now == 0.0
    assert [r.devices for r in world.records[1:]] == [DEVICES] * 2  # the first opens as soon as two are there
