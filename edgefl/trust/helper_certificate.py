"""HelperCertificate: the root's word on the keys of a helper, the second party of masked rounds.

Devices seal to `box`, an X25519 key, and aggregator and devices verify what the helper says by `key`, an Ed25519 key.
Both live for one epoch: with the next certificate come new keys, and the old ones are erased, so that nobody can open
any more what was sealed to them. `serial` rises with each certificate, as that of the signer's does.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import ProtocolError
from .document import Document, Name, Number, open_document
from .ed25519 import SigningKey, from_text, to_text
from .seal import seal

PURPOSE = "helper"
MAX_BYTES = 2048  # of a sealed certificate


class HelperCertificate(Document, frozen=True):
    """HELPER.json. Both public keys are in base64; the times are seconds after the start of 1970, UTC."""

    name: Name
    epoch: Number
    box: Annotated[str, Meta(max_length=44)]
    key: Annotated[str, Meta(max_length=44)]
    not_before: Number
    not_after: Number

    @classmethod
    def of(
        cls, name: str, box: bytes, key: bytes, *, federation: str, serial: int, epoch: int, not_before: int,
        not_after: int,
    ) -> HelperCertificate:  # fmt: skip
        """A certificate for the private keys of these public ones."""
        return cls(federation, serial, name, epoch, to_text(box), to_text(key), not_before, not_after)

    @property
    def box_public(self) -> bytes:
        """The key that devices seal to."""
        return from_text(self.box)

    @property
    def public(self) -> bytes:
        """The key that the helper signs with."""
        return from_text(self.key)

    def seal(self, root: SigningKey) -> bytes:
        """The file HELPER.json."""
        return seal(msgspec.json.encode(self), PURPOSE, root)

    @classmethod
    def open(cls, raw: bytes, root: bytes, federation: str) -> HelperCertificate:
        """The certificate in a file; ProtocolError unless this root has sealed it for this federation."""
        if len(raw) > MAX_BYTES:
            raise ProtocolError(f"certificate of {len(raw)} bytes, at most {MAX_BYTES}: dropped")
        found = open_document(raw, cls, PURPOSE, root=root, federation=federation)
        _ = found.box_public, found.public
        return found


msgspec.json.Decoder(HelperCertificate)  # described at import: see seal.py
