"""SignerCertificate: the root's word on which key signs for the federation, and since which epoch.

`serial` rises with each certificate, so one that was replaced is refused where its successor has been seen: a stolen
signing key can't certify the next one, and the root can. `epoch` orders runs: in one epoch there is one run.

One key may sign in several epochs, and certificates are public. So what it signs says in which epoch: a message of an
earlier one with the certificate of this one is not sealed.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import ProtocolError
from .document import Document, Number, open_document
from .ed25519 import SigningKey, from_text, to_text
from .seal import seal

PURPOSE = "signer"
MAX_BYTES = 2048  # of a sealed certificate, which every manifest and round carries


def purpose_of(topic: str, epoch: int) -> str:
    """What a message to devices is sealed for."""
    return f"{topic} {epoch}"


class SignerCertificate(Document, frozen=True):
    """signer.json. `key` is the public key in base64; the times are seconds after the start of 1970, UTC."""

    epoch: Number
    key: Annotated[str, Meta(max_length=44)]
    not_before: Number
    not_after: Number

    @classmethod
    def of(
        cls, public: bytes, *, federation: str, serial: int, epoch: int, not_before: int, not_after: int
    ) -> SignerCertificate:
        """A certificate for the private key of `public`."""
        return cls(federation, serial, epoch, to_text(public), not_before, not_after)

    @property
    def public(self) -> bytes:
        """The public key."""
        return from_text(self.key)

    def seal(self, root: SigningKey) -> bytes:
        """The file signer.json."""
        return seal(msgspec.json.encode(self), PURPOSE, root)

    @classmethod
    def open(cls, raw: bytes, root: bytes, federation: str) -> SignerCertificate:
        """The certificate in a file or message; ProtocolError unless this root has sealed it for this federation."""
        if len(raw) > MAX_BYTES:
            raise ProtocolError(f"certificate of {len(raw)} bytes, at most {MAX_BYTES}: dropped")
        found = open_document(raw, cls, PURPOSE, root=root, federation=federation)
        _ = found.public
        return found


msgspec.json.Decoder(SignerCertificate)  # described at import: see seal.py
