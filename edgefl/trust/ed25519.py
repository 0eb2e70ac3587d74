"""Ed25519 (RFC 8032) through PyNaCl, which is imported on first use; UsageError where it is missing.

Keys are bytes here: a seed of 32, from which the private key is computed, and a public key of 32. Where they are stored
is in key_files.py.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ..digests import sha256
from ..errors import ProtocolError, UsageError

KEY_BYTES = 32  # of a seed, and of a public key
SIGNATURE_BYTES = 64


def _sodium() -> Any:
    try:
        from nacl import bindings
    except ImportError:
        raise UsageError(
            "keys need PyNaCl: pip install 'edgefl-toolkit[keys]', or Debian's package python3-nacl"
        ) from None
    return bindings


class SigningKey:
    """A private key; `public` is its public key."""

    def __init__(self, seed: bytes) -> None:
        self.public: bytes
        self.public, self._secret = _sodium().crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, of SIGNATURE_BYTES: the same message always has the same one."""
        signed: bytes = _sodium().crypto_sign(message, self._secret)
        return signed[:SIGNATURE_BYTES]


def new_seed() -> bytes:
    """A seed from the operating system's randomness."""
    seed: bytes = _sodium().randombytes(KEY_BYTES)
    return seed


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of `message` by the private key of `public`."""
    sodium = _sodium()
    if (len(public), len(signature)) != (KEY_BYTES, SIGNATURE_BYTES):
        return False
    try:
        sodium.crypto_sign_open(signature + message, public)
    except _bad_signature():
        return False
    return True


def _bad_signature() -> type[Exception]:
    from nacl.exceptions import CryptoError

    error: type[Exception] = CryptoError
    return error


def to_text(key: bytes) -> str:
    """A key or a signature as base64."""
    return base64.b64encode(key).decode()


def from_text(text: str, length: int = KEY_BYTES) -> bytes:
    """The bytes of a key or a signature; ProtocolError unless they are `length` bytes of base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != length:
        raise ProtocolError(f"not base64 of {length} bytes: dropped")
    return key


def fingerprint(public: bytes) -> str:
    """A short name for a public key, to compare by eye: the head of its SHA-256."""
    return sha256(public).hexdigest()[:16]
