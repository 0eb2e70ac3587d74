"""How words on the command line of `edgefl` become values, and options that are made from declared settings."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args, get_origin

from ..settings.render import toml
from ..settings.schema import Setting, base_types, parse


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


def add_settings(group: Any, settings: Iterable[Setting]) -> None:
    """An option for each of `settings`, under its short name. One that is not given is absent from the namespace."""
    for setting in settings:
        choices = _choices(setting)
        value: dict[str, Any] = (
            {"choices": choices} if choices else {"type": _reader(setting), "metavar": _word(setting)}
        )
        group.add_argument(flag(setting), dest=setting.key, default=argparse.SUPPRESS, help=_help(setting), **value)


def given(options: argparse.Namespace, settings: Iterable[Setting]) -> dict[str, Any]:
    """The values of those settings that the command line names, by key."""
    values = vars(options)
    return {setting.key: values[setting.key] for setting in settings if setting.key in values}


def flag(setting: Setting) -> str:
    """`--batch-size` of `train.batch_size`."""
    return "--" + setting.short.replace("_", "-")


def _reader(setting: Setting) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parse(text, setting.hint)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _choices(setting: Setting) -> tuple[str, ...]:
    """The words to choose from, where nothing else is allowed."""
    (first, *others) = base_types(setting.hint)
    return get_args(first) if get_origin(first) is Literal and not others else ()


def _word(setting: Setting) -> str:
    names = {int: "N", float: "X", bool: "true|false", str: "TEXT"}
    bases = base_types(setting.hint)
    words = ["NAME,..." if get_origin(base) is list else names.get(base) or "|".join(get_args(base)) for base in bases]
    return "|".join(words)


def _help(setting: Setting) -> str:
    text = setting.description.rstrip(".")
    if not _choices(setting) and setting.allowed != "text":
        text += f"; {setting.allowed}"
    if setting.default not in (None, ""):
        text += f" (default: {toml(setting.default)})"
    return text.replace("%", "%%")
