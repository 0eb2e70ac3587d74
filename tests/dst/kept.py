"""Kept: what of the simulation's truth goes back with a database (losses.py), as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

Kept = Mapping[str, Any]


def kept(thing: object, names: tuple[str, ...]) -> Kept:
    """What of the simulation's truth goes back with a database, as it is now."""
    return {name: copy.copy(getattr(thing, name)) for name in names}


def put_back(thing: object, found: Kept) -> None:
    for name, value in found.items():
        setattr(thing, name, copy.copy(value))
