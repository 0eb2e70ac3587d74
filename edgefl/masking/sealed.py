"""Sealed seeds: a device's seed, which only its helper can open, and what the device signs beside it.

    sealed box (X25519, XSalsa20, Poly1305: libsodium's crypto_box_seal) of: layout u8 | seed 32 | H 32 | device

H and device are inside, so a box that is brought again for other terms or as another device's is refused.
"""

from __future__ import annotations

from typing import Any

from ..digests import sha256
from ..errors import ProtocolError
from .masks import SEED_BYTES, _sodium

LAYOUT = 1
OVERHEAD = 48  # of crypto_box_seal
_AT_DIGEST, _AT_DEVICE = 1 + SEED_BYTES, 1 + SEED_BYTES + 32
MIN_BOX_BYTES = OVERHEAD + _AT_DEVICE + 1
MAX_BOX_BYTES = OVERHEAD + _AT_DEVICE + 64  # the longest name of a device
_PREFIX = b"edgefl masked 1\n"


def new_box_key(seed: bytes) -> tuple[bytes, bytes]:
    """The public and the private X25519 key that come from 32 random bytes."""
    public, private = _sodium().crypto_box_seed_keypair(seed)
    return bytes(public), bytes(private)


def seal(seed: bytes, digest: bytes, device: str, box_public: bytes) -> bytes:
    """The seed of `device` for the terms H, for the helper with this public key; ProtocolError if it is no such key."""
    text = b"%c%b%b%b" % (LAYOUT, seed, digest, device.encode())
    try:
        found: bytes = _sodium().crypto_box_seal(text, box_public)
    except _bad_box():
        raise ProtocolError("a helper's box key that can't be: refused", "terms") from None
    return found


def open_sealed(box: bytes, digest: bytes, device: str, public: bytes, private: bytes) -> bytes:
    """The seed in a box; ProtocolError unless it is for this key, these terms and this device."""
    text = _opened(box, public, private)
    if text[0] != LAYOUT:
        raise ProtocolError(f"sealed seed of layout {text[0]}, this side knows {LAYOUT}: update the older side", "box")
    if text[_AT_DIGEST:_AT_DEVICE] != digest:
        raise ProtocolError("sealed seed for other terms: refused", "terms")
    if text[_AT_DEVICE:] != device.encode():
        raise ProtocolError("sealed seed of another device: refused", "box")
    return text[1:_AT_DIGEST]


def _opened(box: bytes, public: bytes, private: bytes) -> bytes:
    if not MIN_BOX_BYTES <= len(box) <= MAX_BOX_BYTES:
        raise ProtocolError(f"sealed seed of {len(box)} bytes: refused", "box")
    try:
        text: bytes = _sodium().crypto_box_seal_open(box, public, private)
    except _bad_box():
        raise ProtocolError("sealed seed that this key does not open: refused", "box") from None
    return text


def _bad_box() -> Any:
    from nacl.exceptions import CryptoError

    return CryptoError


def salted(salt: bytes, packed: bytes | memoryview) -> bytes:
    """The SHA-256 of salt and packed vector, which tells who does not know the salt nothing of the vector."""
    return sha256(salt, packed).digest()


def statement_of(digest: bytes, packed_sha256: bytes, boxes_sha256: bytes) -> bytes:
    """What a device signs: H, the salted digest of its packed vector, and that of all its boxes on the wire."""
    return _PREFIX + digest + packed_sha256 + boxes_sha256
