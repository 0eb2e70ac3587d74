"""Features: what a device must know to take part. A manifest or a round names them in `requires`, which is read before
anything else: a device that lacks one refuses the message."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .messages import RETAINED_LIMIT, decode

# all that a manifest or a round may require of this version of EdgeFL
FEATURES = frozenset(("profile", "personal", "local", "side", "sent-side", "lr-decay", "base", "masked"))

Requires = Annotated[list[Annotated[str, Meta(pattern="^[a-z0-9._-]{1,32}\\Z")]], Meta(max_length=32)]


class Requirements(msgspec.Struct, frozen=True):
    """What a manifest or a round says before anything else in it may be read."""

    requires: Requires = []


def unknown_features(payload: bytes) -> list[str]:
    """The features that a manifest or a round requires and this version lacks; ProtocolError if they can't be read."""
    found = decode(Requirements, payload, RETAINED_LIMIT).requires
    return [feature for feature in found if feature not in FEATURES]


msgspec.json.Decoder(Requirements)  # described at import: see messages.py
