"""A helper in the simulation, and its disk.

It may die between any two actions, and its disk fails as all disks do. Where rounds have noise, its disk may be put
back to an earlier state; then its operator begins the next epoch of its keys (docs/helper.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from edgefl.errors import StoreError
from edgefl.helper import events as helper_events
from edgefl.helper.events import Find, Found, JobDone, Keys, RosterRead, SaveOpened, SaveState
from edgefl.helper.events import Open as OpenJob
from edgefl.helper.helper import Helper
from edgefl.helper.least import Least
from edgefl.helper.noise import Draw
from edgefl.helper.opening import Job, Sums
from edgefl.helper.state import State
from edgefl.machine import Publish
from edgefl.masking import sealed
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.terms import Party
from edgefl.trust.ed25519 import SigningKey, to_text
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.roster import Roster

from .disks import FailingDisk, PowerLost
from .host import Host
from .keys import ROOT, aggregators_keys
from .noise import Floats, Key, Opening, Tape
from .schedule import FEDERATION
from .violation import require

if TYPE_CHECKING:
    from .world import World

HELPER = "north"
LEAST = 2
BACKUPS = 5


def helper_keys(epoch: int = 1) -> Keys:
    seed = hashlib.sha256(b"helper of the simulation" + (b"" if epoch == 1 else b" %d" % epoch)).digest()
    box = sealed.new_box_key(seed)
    return Keys(HELPER, FEDERATION, epoch, ROOT.public, *box, SigningKey(seed))


def certified(epoch: int = 1) -> tuple[Party, str]:
    """The helper's keys of this epoch, as terms name them, and what the root says of them."""
    keys = helper_keys(epoch)
    box, key = keys.box_public, keys.signing.public
    certificate = HelperCertificate.of(
        HELPER, box, key, federation=FEDERATION, serial=epoch, epoch=epoch, not_before=0, not_after=2**40
    ).seal(ROOT)
    return Party(HELPER, epoch, to_text(box), to_text(key)), certificate.decode()


class HelperDisk(FailingDisk):
    """As edgefl_broker.helper's store. `noise` has what correlated noise the state knows of, by round: the simulation's
    own. `told` hears of what has become durable, whether or not the caller knows."""

    def __init__(self) -> None:
        self.state = State()
        self.answers: dict[int, bytes] = {}
        self.memory: bytes | None = None
        self.noise: dict[Key, Floats] = {}
        self.backups: list[tuple[State, dict[int, bytes], bytes | None, dict[Key, Floats]]] = []

    def save(
        self, state: State, answer: bytes | None = None, memory: bytes | None = None,
        noise: dict[Key, Floats] | None = None, told: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        def write() -> None:
            self.backups = [*self.backups[1 - BACKUPS :], (self.state, self.answers, self.memory, self.noise)]
            self.state = state
            answers: Mapping[int, bytes] = self.answers if answer is None else {**self.answers, state.round: answer}
            kept = {opened.round for opened in state.opened}
            self.answers = {round: blob for round, blob in answers.items() if round in kept}
            self.memory = memory or self.memory
            self.noise = self.noise if noise is None else noise
            told()

        self.transact(write)

    def restore(self, back: int) -> None:
        """Put back what it was so many writes ago, or as long ago as there is a backup of."""
        if self.backups:
            self.state, self.answers, self.memory, self.noise = self.backups[-min(back, len(self.backups))]


class HelperHost(Host[helper_events.Event, helper_events.Action]):
    """A helper."""

    machine: Helper

    def __init__(self, world: World) -> None:
        super().__init__(world, f"helper-{HELPER}")
        self.disk = HelperDisk()
        self.epoch = 1  # of the keys in its folder
        self._roster_serial = 1  # of the roster there
        self._drawn = 0  # sets that noise was drawn for, by any of its processes
        self._opening: Opening | None = None  # that is done last
        if world.schedule.unlisted:
            world.clock.at(world.schedule.heal_at * (5 + world.schedule.seed % 4) / 8, self._replace_roster)

    def _replace_roster(self) -> None:
        """The operator has brought the newest one."""
        self._roster_serial = 2
        if self.alive:
            self.feed(RosterRead(self._roster()))

    def _roster(self) -> Roster:
        keys, unlisted, serial = (
            aggregators_keys(self.world.schedule),
            self.world.schedule.unlisted,
            self._roster_serial,
        )
        assert keys is not None
        devices = {name: member for name, member in keys[1].devices.items() if serial > 1 or name != unlisted}
        return msgspec.structs.replace(keys[1], serial=serial, devices=devices)

    def boot_up(self) -> None:
        self.machine = Helper(helper_keys(self.epoch), self._roster(), Least(devices=LEAST), self.disk.state)
        try:
            for action in self.machine.begin():
                self.carry_out(action)
        except (PowerLost, StoreError) as error:
            self.die(f"its first write fails: {error!r}")

    def act(self, action: helper_events.Action) -> None:
        match action:
            case OpenJob(job):
                self._open(job)
            case SaveOpened(state, answer, memory):
                self._save(state, answer, memory)
            case SaveState(state):
                self.disk.save(state)
            case Find(round):
                self.answer(Found(round, self.disk.answers.get(round)))
            case _:
                self.carry_out_shared(action)

    def _open(self, job: Job) -> None:
        self._drawn += 1
        tape = Tape(f"tape {self.world.schedule.seed} {self._drawn}")
        starts, result = self.starts, job.run(Draw(self.disk.memory, tape))

        def done() -> None:
            if starts == self.starts:
                self._opening = Opening(job, result, tape) if isinstance(result, Sums) else None
                self.feed(JobDone(job, result))

        self.clock.after(self.world.rng.uniform(0, 3), done)

    def _save(self, state: State, answer: bytes, memory: bytes | None) -> None:
        opening, truth = self._opening, self.world.checker.masked
        assert opening is not None
        truth.saves(state.run, state.round)
        if opening.job.terms.noise.kind == "none":
            self.disk.save(state, answer, memory)
            return
        noise, known = truth.noise.drawn(opening, self.disk.noise)
        self.disk.save(state, answer, memory, known, lambda: truth.noise.opened(opening, noise, state.ledger))

    def publish(self, action: Publish) -> None:
        """I34: what leaves is durable, and of one set a round."""
        envelope = Envelope.from_bytes(action.payload)
        blob, answers = envelope.data, self.disk.answers
        found = [opened for opened in self.disk.state.opened if blob in answers.get(opened.round, b"")]
        found = [opened for opened in found if envelope.parts > 1 or answers[opened.round] == blob]
        reason_bytes = int.from_bytes(blob[85:87], "little")  # exchange.Answer: 1 + 32 + 32 + 4 + 8 + 8
        require(bool(found) or reason_bytes > 0, "I34", "an answer that is not durable")
        for opened in found:
            self.world.checker.masked.answered(self.disk.state.run, opened.round, bytes.fromhex(opened.set_digest))
            self.world.losses.opened_sum(self.disk.state.signer_epoch)
        self.world.adversary.hear(action.topic, action.payload)
        connection = self.connection
        if connection is not None:
            self.world.broker.publish(connection, action.topic, action.payload, action.retain, None)
