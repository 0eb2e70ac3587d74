"""A helper and whom it hears: a root, an aggregator, devices with masked updates, and the asks of all kinds.

`Desk` hosts the machine as a daemon would, on a disk that a test can lose, and with a death before or after any action.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import numpy as np

from edgefl.helper.events import (
    Find,
    Found,
    JobDone,
    Keys,
    KeysRead,
    Open,
    SaveOpened,
    SaveState,
)
from edgefl.helper.helper import Helper
from edgefl.helper.least import Least
from edgefl.helper.noise import Draw, Drawn
from edgefl.helper.refusal import REASONS
from edgefl.helper.state import State
from edgefl.machine import Connected, Note, Publish, Received
from edgefl.masking import ring, sealed, update
from edgefl.masking.exchange import Answer, Ask, Entry, read_answer, seal_ask
from edgefl.privacy.accountant import Mechanism, epsilon
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Assembler, Splitter
from edgefl.protocol.terms import Noise, Terms
from edgefl.protocol.topics import Topics
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey, to_text
from edgefl.trust.roster import Member, Roster

FEDERATION, NAME, RUN = "pond", "north", "00112233aabbccdd"
ROOT, SIGNER, THIEF = SigningKey(b"r" * 32), SigningKey(b"s" * 32), SigningKey(b"t" * 32)
LAST = 4_000_000_000
DEVICES = [f"d-{n}" for n in range(8)]
DEVICE_KEYS = {name: SigningKey(name.encode().ljust(32, b"k")) for name in [*DEVICES, "stranger"]}
TOPICS = Topics(FEDERATION)
HASH = 77  # of federation, run and plan: a helper does not know the plan, and repeats what it was asked with


def keys_of(epoch: int = 1, name: str = NAME) -> Keys:
    """A helper's keys of this epoch."""
    seed = f"{name} {epoch} ".encode().ljust(32, b"b")
    public, private = sealed.new_box_key(seed)
    return Keys(name, FEDERATION, epoch, ROOT.public, public, private, SigningKey(seed[::-1]))


def party_of(keys: Keys) -> dict[str, Any]:
    public = to_text(keys.box_public)
    return {"name": keys.name, "epoch": keys.epoch, "box": public, "key": to_text(keys.signing.public)}


@cache
def true_epsilon(rounds: int, norm2: int, delta: float, noise: Noise) -> float:
    """What so many rounds with this noise have spent."""
    return epsilon(Mechanism.of(noise, norm2).rho(rounds), delta)


def spent_of(table: dict[str, Any]) -> dict[str, Any]:
    """epsilon and delta of such terms, if all rounds of their run until theirs were opened."""
    noise, delta = msgspec.convert(table.get("noise", {}), Noise), table.get("delta", 1e-5)
    if noise.kind == "none" or not delta:
        return {}
    rounds = min(table["round"], noise.rounds or table["round"])
    return {"epsilon": true_epsilon(rounds, table["norm2"], delta, noise), "delta": delta}


def terms_of(round: int = 1, keys: Iterable[Keys] = (), **changes: Any) -> Terms:
    """Terms of eleven coordinates; `changes` of any of their fields. With noise they tell its true epsilon."""
    table = {
        "federation": FEDERATION, "run": RUN, "round": round, "version": round - 1, "model_sha256": "ab" * 32,
        "manifest": "0" * 16, "params": 11, "coordinates": 11, "seed": 5, "bits": 12, "reach": 100, "grid": 0.01,
        "clip": 1.0, "norm2": 20_000, "least": 2, "most": 8, "helpers": [party_of(one) for one in keys or [keys_of()]],
    }  # fmt: skip
    table |= changes
    return Terms.read(msgspec.json.encode({**spent_of(table), **table}).decode())


def q_of(device: str, terms: Terms) -> np.ndarray:
    """(L,) the integers of a device, another one's differ."""
    q = np.ones(terms.length, np.int32)
    q[: terms.coordinates] = np.random.default_rng(sum(device.encode())).integers(-50, 50, terms.coordinates)
    return q


