"""The payload of a masked update, which follows the header (protocol/update_header.py). No I/O.

    H 32 | signature 64 | salt 32 | helpers u8 | each: length u16, sealed seed | packed vector, ceil(L m / 8) bytes

The signature is that of sealed.statement_of. It is there beside the update's own (protocol/signed_update.py), since the
helper is shown no update, only the digests in this statement. A helper knows its masks, so it could compare the digest
of a vector with those of all vectors that it thinks likely. Therefore the digest is of salt and vector, and the random
salt is for the aggregator alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..digests import sha256
from ..errors import ProtocolError
from ..protocol.terms import Terms
from ..trust.ed25519 import SIGNATURE_BYTES, SigningKey, from_text, verify
from . import masks, ring, sealed

if TYPE_CHECKING:
    from numpy.typing import NDArray

SALT_BYTES = 32
_AT_SIGNATURE, _AT_SALT, _AT_HELPERS = 32, 32 + SIGNATURE_BYTES, 32 + SIGNATURE_BYTES + SALT_BYTES
_AT_BOXES = _AT_HELPERS + 1
_LENGTH_BYTES = 2


class MaskedUpdate(NamedTuple):
    """What a payload has. `boxes` are in the order of the helpers in the terms."""

    digest: bytes
    signature: bytes
    boxes: tuple[bytes, ...]
    packed: bytes | memoryview
    salt: bytes

    @property
    def packed_sha256(self) -> bytes:
        """Of salt and packed vector: what a helper is shown."""
        return sealed.salted(self.salt, self.packed)

    @property
    def boxes_sha256(self) -> bytes:
        return sha256(framed(self.boxes)).digest()

    def is_signed(self, public: bytes) -> bool:
        """Whether the private key of `public` has signed these boxes, this vector and these terms."""
        said = sealed.statement_of(self.digest, self.packed_sha256, self.boxes_sha256)
        return verify(public, said, self.signature)


def bound(terms: Terms) -> int:
    """The longest payload under these terms."""
    return _AT_BOXES + len(terms.helpers) * (_LENGTH_BYTES + sealed.MAX_BOX_BYTES) + terms.packed_bytes


def framed(boxes: tuple[bytes, ...]) -> bytes:
    """Boxes as they are on the wire, each behind its length."""
    return b"".join(len(box).to_bytes(_LENGTH_BYTES, "little") + box for box in boxes)


def mask(
    q: NDArray[np.int32], terms: Terms, device: str, key: SigningKey | None, randomness: masks.Randomness = os.urandom
) -> bytes:
    """The payload of q (L,), under a fresh mask for each helper; without a key, `signed` completes it. q is used up:
    masks are added in place, since it may be as long as the model."""
    bare = _unsigned(np.ascontiguousarray(q, np.int32).view(np.uint32), terms, device, randomness)
    return bare if key is None else signed(bare, key)


def _unsigned(total: ring.Ring, terms: Terms, device: str, randomness: masks.Randomness) -> bytes:
    """The payload of a vector modulo 2^32, with zeros for a signature."""
    boxes = []
    for helper in terms.helpers:
        seed = masks.new_seed(randomness)
        masks.add(total, seed, terms.digest, helper.name, device)
        boxes.append(sealed.seal(seed, terms.digest, device, from_text(helper.box)))
    wire, salt = framed(tuple(boxes)), randomness(SALT_BYTES)
    packed = ring.pack(total, terms.bits)
    return b"%b%b%b%c%b%b" % (terms.digest, bytes(SIGNATURE_BYTES), salt, len(boxes), wire, packed)


def signed(payload: bytes, key: SigningKey) -> bytes:
    """The payload that `mask` has made without a key, with its signature: what trains has no key."""
    at, whole = _AT_BOXES, memoryview(payload)  # whose slices are no copies: a vector may be as long as the model
    for _ in range(payload[_AT_HELPERS]):
        at += _LENGTH_BYTES + int.from_bytes(payload[at : at + _LENGTH_BYTES], "little")
    digest, salt = payload[:_AT_SIGNATURE], payload[_AT_SALT:_AT_HELPERS]
    boxes_sha256 = sha256(payload[_AT_BOXES:at]).digest()
    said = sealed.statement_of(digest, sealed.salted(salt, whole[at:]), boxes_sha256)
    return b"".join((digest, key.sign(said), whole[_AT_SALT:]))


def read(payload: bytes | memoryview, terms: Terms) -> MaskedUpdate:
    """The parts of a payload; ProtocolError unless it is of these terms. Its signature is not verified."""
    if len(payload) < _AT_BOXES:
        raise ProtocolError(f"masked update of {len(payload)} bytes: rejected", "length")
    if bytes(payload[:_AT_SIGNATURE]) != terms.digest:
        raise ProtocolError("masked update for other terms than the round's: rejected", "terms")
    if payload[_AT_HELPERS] != len(terms.helpers):
        raise ProtocolError(f"masked update for {payload[_AT_HELPERS]} helpers, not {len(terms.helpers)}", "length")
    boxes, at = [], _AT_BOXES
    for _ in terms.helpers:
        size = int.from_bytes(payload[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        if not sealed.MIN_BOX_BYTES <= size <= sealed.MAX_BOX_BYTES:
            raise ProtocolError(f"masked update with a sealed seed of {size} bytes: rejected", "length")
        boxes.append(bytes(payload[at : at + size]))
        at += size
    if len(payload) - at != terms.packed_bytes:
        raise ProtocolError(f"masked vector of {len(payload) - at} bytes, expected {terms.packed_bytes}", "length")
    signature, salt = bytes(payload[_AT_SIGNATURE:_AT_SALT]), bytes(payload[_AT_SALT:_AT_HELPERS])
    return MaskedUpdate(terms.digest, signature, tuple(boxes), payload[at:], salt)
