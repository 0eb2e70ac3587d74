"""Roster: the root's word on which devices are enrolled, and with which keys they sign their updates.

`serial` rises with each roster, so one from before a revocation is refused where its successor has been seen.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .document import Document, open_document
from .ed25519 import SigningKey, from_text, to_text
from .seal import seal

PURPOSE = "roster"


class Member(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An enrolled device. `key` is its public signing key in base64. `max_examples` is the largest number of examples
    that it may claim; None: as many as the aggregator allows all devices. A `canary` judges candidates of a model."""

    key: Annotated[str, Meta(max_length=44)]
    max_examples: Annotated[int, Meta(ge=1, le=2**24)] | None = None
    canary: bool = False
    revoked: bool = False

    @classmethod
    def of(cls, public: bytes, *, max_examples: int | None = None, canary: bool = False) -> Member:
        """A device that signs with the private key of `public`."""
        return cls(to_text(public), max_examples, canary)

    @property
    def public(self) -> bytes:
        """The public key."""
        return from_text(self.key)


class Roster(Document, frozen=True):
    """roster.json: enrolled devices by name. A revoked one stays in it, so that its name is not given away again."""

    devices: dict[str, Member] = msgspec.field(default_factory=dict)

    def get(self, device: str) -> Member | None:
        """The device, if it is enrolled and not revoked."""
        found = self.devices.get(device)
        return None if found is None or found.revoked else found

    def is_revoked(self, device: str) -> bool:
        """Whether the device was enrolled once, and is no more."""
        found = self.devices.get(device)
        return found is not None and found.revoked

    @property
    def enrolled(self) -> list[str]:
        """The devices that are not revoked."""
        return [device for device, member in self.devices.items() if not member.revoked]

    def seal(self, root: SigningKey) -> bytes:
        """The file roster.json."""
        return seal(msgspec.json.encode(self), PURPOSE, root)

    @classmethod
    def open(cls, raw: bytes, root: bytes, federation: str) -> Roster:
        """The roster in a file; ProtocolError unless this root has sealed it for this federation."""
        found = open_document(raw, cls, PURPOSE, root=root, federation=federation)
        for member in found.devices.values():
            _ = member.public
        return found


msgspec.json.Decoder(Roster)  # described at import: see seal.py