def randomness(name: str):
    """A device's, so that its masked update is always the same."""
    numbers = np.random.default_rng(sum(name.encode()) * 7919)
    return lambda size: numbers.bytes(size)


_MADE: dict[tuple[str, str, bytes, str], bytes] = {}


def masked(device: str, terms: Terms, key: SigningKey | None = None, salt: str = "") -> update.MaskedUpdate:
    """The device's masked update, which it makes once; `salt` names another one of it."""
    made = (device, terms.text, (key or DEVICE_KEYS[device]).public, salt)
    if made not in _MADE:
        signing = key or DEVICE_KEYS[device]
        _MADE[made] = update.mask(q_of(device, terms), terms, device, signing, randomness(device + salt))
    return update.read(_MADE[made], terms)


def entry_of(device: str, terms: Terms, key: SigningKey | None = None, salt: str = "") -> Entry:
    found = masked(device, terms, key, salt)
    return Entry(device, found.packed_sha256, found.signature, found.boxes)


def roster_of(*devices: str, serial: int = 1, revoked: tuple[str, ...] = ()) -> Roster:
    members = {name: Member.of(DEVICE_KEYS[name].public) for name in devices or DEVICES}
    members |= {name: msgspec.structs.replace(members[name], revoked=True) for name in revoked}
    return Roster(FEDERATION, serial, members)


def certificate(key: SigningKey = SIGNER, *, serial: int = 1, epoch: int = 1, root: SigningKey = ROOT, **changes: Any):
    """The sealed signer.json."""
    told = {"federation": FEDERATION, "not_before": 0, "not_after": LAST, **changes}
    return SignerCertificate.of(key.public, serial=serial, epoch=epoch, **told).seal(root)


def ask_of(terms: Terms, devices: Iterable[str] = DEVICES[:3], **changes: Any) -> Ask:
    entries = tuple(entry_of(device, terms) for device in sorted(devices))
    return msgspec.structs.replace(Ask(terms.text, 1, entries), **changes)


def blob_of(
    ask: Ask, *, name: str = NAME, key: SigningKey = SIGNER, epoch: int = 1, cert: bytes | None = None
) -> bytes:
    """The ask as the aggregator seals it, or somebody with another key."""
    return seal_ask(ask, name, epoch, key, certificate(key, epoch=epoch) if cert is None else cert)


def parts_of(blob: bytes, round: int, version: int = 0, name: str = NAME, part_bytes: int = 1000) -> list[Received]:
    splitter = Splitter(blob, part_bytes, kind=Kind.ASK, codec=0, federation=HASH, round=round, version=version)
    return [Received(TOPICS.ask(name, part), splitter.part(part)) for part in range(splitter.parts)]


def answer_in(actions: Iterable[Any], keys: Keys | None = None) -> bytes | None:
    """The blob of the answer that is published, None if there is none."""
    parts = [one for one in actions if isinstance(one, Publish)]
    if not parts:
        return None
    first = Envelope.from_bytes(parts[0].payload)
    place = {"federation": HASH, "round": first.round, "version": first.version}
    assembler = Assembler(kind=Kind.ANSWER, **place, max_total=2**24)
    for one in parts:
        where, envelope = TOPICS.answer_part(one.topic), Envelope.from_bytes(one.payload)
        assert where == ((keys or keys_of()).name, envelope.part) and not one.retain
        done = assembler.add(envelope)
    assert done
    return assembler.blob()


def opened_sum(answer: Answer, devices: Iterable[str], terms: Terms, group: int = 0) -> np.ndarray:
    """(L,) int64: the devices' masked vectors without what the helper has opened."""
    total = np.zeros(terms.length, np.uint32)
    for device in devices:
        ring.add(total, masked(device, terms).packed, terms.bits)
    found = answer.groups[group]
    assert found is not None
    total -= ring.unpack(found[1], terms.length, terms.bits)
    return ring.centre(total, terms.bits)


class Killed(Exception):
    """The process has died."""


