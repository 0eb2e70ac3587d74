"""Parts loaded by name from a visible table: codecs, strategies, data readers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from .errors import UsageError, nearest


def resolve(table: Mapping[str, str], name: str, kind: str) -> Any:
    """The object that `table[name]` ("module:attribute") names; UsageError with the nearest name."""
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}: {nearest(name, table)}")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)


@cache
def _options(factory: Any) -> Mapping[str, inspect.Parameter]:
    """What a constructor takes; asked for with every message that names a codec."""
    return inspect.signature(factory).parameters


def build(table: Mapping[str, str], name: str, kind: str, options: Mapping[str, Any]) -> Any:
    """An instance of the class behind `name`; options that its constructor lacks are refused by name."""
    factory = resolve(table, name, kind)
    known = _options(factory)
    for option in options:
        if option not in known:
            raise UsageError(
                f"{kind} {name!r} has no option {option!r}: {nearest(option, known) if known else 'it has none'}"
            )
    return factory(**options)
