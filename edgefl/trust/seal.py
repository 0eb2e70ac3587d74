"""Sealed JSON: a line of JSON, and a line with its signature. Control messages and the root's documents are sealed.

    {"state":"open", ...}
    {"signature":"<base64>","certificate":"<base64 of the sealed signer.json>"}

The signature covers `edgefl seal 1`, the purpose and the first line, with a newline between them. The purpose of a
message has its topic, and where it matters its epoch; of a file it is "signer" or "roster". So what is signed for one
purpose, federation or device is of no use for another. The bytes are signed as they are: there is no canonical JSON.
The certificate says whose key signed; it is left out where the receiver has it.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Struct

from ..errors import ProtocolError
from .ed25519 import SIGNATURE_BYTES, SigningKey, from_text, to_text, verify

_PREFIX = b"edgefl seal 1\n"
MAX_SEAL_BYTES = 4096  # of the second line


class _Seal(msgspec.Struct, frozen=True, omit_defaults=True):
    signature: str
    certificate: str = ""


class Sealed(Struct, frozen=True):
    """A message whose signature has not been verified yet. `certificate` is the sealed signer.json, b"" without one."""

    payload: bytes
    signature: bytes
    certificate: bytes = b""

    def is_signed(self, purpose: str, public: bytes) -> bool:
        """Whether the private key of `public` has sealed the payload for this purpose."""
        return verify(public, _statement(self.payload, purpose), self.signature)


def _statement(payload: bytes, purpose: str) -> bytes:
    return b"%b%b\n%b" % (_PREFIX, purpose.encode(), payload)


def seal(payload: bytes, purpose: str, key: SigningKey, certificate: bytes = b"") -> bytes:
    """`payload`, one line of JSON, sealed for one purpose."""
    if b"\n" in payload or "\n" in purpose:
        raise ValueError("a line break in what is to be sealed")
    line = _Seal(to_text(key.sign(_statement(payload, purpose))), base64.b64encode(certificate).decode())
    return payload + b"\n" + msgspec.json.encode(line)


def is_sealed(raw: bytes) -> bool:
    """Whether `raw` is JSON with a second line, where the signature is. A part of a model is no JSON."""
    return raw.startswith(b"{") and b"\n{" in raw


def read_seal(raw: bytes) -> Sealed:
    """The two lines; ProtocolError if they are not there. Their signature is not verified."""
    payload, newline, line = raw.rstrip(b"\n").partition(b"\n")
    if not newline:
        raise ProtocolError("not sealed: dropped")
    if len(line) > MAX_SEAL_BYTES:
        raise ProtocolError(f"seal of {len(line)} bytes, at most {MAX_SEAL_BYTES}: dropped")
    try:
        found = msgspec.json.decode(line, type=_Seal)
        certificate = base64.b64decode(found.certificate, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        raise ProtocolError("its seal can't be read: dropped") from None
    return Sealed(payload, from_text(found.signature, SIGNATURE_BYTES), certificate)


def open_seal(raw: bytes, purpose: str, public: bytes) -> bytes:
    """The payload; ProtocolError unless the private key of `public` has sealed it for this purpose."""
    sealed = read_seal(raw)
    if not sealed.is_signed(purpose, public):
        raise ProtocolError(f"not sealed by the right key as {purpose[:120]!r}: dropped")
    return sealed.payload


for _kind in (_Seal,):  # described at import: a second thread must not use a type while msgspec describes it
    msgspec.json.Decoder(_kind)
