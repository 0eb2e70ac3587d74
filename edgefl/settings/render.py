"""Settings as text: a sample TOML file with every key and its comment, and the tables of docs/settings.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from .schema import Setting, settings_of, table_type, value_of

WIDTH = 110  # of a comment's lines


def render(config: Struct | type[Struct]) -> str:
    """TOML text with every key, its comment and its value: an instance's own, else a struct type's defaults.

    A key without a value, required or None, is commented out, with its example.
    """
    return "\n".join(_lines(config, ())).lstrip("\n") + "\n"


def dump(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML text of nested mappings; a key whose value is None is left out."""
    lines = [f"[{'.'.join(path)}]"] if path else []
    lines += [f"{_key(k)} = {toml(v)}" for k, v in table.items() if v is not None and not isinstance(v, Mapping)]
    inner = [dump(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping)]
    return "\n".join([*lines, "", *inner])


def reference(schema: type[Struct], leave_out: type[Struct] | None = None) -> str:
    """Markdown: for each table of `schema` its docstring and a row for each setting, but for those of `leave_out`."""
    sections: dict[tuple[str, ...], list[Setting]] = {}
    known = {setting.key for setting in settings_of(leave_out)} if leave_out else set()
    for setting in sorted(settings_of(schema), key=lambda setting: len(setting.path)):
        if setting.key not in known:
            sections.setdefault(setting.path[:-1], []).append(setting)
    return "\n".join(line for path, rows in sections.items() for line in _section(schema, path, rows))


def _section(schema: type[Struct], path: tuple[str, ...], rows: list[Setting]) -> Iterator[str]:
    table: Any = schema
    for key in path:
        table = table_type(next(f.type for f in msgspec.structs.fields(table) if f.encode_name == key))
    if path:
        yield f"### [{'.'.join(path)}]\n"
        yield f"{_summary(table)}\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for setting in rows:
        default = (
            "required" if setting.default is NODEFAULT else "" if setting.default is None else toml(setting.default)
        )
        cells = (f"`{setting.path[-1]}`", setting.allowed, f"`{default}`" if default else "", setting.description)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def comment(setting: Setting) -> str:
    """The line above a key: its sentence."""
    return setting.description


def example_line(setting: Setting) -> str:
    """`key = value` with the setting's example, or with dots to fill in."""
    return f"{setting.path[-1]} = {toml(setting.example) if setting.example is not NODEFAULT else '...'}"


def toml(value: Any) -> str:
    """A value in TOML; strings are JSON's but for DEL, which TOML wants escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())} }}"
    return repr(value)


def _lines(config: Struct | type[Struct], path: tuple[str, ...]) -> Iterator[str]:
    """Lines of one table: its own keys first, as TOML has it, then the tables inside it."""
    inner: list[tuple[FieldInfo, type[Struct]]] = []
    for field in msgspec.structs.fields(config):
        table = table_type(field.type)
        if table:
            inner.append((field, table))
            continue
        setting = Setting((*path, field.encode_name), field.type, value_of(config, field))
        note = " (required)" if setting.default is NODEFAULT else ""
        yield from _comment_lines(comment(setting) + note)
        absent = setting.default is NODEFAULT or setting.default is None
        yield f"# {example_line(setting)}" if absent else f"{field.encode_name} = {toml(setting.default)}"
    for field, table in sorted(inner, key=lambda pair: not pair[0].required):
        yield from _table_lines(field, table, value_of(config, field), (*path, field.encode_name))


def _table_lines(field: FieldInfo, table: type[Struct], value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Lines of a table inside another; all of them commented out where the value is None."""
    yield ""
    text = Setting(path, field.type, None).description or _summary(table)
    yield from _comment_lines(text)
    off = "# " if value is None else ""
    yield f"{off}[{'.'.join(path)}]"
    for line in _lines(value if isinstance(value, Struct) else table, path):
        yield line if not line or line.startswith("#") else off + line


def _comment_lines(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _summary(table: type[Struct]) -> str:
    """The first line of a table's docstring; "" if the table has only the docstring that msgspec generates."""
    text = (table.__doc__ or "").strip()
    return "" if text.startswith(f"{table.__name__}(") else text.partition("\n")[0]


def _key(key: str) -> str:
    """A key as TOML has it: bare where it may be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)
