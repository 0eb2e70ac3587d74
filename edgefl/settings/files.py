"""TOML files: read into a struct, with `--set section.key=value` on top, and every mistake named at once.

A struct is a table, a field of struct type a table inside it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct

from ..errors import UsageError, nearest, path_of
from . import schema as declared
from .render import comment, example_line
from .schema import Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T", bound=Struct)
MISSPELT = 0.75  # likeness from which on a key is meant as one of ours
Table = Mapping[str, Any]


def load(
    path: str | Path,
    schema: type[T],
    sets: Sequence[str] = (),
    *,
    beneath: Table | None = None,
    only: Callable[[Table], bool] = lambda table: False,
) -> T:
    """Read the TOML file at `path` into a `schema` struct; `sets` ("section.key=value") replace what it says.

    `beneath` has what is meant where neither says anything. Where `only` is true for the file, keys at its top level
    that are not even misspelt ones of `schema` are not its concern. UsageError lists every unknown key with the nearest
    known one, every missing key and every value that is not allowed, one a line, each with the file and the table.

    A schema with a method `located(folder)` completes itself from the folder that the file lies in.
    """
    path = path_of(path)
    table = read_table(path)
    if only(table):
        import difflib  # here: few files are shared with others

        known = {field.encode_name for field in msgspec.structs.fields(schema)}
        table = {key: value for key, value in table.items() if difflib.get_close_matches(key, known, cutoff=MISSPELT)}
    config = build(schema, table, sets, name=path.name, beneath=beneath)
    locate: Callable[[Path], T] = getattr(config, "located", lambda folder: config)
    return locate(path.parent)


def build(
    schema: type[T], table: Table, sets: Sequence[str] = (), *, name: str = "", beneath: Table | None = None
) -> T:
    """The struct of a table that stands in the file `name`; see `load`."""
    changes = dict(parse_set(schema, text) for text in sets)
    merged = _merge(beneath or {}, table)
    for setting, value in changes.items():
        merged = _merge(merged, _nested(setting.path, value))
    keys = {setting.key for setting in changes}
    problems = [
        f"{'--set' if key in keys else name}: {text}".removeprefix(": ") for key, text in _problems(merged, schema, ())
    ]
    if problems:
        raise UsageError("\n".join(problems))
    try:
        return msgspec.convert(merged, schema)
    except (msgspec.ValidationError, UsageError) as error:  # from a struct's __post_init__, across keys
        raise UsageError(f"{name}: {error}".removeprefix(": ")) from None


def parse_set(schema: type[Struct], text: str) -> tuple[Setting, Any]:
    """The setting and the value of one `--set section.key=value`; UsageError for a key or value that is wrong."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text!r}: write section.key=value, as in train.lr=0.05")
    try:
        setting = declared.find(schema, key.strip())
        return setting, declared.parse(value.strip(), setting.hint)
    except (UsageError, ValueError) as error:
        shown = key.strip() if "@" in value else text  # a broker's URL behind a misspelt key has a password
        raise UsageError(f"--set {shown}: {error}") from None


def read_table(path: Path) -> dict[str, Any]:
    """What a TOML file says, whatever it is for; UsageError."""
    try:
        with open(path, "rb") as file:
            table: dict[str, Any] = tomllib.load(file)
            return table
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}: a daemon's --print-config writes a sample") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not TOML: {error}: repair it; text values need quotes") from None


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _merge(below: Table, above: Table) -> dict[str, Any]:
    """Both tables; where both have a value, that of `above`."""
    merged = dict(copy.copy(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _problems(table: Table, schema: type[Struct], path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Everything wrong with `table`, which stands at `path` in the file: the key, and a text."""
    where = f"[{'.'.join(path)}]" if path else "the top level"
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    for key in table:
        if key not in fields:
            yield ".".join((*path, key)), f"{where} has no key {key!r}; {nearest(key, fields)}"
    for key, field in fields.items():
        inner, full = declared.table_type(field.type), (*path, key)
        if inner and isinstance(table.get(key, {} if field.required else None), dict):
            yield from _problems(table.get(key, {}), inner, full)
        elif key in table:
            yield from _wrong_value(f"{where} {key}" if path else key, table[key], field.type, ".".join(full))
        elif field.required:
            setting = Setting(full, field.type, NODEFAULT)
            yield ".".join(full), f"{where} needs {example_line(setting)}: {comment(setting) or 'add it'}"


def _wrong_value(where: str, value: Any, hint: Any, key: str) -> Iterator[tuple[str, str]]:
    try:
        declared.convert(where, value, hint)
    except UsageError as error:
        yield key, str(error)
