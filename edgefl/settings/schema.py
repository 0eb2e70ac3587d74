"""What a struct of settings declares, and whether a value is allowed: the one place that knows msgspec's annotations.

A setting is a field that holds no other struct; its key is the path to it, as in `train.lr`. `Meta` carries bounds,
description and examples.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from ..errors import UsageError, nearest

T = TypeVar("T", bound=Struct)
_BOUNDS = ("ge", "gt", "le", "lt")


@dataclass(frozen=True)
class Setting:
    """One declared setting. `default` is NODEFAULT where one is required."""

    path: tuple[str, ...]
    hint: Any = field(hash=False)  # a default, or an example in a hint, may be a list
    default: Any = field(hash=False)

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def short(self) -> str:
        """Its name in the Python API and on the command line: the field's, but the section's for a field `name`."""
        return self.path[-2] if len(self.path) > 1 and self.path[-1] == "name" else self.path[-1]

    @property
    def description(self) -> str:
        return next((meta.description for meta in metas(self.hint) if meta.description), "")

    @property
    def example(self) -> Any:
        """NODEFAULT if none is declared."""
        return next((example for meta in metas(self.hint) for example in meta.examples or ()), NODEFAULT)

    @property
    def allowed(self) -> str:
        return allowed(self.hint)


def settings_of(schema: type[Struct] | Struct, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every setting of `schema`, in the order of declaration; an instance's values are the defaults."""
    for item in msgspec.structs.fields(schema):
        inner = table_type(item.type)
        value = value_of(schema, item)
        where = (*path, item.encode_name)
        if inner is None:
            yield Setting(where, item.type, value)
        else:
            yield from settings_of(value if isinstance(value, Struct) else inner, where)


def value_of(schema: type[Struct] | Struct, item: msgspec.structs.FieldInfo) -> Any:
    """The field's value in an instance, its default in a type, NODEFAULT if it has none."""
    if isinstance(schema, Struct):
        return getattr(schema, item.name)
    return item.default if item.default_factory is NODEFAULT else item.default_factory()


def find(schema: type[Struct] | Struct, name: str) -> Setting:
    """The setting of this key or short name; UsageError with the nearest one."""
    known = {setting.key: setting for setting in settings_of(schema)}
    short = {setting.short: setting for setting in known.values()}
    if found := known.get(name, short.get(name)):
        return found
    raise UsageError(f"there is no setting {name!r}: {nearest(name, known if '.' in name else [*short, *known])}")


def replace(struct: T, changes: Mapping[str, Any]) -> T:
    """`struct` with `changes`, by name; a section by its own name and type. Every value is checked.

    Sections come first, so that one and a value inside it may be given in any order.
    """
    sections = {item.name: table_type(item.type) for item in msgspec.structs.fields(struct)}
    for name, value in sorted(changes.items(), key=lambda change: not isinstance(change[1], Struct)):
        if sections.get(name) and isinstance(value, Struct):
            if type(value) is not sections[name]:
                raise UsageError(f"{name} is a {type(value).__name__}: give a {sections[name].__name__}")  # type: ignore[union-attr]
            struct = msgspec.structs.replace(struct, **{name: checked(value, (name,))})
        else:
            setting = find(struct, name)
            struct = _put(struct, setting.path, convert(setting.key, value, setting.hint))
    return struct


def _put(struct: T, path: tuple[str, ...], value: Any) -> T:
    head, *rest = path
    inner = _put(getattr(struct, head), tuple(rest), value) if rest else value
    return msgspec.structs.replace(struct, **{head: inner})


def checked(struct: T, path: tuple[str, ...] = ()) -> T:
    """`struct`, every value of which is allowed; UsageError names the first that is not."""
    for item in msgspec.structs.fields(struct):
        value, inner, where = getattr(struct, item.name), table_type(item.type), (*path, item.name)
        if inner is None:
            value = convert(".".join(where), value, item.type)
        elif type(value) is not inner:
            raise UsageError(f"{'.'.join(where)} is {value!r}: give a {inner.__name__}")
        else:
            value = checked(value, where)
        struct = msgspec.structs.replace(struct, **{item.name: value})
    return struct


