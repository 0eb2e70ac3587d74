"""What aggregator and helper tell each other, as bytes. Both travel in parts (protocol/parts.py). No I/O.

    Ask     layout u8 | length u16, terms | attempt u32 | seen: round u32, epsilon f64 | entries u32
            | helpers u8
            | each: length u8, device | SHA-256 of its packed vector 32 | signature 64
                    | for each helper: length u16, box
            then the seal: signature 64 | length u16, certificate
    Answer  layout u8 | H 32 | digest of the set 32 | round u32 | epsilon f64 | roster u64 | length u16, reason
            | groups u8
            | each: devices u32, and if there are any a packed sum of masks and noise
            | devices u8 | each: length u8, device
            then the helper's signature 64

An ask is signed by the aggregator's key, for one helper and in the epoch of its certificate. Entries are in order of
their devices, so a set has one digest; the helper sees to that. It is shown the boxes for all helpers, since a device
has signed the digest of all: were one of them taken on trust, the aggregator could put seeds of its own in the place of
all devices' but one, and subtract them. An answer with a reason is a refusal, and has no groups. It names the devices
that are its reason, in order, at most MAX_NAMED: those whose sealed seeds the helper can't open, or those that it does
not know as the aggregator does. `roster` is the serial of the roster that it goes by.

An ask without entries asks what the helper knows. The answer to it is a refusal too, since nothing is opened; its round
is the newest of the terms' run that the helper has opened, 0 if another run goes on.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from itertools import pairwise
from typing import Any

import msgspec

from ..errors import ProtocolError
from ..privacy import MOST_EPSILON
from ..protocol.fleet import DEVICE_ID
from ..protocol.round import MAX_TERMS
from ..protocol.terms import Terms
from ..settings.privacy import MOST_HELPERS
from ..trust.certificate import MAX_BYTES as MAX_CERTIFICATE
from ..trust.certificate import SignerCertificate
from ..trust.ed25519 import SIGNATURE_BYTES, SigningKey, verify
from .sealed import MAX_BOX_BYTES, MIN_BOX_BYTES
from .update import framed

LAYOUT = 1
MAX_REASON = 500
MAX_NAMED = 100  # devices in an answer; the next round's answer names others
_ASK, _ANSWER = b"edgefl ask 1\n", b"edgefl answer 1\n"
_ENTRY_BYTES = 1 + 64 + 32 + SIGNATURE_BYTES + MOST_HELPERS * (2 + MAX_BOX_BYTES)
_MIDDLE = struct.Struct("<IIdIB")
_HEAD = struct.Struct("<32s32sIdQ")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A device of the set, and what it has signed; `boxes` are in the order of the helpers in the terms."""

    device: str
    packed_sha256: bytes
    signature: bytes
    boxes: tuple[bytes, ...]

    @property
    def boxes_sha256(self) -> bytes:
        """What the device has signed of its boxes."""
        return hashlib.sha256(framed(self.boxes)).digest()


class Ask(msgspec.Struct, frozen=True):
    """The set whose masks shall be added. `terms` is the JSON text of the round; the attempt is not in H.

    `seen_round` and `seen_epsilon` are the highest of this helper's answers that the aggregator has seen, in
    this run and this epoch of the helper's keys: a helper that knows of less was restored from a backup."""

    terms: str
    attempt: int
    entries: tuple[Entry, ...]
    seen_round: int = 0
    seen_epsilon: float = 0.0

    @property
    def set_digest(self) -> bytes:
        """What tells this set from any other; the same for all helpers."""
        digest = hashlib.sha256(b"edgefl set 1\n" + hashlib.sha256(self.terms.encode()).digest())
        for entry in self.entries:
            name = entry.device.encode()
            digest.update(b"%c%b%b%b" % (len(name), name, entry.packed_sha256, entry.boxes_sha256))
        return digest.digest()

    def to_bytes(self) -> bytes:
        """Without the seal."""
        text, helpers = self.terms.encode(), len(self.entries[0].boxes) if self.entries else 0
        out = [
            struct.pack("<BH", LAYOUT, len(text)),
            text,
            _MIDDLE.pack(self.attempt, self.seen_round, self.seen_epsilon, len(self.entries), helpers),
        ]
        for each in self.entries:
            name = each.device.encode()
            out += [bytes([len(name)]), name, each.packed_sha256, each.signature, framed(each.boxes)]
        return b"".join(out)


