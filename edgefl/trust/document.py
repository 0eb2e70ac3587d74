"""Document: what the root certifies for one federation, sealed JSON in a file or in a message.

Documents of a kind are numbered. One with a lower number than has been seen is refused, so that nobody brings back what
was replaced.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from ..errors import ProtocolError
from .seal import open_seal

NAME = "[a-z0-9-]{1,48}"  # of a federation, or of a helper in what the root certifies

Name = Annotated[str, Meta(pattern=f"^{NAME}\\Z")]
Number = Annotated[int, Meta(ge=0, le=2**53)]


class Document(msgspec.Struct, frozen=True):
    """The fields that every kind has."""

    federation: Name
    serial: Number


D = TypeVar("D", bound=Document)


def open_document(raw: bytes, kind: type[D], purpose: str, *, root: bytes, federation: str) -> D:
    """The document in `raw`; ProtocolError unless this root has sealed it for this purpose and federation."""
    payload = open_seal(raw, purpose, root)
    try:
        found = msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolError(f"malformed {purpose} document: dropped") from None
    if found.federation != federation:
        raise ProtocolError(f"{purpose} document of federation {found.federation!r}, not {federation!r}: dropped")
    return found
