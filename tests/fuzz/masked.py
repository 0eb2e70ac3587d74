"""What comes from devices, the aggregator and helpers in masked rounds: a payload, an ask, an answer, or terms.

The first byte chooses which. A finding, beside a crash: an accumulator that a refused payload has changed, or bytes
that are read as something other than what is written of it.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgefl.errors import EdgeFLError
from edgefl.masking import exchange, masks, ring, sealed, update
from edgefl.masking.exchange import Answer, Ask, Entry
from edgefl.protocol.terms import Noise, Party, Terms
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey, to_text

KEY, ROOT = SigningKey(b"k" * 32), SigningKey(b"r" * 32)
PUBLIC, PRIVATE = sealed.new_box_key(b"b" * 32)
TERMS = Terms(
    "plant", "00" * 8, 3, 2, "ab" * 32, "cd" * 8, params=50, coordinates=20, seed=5, bits=11, reach=100, grid=0.5,
    clip=2.0, norm2=9000, least=2, most=8, helpers=(Party("north", 1, to_text(PUBLIC), to_text(KEY.public)),),
)  # fmt: skip
CERTIFICATE = SignerCertificate.of(KEY.public, federation="plant", serial=1, epoch=7, not_before=0, not_after=9).seal(
    ROOT
)


def seeds() -> list[bytes]:
    q = np.arange(TERMS.length, dtype=np.int32) - 9
    seed = iter(hashlib.sha256(bytes([i])).digest() for i in range(9))
    payload = update.mask(q.copy(), TERMS, "dev-1", KEY, lambda size: next(seed)[:size])
    sent = update.read(payload, TERMS)
    entries = tuple(Entry(f"dev-{i}", sent.packed_sha256, sent.signature, sent.boxes) for i in "12")
    ask = exchange.seal_ask(Ask(TERMS.text, 1, entries), "north", 7, KEY, CERTIFICATE)
    inquiry = exchange.seal_ask(Ask(TERMS.text, 1, ()), "north", 7, KEY, CERTIFICATE)
    answer = Answer(TERMS.digest, b"s" * 32, 3, 0.5, ((2, bytes(sent.packed)),)).to_bytes("north", KEY)
    refusal = Answer(TERMS.digest, b"s" * 32, 3, 0.0, (), "too few").to_bytes("north", KEY)
    noisy = Terms.read(TERMS.text.replace('"bits":11', '"bits":12'))
    banded = Noise("banded", 1.5, 2, 4, 100)
    texts = [TERMS.raw, noisy.raw, noisy.text[:-1].encode() + b',"noise":' + _json(banded) + b',"epsilon":1.5}']
    asks = [b"\1" + ask, b"\1" + inquiry]
    return [b"\0" + payload, *asks, b"\2" + answer, b"\2" + refusal, *(b"\3" + text for text in texts)]


def _json(noise: Noise) -> bytes:
    import msgspec

    return msgspec.json.encode(noise)


def mend(data: bytes) -> bytes:
    """With the right signature at the end, so that what is signed is looked at too."""
    if not data or data[0] % 4 != 2 or len(data) < 65:
        return data
    said = data[1:-64]
    return data[:1] + said + KEY.sign(exchange._said(exchange._ANSWER, "north", 0, said))


def run(data: bytes) -> None:
    kind, rest = (data[0] % 4, data[1:]) if data else (0, b"")
    (_payload, _ask, _answer, _terms)[kind](rest)


def _payload(data: bytes) -> None:
    found = update.read(data, TERMS)
    found.is_signed(KEY.public)
    acc = np.zeros(TERMS.length, np.uint32)
    try:
        ring.add(acc, found.packed, TERMS.bits)
    except EdgeFLError:
        assert not acc.any()
        raise
    assert ring.pack(acc, TERMS.bits) == bytes(found.packed)
    seed = sealed.open_sealed(found.boxes[0], TERMS.digest, "dev-1", PUBLIC, PRIVATE)
    masks.add(acc, seed, TERMS.digest, "north", "dev-1")


def _ask(data: bytes) -> None:
    read = exchange._Reader(data)
    ask = exchange._read_ask(read, 8)
    assert ask.to_bytes() == data[: read.at] and len(ask.set_digest) == 32
    exchange.open_ask(data, "north", ROOT.public, "plant", 8)


def _answer(data: bytes) -> None:
    answer = exchange.read_answer(data, "north", KEY.public, TERMS)
    assert answer.to_bytes("north", KEY) == data


def _terms(data: bytes) -> None:
    own = Terms.read(data.decode("utf-8", "replace"))
    assert Terms.read(own.text).digest == own.digest and own.packed_bytes > 0
    assert own.most * own.largest + own.noise_bound < 2 ** (own.bits - 1)
