"""Keys in a third of all schedules, and whoever can publish but not sign: it replays what it has heard, and forges.

It may publish on every topic, as on a broker without access control. Nothing that it does may count, lead a device
back, or end what a device does: the checker looks at that. It stops when the faults do.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from nacl import bindings

from edgefl.coordinator.events import SignerRead
from edgefl.coordinator.signing import Keys as AggregatorKeys
from edgefl.device.trust import Keys
from edgefl.protocol.envelope import Kind, federation_hash
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.messages import RETAINED_LIMIT, Claim, decode, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.signed_update import Context, sign
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.trust.certificate import SignerCertificate, purpose_of
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.roster import Member, Roster
from edgefl.trust.seal import seal

from .schedule import FEDERATION, Schedule

if TYPE_CHECKING:
    from .hosts import DeviceHost
    from .world import World

ROOT, SIGNER, THIEF = SigningKey(b"r" * 32), SigningKey(b"s" * 32), SigningKey(b"t" * 32)
EARLIER, NOW = 1, 2  # epochs: the earlier run's, and this one's
EVERY_S = 10.0
HEARD = 300

# The same bytes have the same signature, and all devices verify the same rounds: that took a tenth of a schedule
bindings.crypto_sign = lru_cache(4096)(bindings.crypto_sign)
bindings.crypto_sign_open = lru_cache(4096)(bindings.crypto_sign_open)


def is_keyed(schedule: Schedule) -> bool:
    return schedule.seed % 3 == 1


def certificate(epoch: int = NOW, root: SigningKey = ROOT, key: SigningKey = SIGNER) -> bytes:
    times = {"not_before": 0, "not_after": 2**40}
    return SignerCertificate.of(key.public, federation=FEDERATION, serial=epoch, epoch=epoch, **times).seal(root)


def aggregators_keys(schedule: Schedule, epoch: int = NOW) -> AggregatorKeys | None:
    if not is_keyed(schedule):
        return None
    members = {name: Member.of(_key(name).public) for name in schedule.devices}
    return SignerRead(SIGNER, certificate(epoch), epoch), Roster(FEDERATION, 1, members)


def devices_keys(host: DeviceHost) -> Keys | None:
    return Keys(ROOT.public, _key(host.name), host.disk.seen) if is_keyed(host.world.schedule) else None


def _key(name: str) -> SigningKey:
    return SigningKey(name.encode() * 32)


def sealed(schedule: Schedule, topic: str, message: bytes) -> bytes:
    """As the earlier run's signer has published it."""
    return seal(message, purpose_of(topic, EARLIER), SIGNER, certificate(EARLIER)) if is_keyed(schedule) else message


def plain(payload: bytes) -> bytes:
    """A control message without its seal."""
    return payload.partition(b"\n")[0]


