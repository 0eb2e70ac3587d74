"""What is sealed, and what is signed inside: certificates, rosters, requests for enrolment, messages to a device.

The first byte chooses the kind, the second whether the rest is sealed as it should be before it is read: a seal keeps
what is behind it from being looked at, and whoever has a key may seal anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from edgefl.core.plan import Node, Param, Plan
from edgefl.device.model.delivery import Wanted
from edgefl.device.session import DeviceSession
from edgefl.device.trust import Keys
from edgefl.machine import Connected, Received, Tick
from edgefl.protocol import enrol
from edgefl.protocol.enrol import Approval, Ask
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.manifest import Manifest, SkeletonInfo
from edgefl.protocol.messages import encode
from edgefl.protocol.round import Frame, Round
from edgefl.protocol.topics import Topics
from edgefl.settings import TrainSettings
from edgefl.trust.certificate import SignerCertificate, purpose_of
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.roster import Member, Roster
from edgefl.trust.seal import is_sealed, open_seal, read_seal, seal

LONGEST = 8192
NAME, DEVICE = "digits", "dev-a"
ROOT, SIGNER, DEVICE_KEY = SigningKey(b"r" * 32), SigningKey(b"s" * 32), SigningKey(b"d" * 32)
TOPICS = Topics(NAME)
ID, RUN = f"{enrol.BATCH}{'a' * 16}", "0" * 16
CERTIFICATE = SignerCertificate.of(
    SIGNER.public, federation=NAME, serial=3, epoch=2, not_before=0, not_after=4_000_000_000
)
PLAN = Plan([3], [Node("dense", [0], [0, 1])], [Param("w", [3, 2]), Param("b", [2])], "cross_entropy", 1, 1)
MANIFEST = Manifest(NAME, RUN, PLAN, TrainSettings(), part_bytes=256)
WITH_SKELETON = Manifest(NAME, RUN, PLAN, TrainSettings(), part_bytes=256, skeleton=SkeletonInfo("4" * 64, 300))
CHAIN = "1" * 64
ROUND = Round(
    MANIFEST.id, "open", 5, 2, 4, "2" * 64, [Frame(4, "2" * 16, 40, 0)], 60.0, run=RUN, previous=CHAIN, chain="3" * 64,
    issued=1_800_000_000,
)  # fmt: skip


def session() -> DeviceSession:
    keys = Keys(ROOT.public, DEVICE_KEY, None)
    wanted = Wanted(60.0, file=True)
    return DeviceSession(DEVICE, NAME, num_examples=5, rng=random.Random(0), keys=keys, wanted=wanted)


def to_device(topic: str, payload: bytes) -> None:
    """A device reads it before it has a manifest, with one, and once more."""
    machine = session()
    for event in (
        Connected(),
        Received(topic, payload),
        Received(
            TOPICS.manifest,
            seal(MANIFEST.raw, purpose_of(TOPICS.manifest, CERTIFICATE.epoch), SIGNER, CERTIFICATE.seal(ROOT)),
        ),
        Received(topic, payload),
        Received(topic, payload),
        Tick(),
    ):
        assert len(machine.step(event, 1.0)) < 100


def request(payload: bytes) -> None:
    enrol.read(Ask, payload).check(NAME)


def seal_only(raw: bytes) -> None:
    sealed = read_seal(raw)
    assert is_sealed(raw) or not raw.startswith(b"{") or b"\n{" not in raw
    assert not sealed.is_signed("other", ROOT.public)
    open_seal(raw, "purpose", ROOT.public)


class Kind:
    """How one kind is read, the purpose and the key of its seal, and a sound payload."""

    def __init__(
        self, read: Callable[[bytes], object], purpose: str, key: SigningKey, payload: bytes, certificate: bytes = b""
    ) -> None:
        self.read, self.payload = read, payload
        self.seal = lambda payload: seal(payload.replace(b"\n", b" "), purpose, key, certificate)


def device(topic: str, message: object, certificate: bytes = b"") -> Kind:
    payload = encode(message)  # type: ignore[arg-type]
    return Kind(lambda raw: to_device(topic, raw), purpose_of(topic, CERTIFICATE.epoch), SIGNER, payload, certificate)


def first_line(sealed: bytes) -> bytes:
    return sealed.partition(b"\n")[0]


def kinds() -> list[Kind]:
    gone = Member(Member.of(SIGNER.public).key, revoked=True)
    roster = Roster(NAME, 7, {DEVICE: Member.of(DEVICE_KEY.public, max_examples=9), "b": gone})
    own, approval = CERTIFICATE.seal(ROOT), Approval(ID, DEVICE, "pem").seal(ROOT)
    asked = encode(Ask.of("pem", DEVICE_KEY, DEVICE, NAME))
    return [
        Kind(seal_only, "purpose", ROOT, b'{"a":1}'),
        Kind(lambda raw: SignerCertificate.open(raw, ROOT.public, NAME), "signer", ROOT, first_line(own)),
        Kind(lambda raw: Roster.open(raw, ROOT.public, NAME), "roster", ROOT, first_line(roster.seal(ROOT))),
        Kind(lambda raw: Approval.open(raw, ROOT.public, ID), f"enrol {ID}", ROOT, first_line(approval)),
        device(TOPICS.manifest, MANIFEST, own),
        device(TOPICS.manifest, WITH_SKELETON, own),
        device(TOPICS.round, ROUND, own),
        device(TOPICS.inbox(DEVICE), Receipt(5, 2, "counted", run=RUN)),
        Kind(lambda raw: request(first_line(raw)), "ask", ROOT, asked),
    ]


KINDS = kinds()


def seeds() -> list[bytes]:
    sound = [bytes([number, 1]) + kind.payload for number, kind in enumerate(KINDS)]
    return sound + [bytes([number, 0]) + kind.seal(kind.payload) for number, kind in enumerate(KINDS)]


def run(data: bytes) -> None:
    if len(data) < 2:
        return
    kind = KINDS[data[0] % len(KINDS)]
    kind.read(kind.seal(data[2:]) if data[1] % 2 else data[2:])
