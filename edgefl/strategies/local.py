"""LocalRule: what a strategy has its devices do in training, other than plain local SGD."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class LocalRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule by its name in edgefl/device/local, which is all that a name on the wire can find, with its options."""

    name: Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}\\Z")]
    options: Annotated[dict[Annotated[str, Meta(max_length=32)], float], Meta(max_length=16)] = {}