def convert(where: str, value: Any, hint: Any) -> Any:
    """`value` as the setting at `where` holds it; UsageError says what is allowed."""
    with suppress(AttributeError, ValueError, TypeError):
        value = value.item()  # a scalar of NumPy
    try:
        return msgspec.convert(value, hint)
    except (msgspec.ValidationError, TypeError, RecursionError):
        raise UsageError(f"{where} is {value!r}: give {allowed(hint)}") from None


def parse(text: str, hint: Any) -> Any:
    """The value that `text` on a command line means; ValueError says what is allowed. Empty text means None."""
    for candidate in _readings(text, hint):
        with suppress(msgspec.ValidationError):
            return msgspec.convert(candidate, hint)
    raise ValueError(f"{text!r} is not {allowed(hint)}")


def _readings(text: str, hint: Any) -> Iterator[Any]:
    """What `text` may stand for, the likeliest first."""
    if not text:
        yield None
    if text in ("true", "false"):
        yield text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            yield kind(text)
    yield text
    if text[:1] in ("[", "{"):
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(text)
        with suppress(msgspec.DecodeError):
            yield msgspec.toml.decode(f"value = {text}")["value"]
    yield [item.strip() for item in text.split(",")]


def allowed(hint: Any) -> str:
    """Which values an annotation allows, in words: "a number above 0, at most 1", "\"sgd\" or \"adam\""."""
    words = [word for base, bounds in _alternatives(hint, {}) if (word := _kind(base, bounds))]
    return " or ".join(dict.fromkeys(words))


def _alternatives(hint: Any, bounds: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The types that a union allows, each with the bounds that its Metas set."""
    origin = get_origin(hint)
    if origin is Annotated:
        for meta in hint.__metadata__:
            if isinstance(meta, Meta):
                bounds = bounds | {b: v for b in (*_BOUNDS, "pattern") if (v := getattr(meta, b)) is not None}
        yield from _alternatives(get_args(hint)[0], bounds)
    elif origin in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _alternatives(part, bounds)
    else:
        yield hint, bounds


def _kind(base: Any, bounds: Mapping[str, Any]) -> str:
    origin, inner = get_origin(base), get_args(base)
    if base is type(None):
        return ""
    if origin is Literal:
        *others, last = map(_quoted, inner)
        return f"{', '.join(others)} or {last}" if others else last
    if origin is list:
        return f"a list, each {allowed(inner[0])}"
    if origin is dict:
        return f"a table, each value {allowed(inner[1])}"
    if base is str and "pattern" in bounds:
        whole = bounds["pattern"].removeprefix("^").removesuffix("\\Z")  # anchors say nothing to an operator
        return f"text like {whole}"
    nouns = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return nouns.get(base, "a table") + _bounds(bounds)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _bounds(bounds: Mapping[str, Any]) -> str:
    """In words, in front of which stands what is bounded."""
    ge, gt, le, lt = (_number(bounds[b]) if b in bounds else None for b in _BOUNDS)
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    low = f" of at least {ge}" if ge is not None else f" above {gt}" if gt is not None else ""
    high = f"at most {le}" if le is not None else f"below {lt}" if lt is not None else ""
    return f"{low}, {high}" if low and high else low + (f" {high}" if high else "")


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def base_types(hint: Any) -> list[Any]:
    """The types that an annotation allows, without bounds and without None."""
    return [base for base, _ in _alternatives(hint, {}) if base is not type(None)]


def metas(hint: Any) -> Iterator[Meta]:
    """Every Meta in an annotation, the outermost first."""
    if get_origin(hint) is Annotated:
        yield from (meta for meta in hint.__metadata__ if isinstance(meta, Meta))
    for part in get_args(hint):
        yield from metas(part)


def table_type(hint: Any) -> type[Struct] | None:
    """The struct that a field holds, also behind Annotated or `| None`; None for any other field."""
    bases = (base for base, _ in _alternatives(hint, {}))
    return next((base for base in bases if isinstance(base, type) and issubclass(base, Struct)), None)