class Answer(msgspec.Struct, frozen=True):
    """The sums of masks and noise, one a group: None for a group that was not opened. `epsilon` is what the helper has
    seen spent, in `round`. `unopened`: devices of the set that are the reason why it is not opened, or a group of it,
    at most MAX_NAMED, in order. `roster`: the serial of the one that the helper goes by."""

    digest: bytes
    set_digest: bytes
    round: int
    epsilon: float
    groups: tuple[tuple[int, bytes] | None, ...] = ()
    reason: str = ""
    unopened: tuple[str, ...] = ()
    roster: int = 0

    def to_bytes(self, helper: str, key: SigningKey) -> bytes:
        """With the helper's signature."""
        reason = self.reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
        head = b"%c%b" % (LAYOUT, _HEAD.pack(self.digest, self.set_digest, self.round, self.epsilon, self.roster))
        out = [head, len(reason).to_bytes(2, "little"), reason, bytes([len(self.groups)])]
        for group in self.groups:
            out += [bytes(4)] if group is None else [group[0].to_bytes(4, "little"), group[1]]
        named = [device.encode() for device in self.unopened]
        out += [bytes([len(named)]), *(b"%c%b" % (len(name), name) for name in named)]
        said = b"".join(out)
        return said + key.sign(_said(_ANSWER, helper, 0, said))


def ask_bound(devices: int) -> int:
    """The longest ask for a set of so many devices."""
    return 3 + MAX_TERMS + _MIDDLE.size + devices * _ENTRY_BYTES + SIGNATURE_BYTES + 2 + MAX_CERTIFICATE


def answer_bound(terms: Terms) -> int:
    """The longest answer under these terms."""
    named = 1 + MAX_NAMED * (1 + 64)
    return 1 + _HEAD.size + 2 + MAX_REASON + 1 + terms.groups * (4 + terms.packed_bytes) + named + SIGNATURE_BYTES


def seal_ask(ask: Ask, helper: str, epoch: int, key: SigningKey, certificate: bytes) -> bytes:
    """The ask for this helper, signed in this epoch; `certificate` is the sealed signer.json."""
    said = ask.to_bytes()
    return b"".join(
        (said, key.sign(_said(_ASK, helper, epoch, said)), len(certificate).to_bytes(2, "little"), certificate)
    )


def open_ask(raw: bytes, helper: str, root: bytes, federation: str, devices: int) -> tuple[Ask, SignerCertificate]:
    """An ask for this helper, of at most so many devices; ProtocolError unless a signer that this root has certified
    for this federation has sealed it. Whether the certificate is in force is for the caller to say."""
    if len(raw) > ask_bound(devices):
        raise ProtocolError(f"ask of {len(raw)} bytes, at most {ask_bound(devices)}: dropped", "size")
    read = _Reader(raw)
    ask = _read_ask(read, devices)
    end = read.at
    signature = read.take(SIGNATURE_BYTES)
    sealed = read.sized("<H", MAX_CERTIFICATE)
    read.finish()
    certificate = SignerCertificate.open(sealed, root, federation)
    if not verify(certificate.public, _said(_ASK, helper, certificate.epoch, raw[:end]), signature):
        raise ProtocolError("ask that the aggregator has not signed for this helper: dropped", "signature")
    return ask, certificate


def _check_layout(read: _Reader) -> None:
    (layout,) = read.unpack("<B")
    if layout != LAYOUT:
        raise ProtocolError(f"ask or answer of layout {layout}, this side knows {LAYOUT}: update the older side")


