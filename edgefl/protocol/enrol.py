"""Enrolment of devices that were flashed from one image: what a device asks for, and the root's answer. No I/O.

    enrol/{batch}/{id}/ask       device -> aggregator    Ask: its public keys, and the name that it would like
    enrol/{batch}/{id}/answer    aggregator -> device    Answer, or the sealed Approval

`batch` is the device's MQTT user name, `batch-` and a number, whose password is the batch's token; `id` is its MQTT
client id. Neither message is retained. The private keys are made on the device, and never leave it. The id is the head
of a SHA-256 over both public keys, so a token alone takes nobody's place: an operator who compares the id with what the
device shows approves the keys of that device. The approval is sealed by the federation's root, for this id.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from ..errors import ProtocolError, UsageError
from ..trust import ed25519
from ..trust.ed25519 import SigningKey
from ..trust.seal import open_seal, seal
from .topics import BATCH, Topics, check_device_id

TICKET, TEMPLATE = "enrol.json", "agent.toml.in"  # in a batch's image
BATCHES, APPROVED = "batches.json", "approved"  # in the folder of the aggregator's keys
LIMIT = 8 * 1024  # bytes of a message
_PREFIX = b"edgefl enrol 1\n"
_ID = rf"{BATCH}[0-9a-f]{{16}}"
_BATCH = rf"{BATCH}[0-9a-f]{{8}}"
Id = Annotated[str, Meta(pattern=rf"^{_ID}\Z")]
Pem = Annotated[str, Meta(max_length=4096)]
T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True):
    """`csr` is the request for a TLS certificate, PEM; `key` the public signing key, base64, of the signature."""

    csr: Pem
    key: Annotated[str, Meta(max_length=44)]
    signature: Annotated[str, Meta(max_length=88)]
    name: Annotated[str, Meta(max_length=64)]

    @classmethod
    def of(cls, csr: str, key: SigningKey, name: str, federation: str) -> Ask:
        """The request of a device that would like this name."""
        return cls(csr, ed25519.to_text(key.public), ed25519.to_text(key.sign(_statement(csr, federation))), name)

    @property
    def id(self) -> str:
        """The MQTT client id of the device, which names its keys."""
        return BATCH + hashlib.sha256(f"{self.key}\n{self.csr}".encode()).hexdigest()[:16]

    def check(self, federation: str) -> None:
        """ProtocolError unless the signing key is the sender's, and the name one that a device can have."""
        try:
            check_device_id(self.name)
        except UsageError as error:
            raise ProtocolError(f"{error}: dropped") from None
        signature = ed25519.from_text(self.signature, ed25519.SIGNATURE_BYTES)
        if not ed25519.verify(ed25519.from_text(self.key), _statement(self.csr, federation), signature):
            raise ProtocolError("its signing key has not signed the request: dropped")


class Answer(msgspec.Struct, frozen=True):
    """Not an approval: "waiting" for the operator, or "refused" for a reason."""

    state: Annotated[str, Meta(max_length=16)]
    reason: Annotated[str, Meta(max_length=200)] = ""


class Approval(msgspec.Struct, frozen=True):
    """The root's word that the device with these keys is `name`, and its TLS certificate, PEM."""

    id: Id
    name: Annotated[str, Meta(max_length=64)]
    certificate: Pem

    def seal(self, root: SigningKey) -> bytes:
        """The file, and the message."""
        return seal(msgspec.json.encode(self), f"enrol {self.id}", root)

    @classmethod
    def open(cls, raw: bytes, root: bytes, id: str) -> Approval:
        """The approval in a message; ProtocolError unless this root has sealed it for this id."""
        found = read(cls, open_seal(raw[: LIMIT + 1], f"enrol {id}", root))
        if found.id != id:
            raise ProtocolError(f"approval of {found.id}: dropped")
        return found


class Batch(msgspec.Struct, frozen=True):
    """What the aggregator knows of a batch: how many devices it may enrol, and until when, in Unix time."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)]
    until: Annotated[int, Meta(ge=0)]


class Ticket(msgspec.Struct, frozen=True):
    """enrol.json, in the image of a batch: where and as whom its devices ask. Without a wish of its own a device asks
    for the name `prefix` and the head of its id."""

    federation: str
    url: str
    root: str
    batch: str
    token: str
    prefix: str


class EnrolTopics:
    """The topics of enrolment in one federation."""

    def __init__(self, topics: Topics) -> None:
        self._base = f"{topics.base}/enrol/"
        self.any_ask = f"{self._base}+/+/ask"
        self._ask = re.compile(rf"{re.escape(self._base)}({_BATCH})/({_ID})/ask")

    def ask(self, batch: str, id: str) -> str:
        return f"{self._base}{batch}/{id}/ask"

    def answer(self, batch: str, id: str) -> str:
        return f"{self._base}{batch}/{id}/answer"

    def has(self, topic: str) -> bool:
        """Whether the topic is one of enrolment."""
        return topic.startswith(self._base)

    def asked(self, topic: str) -> tuple[str, str]:
        """Batch and id of a request's topic; ProtocolError."""
        found = self._ask.fullmatch(topic)
        if found is None:
            raise ProtocolError(f"{topic[:120]!r} is no topic of a request: dropped")
        return found[1], found[2]


def read(kind: type[T], payload: bytes) -> T:
    """A message of this kind; ProtocolError."""
    if len(payload) > LIMIT:
        raise ProtocolError(f"a message of {len(payload)} bytes, at most {LIMIT}: dropped")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolError("a malformed message of enrolment: dropped") from None


def shown(id: str) -> str:
    """An id as people compare it: in groups of four."""
    digits = id.removeprefix(BATCH)
    return "-".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def is_id(word: str) -> bool:
    """Whether the word is an id, as it is or as people compare it: nobody's name."""
    return re.fullmatch(rf"{_ID}|[0-9a-f]{{4}}(?:-[0-9a-f]{{4}}){{3}}", word) is not None


def printable(text: str) -> str:
    """What a stranger has written, fit for a terminal and a log: one line, and nothing that moves a cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _statement(csr: str, federation: str) -> bytes:
    return b"%b%b\n%b" % (_PREFIX, federation.encode(), csr.encode())


for _kind in (Ask, Answer, Approval):  # described at import: see messages.py
    msgspec.json.Decoder(_kind)
