"""Signed updates: a device's signature in the header of its update, and what it covers. Both sides' half. No I/O.

    header 40 bytes, its `size` 104 | signature 64 bytes | encoded delta

What a header has beyond its 40 bytes comes after the signature, and makes its `size` longer.

Signed are a domain prefix, federation, epoch, run, round, model version, device, codec, mode, the update's length and
its SHA-256, both without the signature. So a recorded update is of no use for another round, epoch, device or
federation, even to a client that may publish on that device's topic. A device signs once, when it saves the update.
"""

from __future__ import annotations

from typing import NamedTuple

from ..digests import sha256
from ..errors import ProtocolError
from ..trust.ed25519 import SIGNATURE_BYTES, SigningKey, verify
from .update_header import MASKED, MASKED_PROFILE, PROFILE, UpdateHeader

_PREFIX = "edgefl update 1"
_AT, _END = UpdateHeader.SIZE, UpdateHeader.SIZE + SIGNATURE_BYTES


class NotSigned(ProtocolError):
    """An update that its device has not signed for this round: anyone may have sent it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "signature")


class Context(NamedTuple):
    """What an update is bound to beside its bytes. `codec` is the wire id."""

    federation: str
    epoch: int
    run: str
    round: int
    version: int
    device: str
    codec: int


def sign(blob: bytes, context: Context, key: SigningKey) -> bytes:
    """The update with its signature; `blob` has a header as this version writes it."""
    size = UpdateHeader.size_of(blob) + SIGNATURE_BYTES
    bare = b"%b%b%b" % (blob[:2], size.to_bytes(2, "little"), blob[4:])
    return b"%b%b%b" % (bare[:_AT], key.sign(_statement(bare[:_AT], bare[_AT:], context)), bare[_AT:])


def check(blob: bytes, context: Context, public: bytes) -> None:
    """NotSigned unless the device with this public key has signed the update for this round."""
    if len(blob) < _END or UpdateHeader.size_of(blob) < _END:
        raise NotSigned("the update is not signed, and this federation has keys: rejected")
    view = memoryview(blob)
    if not verify(public, _statement(view[:_AT], view[_END:], context), blob[_AT:_END]):
        raise NotSigned("the update's signature is not this device's, or not for this round: rejected")


def _statement(head: bytes | memoryview, rest: bytes | memoryview, context: Context) -> bytes:
    """The bytes that are signed; `head` and `rest` are the update without its signature."""
    digest = sha256(head, rest)
    kinds = {PROFILE: "profile", MASKED: "masked", MASKED_PROFILE: "masked profile"}
    mode = kinds.get(head[1]) or ("train" if any(head[4:8]) else "evaluate")
    where = (
        f"{context.federation}\n{context.epoch}\n{context.run}\n{context.round}\n{context.version}\n{context.device}"
    )
    what = f"{context.codec}\n{mode}\n{len(head) + len(rest)}"
    return f"{_PREFIX}\n{where}\n{what}\n".encode() + digest.digest()
