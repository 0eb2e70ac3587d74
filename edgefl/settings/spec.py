"""`name:option=value,option=value`: how a strategy, a codec or any other part is written with its options.

The same text serves in TOML, on the command line and in the Python API. A name may be `module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import UsageError

Option = int | float | str


def split(text: str) -> tuple[str, dict[str, Option]]:
    """The name and the options of `text`; numbers become numbers. UsageError if it is not of that form."""
    name, _, rest = text.rpartition(":") if "=" in text else (text, "", "")
    options: dict[str, Option] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: {item!r} is not key=value: write {name}:{item}=...")
        options[key.strip()] = _number(value.strip())
    return name, options


def join(name: str, options: Mapping[str, Option]) -> str:
    """The text that `split` reads."""
    return f"{name}:{','.join(f'{key}={value}' for key, value in options.items())}" if options else name


def _number(text: str) -> Option:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
