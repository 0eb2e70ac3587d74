"""How words on the command line of `edgefl` become values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from ..errors import UsageError


def at_least(minimum: float) -> Callable[[str], Any]:
    """A reader of numbers from `minimum` on, whole ones if it is an int."""
    kind, noun = (int, "a whole number") if isinstance(minimum, int) else (float, "a number")

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not minimum <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} of at least {minimum}")
        return value

    return read


def batch_size(text: str) -> int | None:
    return None if text in ("inf", "all", "full") else at_least(1)(text)


def name_and_options(text: str) -> tuple[str, dict[str, Any]]:
    """`name:key=value,key=value` in its parts; numbers become numbers. UsageError if it is not of that form.

    The name may be `module:Class`.
    """
    name, _, rest = text.rpartition(":") if "=" in text else (text, "", "")
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: {item!r} is not key=value: write {name}:{item}=...")
        options[key] = _number(value)
    return name, options


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