class Disk:
    """What is durable: the state, and answers by round. `writes` counts."""

    def __init__(self) -> None:
        self.state, self.answers, self.writes = State(), {}, 0
        self.memory: bytes | None = None

    def save(self, state: State, answer: bytes | None = None) -> None:
        answers = dict(self.answers) if answer is None else {**self.answers, state.round: answer}
        kept = {one.round for one in state.opened}
        self.state = State.from_bytes(state.to_bytes())
        self.answers = {round: found for round, found in answers.items() if round in kept}
        self.writes += 1

    def copy(self) -> Disk:
        out = Disk()
        out.state, out.answers, out.memory = self.state, dict(self.answers), self.memory
        return out


class Desk:
    """Hosts a helper. `sent` has the whole answers that left, and `left` each part, also of processes that have died.
    `die_at` counts actions down, and kills before the action that makes it zero: so after a write, but before what
    follows from it, too."""

    def __init__(self, disk: Disk | None = None, *, keys: Keys | None = None, least: Least | None = None, roster=None):
        self.disk, self.keys, self.least = disk or Disk(), keys or keys_of(), least or Least(devices=2)
        self.roster = roster or roster_of()
        self.sent: list[bytes] = []
        self.left: list[Envelope] = []
        self.log: list[str] = []
        self.die_at: int | None = None
        self.max_packet: int | None = None
        self.draws = itertools.count(1)
        self.start()

    def start(self) -> None:
        """A new process on the same disk."""
        self.machine = Helper(self.keys, self.roster, self.least, self.disk.state)
        self._carry_out(self.machine.begin())
        self.feed(Connected(1, self.max_packet))

    def draw(self, terms: Terms, purpose: bytes) -> Drawn:
        """Noise that is never twice the same; correlated noise as a daemon draws it."""
        numbers = np.random.default_rng(next(self.draws))
        if terms.noise.kind == "banded":
            return Draw(self.disk.memory, numbers.bytes)(terms, purpose)
        return Drawn(numbers.integers(-9, 10, terms.length))

    def feed(self, *events: Any) -> bytes | None:
        """The answer that left, if one did."""
        actions = [action for event in events for action in self._carry_out(self.machine.step(event, 0.0))]
        answer = answer_in(actions, self.keys)
        if answer is not None:
            self.sent.append(answer)
        return answer

    def ask(self, ask: Ask, **options: Any) -> Answer | None:
        """What the helper answers to this ask."""
        terms = Terms.read(ask.terms)
        raw = self.feed(*parts_of(blob_of(ask, **options), terms.round, terms.version))
        return None if raw is None else read_answer(raw, NAME, self.keys.signing.public, terms)

    def renew(self, epoch: int) -> None:
        """The keys of another epoch."""
        self.keys = keys_of(epoch)
        self.feed(KeysRead(self.keys))

    def _carry_out(self, actions: list[Any]) -> list[Any]:
        done: list[Any] = []
        for action in actions:
            self._die()
            match action:
                case SaveOpened():
                    self.disk.save(action.state, action.answer)
                    self.disk.memory = action.memory or self.disk.memory
                case SaveState():
                    self.disk.save(action.state)
                case Open(job):
                    done += self._carry_out(self.machine.step(JobDone(job, job.run(self.draw)), 0.0))
                case Find(round):
                    done += self._carry_out(self.machine.step(Found(round, self.disk.answers.get(round)), 0.0))
                case Note():
                    self.log.append(action.text)
                case Publish():
                    self.left.append(Envelope.from_bytes(action.payload))
                    done.append(action)
        return done

    def _die(self) -> None:
        if self.die_at is not None:
            self.die_at -= 1
            if self.die_at <= 0:
                raise Killed


def refused(desk: Desk, ask, code: str, **options) -> str:
    """Ask, see that it is refused with this code, and that the next good ask is opened; returns the reason."""
    assert code in REASONS
    before = desk.disk.state
    answer = desk.ask(ask, **options)
    assert answer is not None, "the aggregator is told"
    assert answer.reason.startswith(f"{code}: ") and answer.groups == ()
    assert answer.set_digest == ask.set_digest and answer.epsilon == before.epsilon
    assert answer.round == desk.disk.state.round
    assert any(f"refused: {answer.reason[:60]}" in line for line in desk.log)
    assert not desk.disk.answers or desk.disk.state.opened == before.opened, "nothing was opened"
    return answer.reason
