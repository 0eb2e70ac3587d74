"""Configuration files: TOML to a msgspec struct and back, with every mistake named at once.

A struct is a table, a field of struct type a table inside it. `Meta(description=..., examples=[...])` gives
the comment and the example that `render` writes; bounds are msgspec's own (`Meta(ge=1)`).

Not here: what the keys mean; each daemon declares its own struct.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import FieldInfo

from ..errors import UsageError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T", bound=Struct)


def load(path: str | Path, schema: type[T]) -> T:
    """Read the TOML file at `path` into a `schema` struct.

    Raises UsageError that lists every unknown key with the nearest known one, every missing key and every
    wrong value, one a line, each with the file and the table.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}: --print-config writes a sample") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not TOML: {error}: repair it; text values need quotes") from None
    problems = list(_problems(table, schema, ()))
    if not problems:
        try:
            return msgspec.convert(table, schema)
        except (msgspec.ValidationError, UsageError) as error:  # from a struct's __post_init__, across keys
            problems = [str(error)]
    raise UsageError("\n".join(f"{path.name}: {problem}" for problem in problems))


def _problems(table: Mapping[str, Any], schema: type[Struct], path: tuple[str, ...]) -> Iterator[str]:
    """Everything wrong with `table`, which stands at `path` in the file, as texts."""
    where = f"[{'.'.join(path)}]" if path else "the top level"
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    for key in table:
        if key not in fields:
            yield f"{where} has no key {key!r}; {nearest(key, fields)}"
    for key, field in fields.items():
        inner = _table_type(field.type)
        if inner and isinstance(table.get(key, {} if field.required else None), dict):
            yield from _problems(table.get(key, {}), inner, (*path, key))
        elif key in table:
            yield from _wrong_value(f"{where} {key}" if path else key, table[key], field.type)
        elif field.required:
            yield f"{where} needs {_example(key, field)}: {_comment(field) or 'add it'}"


def _wrong_value(where: str, value: Any, hint: Any) -> Iterator[str]:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        problem = problem.partition(", got")[0].replace("Expected", "expected").replace("`object`", "a table")
        if problem.startswith("Invalid enum value"):  # msgspec does not say which there are
            problem = f"expected one of {', '.join(map(repr, _choices(hint)))}"
        yield f"{where}: {problem}, got {value!r}" + (f" at {place}" if place else "")


def _choices(hint: Any) -> Iterator[Any]:
    """The values of every Literal in a type annotation."""
    for part in _parts(hint):
        if get_origin(part) is Literal:
            yield from get_args(part)


def render(config: Struct | type[Struct]) -> str:
    """TOML text with every key, its comment and its value: an instance's own, else a struct type's defaults.

    A key without a value, required or None, stands there commented out, with its example.
    """
    return "\n".join(_lines(config, ())).lstrip("\n") + "\n"


def _lines(config: Struct | type[Struct], path: tuple[str, ...]) -> Iterator[str]:
    """Lines of one table: its own keys first, as TOML has it, then the tables inside it."""
    inner: list[tuple[FieldInfo, type[Struct]]] = []
    for field in msgspec.structs.fields(config):
        table = _table_type(field.type)
        if table:
            inner.append((field, table))
            continue
        value = _value(config, field)
        note = " (required)" if value is NODEFAULT else ""
        comment = _comment(field) + note
        if comment:
            yield f"# {comment.strip()}"
        absent = value is NODEFAULT or value is None
        yield f"# {_example(field.encode_name, field)}" if absent else f"{field.encode_name} = {_toml(value)}"
    for field, table in inner:
        yield from _table_lines(field, table, _value(config, field), (*path, field.encode_name))


def _table_lines(field: FieldInfo, table: type[Struct], value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Lines of a table inside another; all of them commented out where the value is None."""
    yield ""
    if _comment(field):
        yield f"# {_comment(field)}"
    off = "# " if value is None else ""
    yield f"{off}[{'.'.join(path)}]"
    for line in _lines(value if isinstance(value, Struct) else table, path):
        yield line if not line or line.startswith("#") else off + line


def _value(config: Struct | type[Struct], field: FieldInfo) -> Any:
    """The field's value in an instance, its default in a type, NODEFAULT where there is none."""
    if isinstance(config, Struct):
        return getattr(config, field.name)
    return field.default if field.default_factory is NODEFAULT else field.default_factory()


def _toml(value: Any) -> str:
    """A value in TOML; strings are JSON's but for DEL, which TOML wants escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())} }}"
    return repr(value)


def _example(key: str, field: FieldInfo) -> str:
    """`key = value` with the example of the field's Meta, or with dots to fill in."""
    examples = [example for meta in _metas(field.type) for example in meta.examples or ()]
    return f"{key} = {_toml(examples[0]) if examples else '...'}"


def _comment(field: FieldInfo) -> str:
    descriptions = (meta.description for meta in _metas(field.type) if meta.description)
    return next(descriptions, "")


def _metas(hint: Any) -> Iterator[Meta]:
    """Every Meta in a type annotation, the outermost first."""
    return (part for part in _parts(hint) if isinstance(part, Meta))


def _parts(hint: Any) -> Iterator[Any]:
    """A type annotation and, depth first, all it is made of."""
    yield hint
    for argument in get_args(hint):
        yield from _parts(argument)


def _table_type(hint: Any) -> type[Struct] | None:
    """The struct that a field holds, also behind Annotated or `| None`; None for any other field."""
    origin = get_origin(hint)
    if origin is None:
        return hint if isinstance(hint, type) and issubclass(hint, Struct) else None
    if origin in (Annotated, Union, types.UnionType):
        arguments = get_args(hint)[:1] if origin is Annotated else get_args(hint)
        return next(filter(None, map(_table_type, arguments)), None)
    return None


def _key(key: str) -> str:
    """A key as TOML has it: bare where it may be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def dump(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML text of nested mappings; a key whose value is None is left out."""
    lines = [f"[{'.'.join(path)}]"] if path else []
    lines += [f"{_key(k)} = {_toml(v)}" for k, v in table.items() if v is not None and not isinstance(v, Mapping)]
    inner = [dump(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping)]
    return "\n".join([*lines, "", *inner])
