"""Masks: what a device adds to its vector so that nobody can read it, expanded from a seed of 256 bits.

    key = BLAKE2b-256(seed as key; H, length of helper's name, helper's name, device; person "edgefl mask 1")
    piece i of 65,536 bytes = ChaCha20 (RFC 8439) under that key, with the number i as nonce
    number j = the j-th little-endian u32 of all pieces, modulo 2^m

So one seed gives other masks for other terms, helpers and devices. A seed is fresh in every encoding: it is drawn here,
used once, and never stored. The stream is that of libsodium's AEAD, which encrypts zeros; its tag is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import UsageError
from .ring import Ring

SEED_BYTES = 32
PIECE = 1 << 16  # bytes; small enough to stay in the processor's cache
_PERSON = b"edgefl mask 1"
_ZEROS = bytes(PIECE)

Randomness = Callable[[int], bytes]


def new_seed(randomness: Randomness = os.urandom) -> bytes:
    """A fresh seed."""
    seed = randomness(SEED_BYTES)
    if len(seed) != SEED_BYTES:
        raise ValueError(f"randomness of {len(seed)} bytes, {SEED_BYTES} are needed")
    return seed


def expand(seed: bytes, digest: bytes, helper: str, device: str, *, n: int, bits: int) -> Ring:
    """(n,) uint32 below 2^m, the mask of this seed. `digest` is H."""
    out = np.zeros(n, np.uint32)
    add(out, seed, digest, helper, device)
    out &= np.uint32((1 << bits) - 1)
    return out


def add(acc: Ring, seed: bytes, digest: bytes, helper: str, device: str) -> None:
    """acc (n,) += the mask, modulo 2^32: its sum modulo 2^m is that of the masks."""
    start = 0
    for piece in _pieces(_key(seed, digest, helper, device), 4 * len(acc)):
        numbers = np.frombuffer(piece, "<u4")[: len(acc) - start]
        acc[start : start + len(numbers)] += numbers
        start += len(numbers)


def _key(seed: bytes, digest: bytes, helper: str, device: str) -> bytes:
    if (len(seed), len(digest)) != (SEED_BYTES, 32):
        raise ValueError("a seed and a digest have 32 bytes each")
    name = helper.encode()
    said = b"%b%c%b%b" % (digest, len(name), name, device.encode())
    hashed = _sodium().crypto_generichash_blake2b_salt_personal  # hashlib's would load OpenSSL, 3.5 MB
    key: bytes = hashed(said, digest_size=32, key=seed, person=_PERSON)
    return key


def _pieces(key: bytes, size: int) -> Iterator[bytes]:
    """At least `size` bytes of the stream, piece by piece."""
    encrypt = _sodium().crypto_aead_chacha20poly1305_ietf_encrypt
    for number, start in enumerate(range(0, size, PIECE)):
        length = min(PIECE, size - start)
        zeros = _ZEROS if length == PIECE else bytes(length)
        yield encrypt(zeros, None, number.to_bytes(12, "little"), key)[:length]


def _sodium() -> Any:
    try:
        from nacl import bindings
    except ImportError:
        raise UsageError(
            "masked rounds need PyNaCl: pip install 'edgefl-toolkit[keys]', or Debian's package python3-nacl"
        ) from None
    return bindings