def _read_ask(read: _Reader, devices: int) -> Ask:
    _check_layout(read)
    text = _text(read.sized("<H", MAX_TERMS))
    attempt, seen_round, seen_epsilon, count, helpers = read.unpack(_MIDDLE.format)
    if not 0 <= count <= devices or not (math.isfinite(seen_epsilon) and seen_epsilon >= 0):
        raise ProtocolError(f"ask for {count} devices, at most {devices}: dropped", "size")
    if not (1 <= helpers <= MOST_HELPERS if count else helpers == 0):
        raise ProtocolError(f"ask with sealed seeds for {helpers} helpers, at most {MOST_HELPERS}: dropped", "size")
    entries = tuple(_read_entry(read, helpers) for _ in range(count))
    return Ask(text, attempt, entries, seen_round, seen_epsilon)


def _read_entry(read: _Reader, helpers: int) -> Entry:
    device = _read_device(read)
    packed, signature = read.take(32), read.take(SIGNATURE_BYTES)
    boxes = tuple(read.sized("<H", MAX_BOX_BYTES, MIN_BOX_BYTES) for _ in range(helpers))
    return Entry(device, packed, signature, boxes)


def _read_device(read: _Reader) -> str:
    device = _text(read.sized("<B", 64))
    if not re.match(DEVICE_ID, device):
        raise ProtocolError("an exchange with a helper names a device whose name can't be: dropped")
    return device


def read_answer(raw: bytes, helper: str, public: bytes, terms: Terms) -> Answer:
    """The helper's answer under these terms; ProtocolError unless it has signed it."""
    if not SIGNATURE_BYTES < len(raw) <= answer_bound(terms):
        raise ProtocolError(f"answer of {len(raw)} bytes, at most {answer_bound(terms)}: dropped", "size")
    said, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    if not verify(public, _said(_ANSWER, helper, 0, said), signature):
        raise ProtocolError(f"answer that {helper} has not signed: dropped", "signature")
    read = _Reader(said)
    _check_layout(read)
    digest, set_digest, round, epsilon, roster = read.unpack(_HEAD.format)
    reason = _text(read.sized("<H", MAX_REASON))
    (groups,) = read.unpack("<B")
    if groups != (0 if reason else terms.groups) or not 0 <= epsilon <= MOST_EPSILON:
        raise ProtocolError(f"answer of {helper} that can't be: dropped")
    found = tuple(_read_group(read, terms) for _ in range(groups))
    unopened = _read_named(read)
    read.finish()
    if digest != terms.digest:
        raise ProtocolError(f"answer of {helper} for other terms: dropped", "terms")
    return Answer(digest, set_digest, round, epsilon, found, reason, unopened, roster)


def _read_named(read: _Reader) -> tuple[str, ...]:
    (count,) = read.unpack("<B")
    if count > MAX_NAMED:
        raise ProtocolError(f"answer that names {count} devices, at most {MAX_NAMED}: dropped")
    found = tuple(_read_device(read) for _ in range(count))
    if any(a >= b for a, b in pairwise(found)):
        raise ProtocolError("answer that names devices out of order, or one of them twice: dropped")
    return found


def _read_group(read: _Reader, terms: Terms) -> tuple[int, bytes] | None:
    (count,) = read.unpack("<I")
    if count > terms.most:
        raise ProtocolError(f"answer with a group of {count} devices, at most {terms.most}: dropped")
    return (count, read.take(terms.packed_bytes)) if count else None


def _said(prefix: bytes, helper: str, epoch: int, said: bytes) -> bytes:
    return b"%b%b\n%d\n%b" % (prefix, helper.encode(), epoch, hashlib.sha256(said).digest())


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("bytes that are no text in an exchange with a helper: dropped") from None


class _Reader:
    """Reads from front to back; ProtocolError where the bytes end too early."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, size: int) -> bytes:
        if len(self.raw) - self.at < size:
            raise ProtocolError("an exchange with a helper that is cut off: dropped")
        self.at += size
        return bytes(self.raw[self.at - size : self.at])

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def sized(self, layout: str, most: int, least: int = 0) -> bytes:
        """Bytes behind their length."""
        size = int(self.unpack(layout)[0])
        if not least <= size <= most:
            raise ProtocolError(f"an exchange with a helper has a field of {size} bytes: dropped")
        return self.take(size)

    def finish(self) -> None:
        if self.at != len(self.raw):
            raise ProtocolError("bytes after the end of an exchange with a helper: dropped")