class Adversary:
    """`hear` is given all that goes over the broker."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(world.schedule.seed + 3)
        self._topics = Topics(FEDERATION)
        self._heard: list[tuple[str, bytes]] = []
        if is_keyed(world.schedule) and not world.broker.rates:  # on a slow line its bytes alone would stop a device
            self._later()

    @property
    def _epoch(self) -> int:
        return self._world.losses.epoch

    def hear(self, topic: str, payload: bytes) -> None:
        if is_keyed(self._world.schedule) and payload:
            self._heard.append((topic, payload))
            if len(self._heard) > HEARD:
                del self._heard[self._rng.randrange(HEARD)]

    def _later(self) -> None:
        self._world.clock.after(self._rng.expovariate(1 / EVERY_S), self._act)

    def _act(self) -> None:
        world, rng = self._world, self._rng
        if world.healed_at is not None:
            return
        if world.broker.up and self._heard:
            acts = [self._replay, self._forge_round, self._forge_claim, self._forge_receipt, self._forge_update]
            act = rng.choice(acts)
            for topic, payload in act():
                world.trace("adversary", "%s %r", topic, payload[:60])
                keeps = "/u/" not in topic and "/model/" not in topic  # what replaces the model stops all who fetch it
                world.broker.route(topic, payload, retain=keeps and rng.random() < 0.2)
        self._later()

    def _replay(self) -> list[tuple[str, bytes]]:
        """Old messages once more; those to one device may come to another."""
        found = self._rng.sample(self._heard, min(4, len(self._heard)))
        if self._rng.random() < 0.3:
            found = [(self._elsewhere(topic), payload) for topic, payload in found]
        return found

    def _elsewhere(self, topic: str) -> str:
        words = topic.split("/")
        if "d" in words and words[-1] == "inbox":
            words[words.index("d") + 1] = self._rng.choice(self._world.schedule.devices)
        return "/".join(words)

    def _newest(self) -> Round | None:
        found = [payload for topic, payload in self._heard if topic == self._topics.round]
        return decode(Round, plain(found[-1]), RETAINED_LIMIT) if found else None

    def _forge_round(self) -> list[tuple[str, bytes]]:
        """A round of the highest attempt, or one that is done: without a seal, by another key, with a certificate by
        another root, or with the seal of a true one."""
        true = self._newest()
        if true is None:
            return []
        change = self._rng.choice([{"attempt": 2**32 - 1}, {"state": "done"}, {"version": true.version + 1}])
        message = encode(msgspec.structs.replace(true, issued=true.issued + 60, **change))
        topic, seals = self._topics.round, [p for t, p in self._heard if t == self._topics.round]
        return [(topic, self._rng.choice([
            message,
            seal(message, purpose_of(topic, self._epoch), THIEF, certificate(self._epoch)),
            seal(message, purpose_of(topic, 99), THIEF, certificate(99, root=THIEF, key=THIEF)),
            message + b"\n" + self._rng.choice(seals).partition(b"\n")[2],
        ]))]  # fmt: skip

    def _forge_claim(self) -> list[tuple[str, bytes]]:
        """A claim to the federation that would end the aggregator."""
        topic, run = self._topics.aggregator, self._world.schedule.manifest.run
        message = encode(Claim(run, 2**32 - 1, "f" * 16, 1, "holding"))
        return [(topic, self._rng.choice([message, seal(message, topic, THIEF)]))]

    def _forge_receipt(self) -> list[tuple[str, bytes]]:
        """A "counted" would end a report, "rejected" would drop an update."""
        true, topic = self._newest(), self._topics.inbox(self._rng.choice(self._world.schedule.devices))
        if true is None:
            return []
        outcome = self._rng.choice(["counted", "rejected"])
        message = encode(Receipt(true.round, true.attempt, outcome, run=true.run))
        return [(topic, self._rng.choice([message, seal(message, purpose_of(topic, self._epoch), THIEF)]))]

    def _forge_update(self) -> list[tuple[str, bytes]]:
        """A whole update in the name of a device: without a signature, by another key, or an honest one's signature."""
        true, manifest = self._newest(), self._world.schedule.manifest
        device = self._rng.choice(self._world.schedule.devices)
        if true is None:
            return []
        delta = np.full(manifest.update_size, 0.25, np.float32)
        blob = UpdateHeader(20, 1, 0.5, 10, 0).to_bytes() + manifest.update_codec.encode(delta)
        codec = manifest.update_codec.wire_id
        context = Context(FEDERATION, self._epoch, manifest.run, true.round, true.version, device, codec)
        blob = self._rng.choice([blob, sign(blob, context, THIEF)])
        splitter = Splitter(
            blob, manifest.part_bytes, kind=Kind.UPDATE, codec=codec, round=true.round, version=true.version,
            federation=federation_hash(FEDERATION, manifest.run, manifest.plan.hash),
        )  # fmt: skip
        parts = range(splitter.parts)
        return [(self._topics.update(device, true.round, part), splitter.part(part)) for part in parts]
