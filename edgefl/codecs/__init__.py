"""Codecs: how a delta becomes bytes. One codec a file; to add one, write the file and add its line here.

A codec from outside is named by its entry point in the group edgefl.codecs, or as "module:Class". A message never names
one as "module:Class": the manifest has the codec's own `name`, which a device looks up among ours, the entry points
installed there, and the codecs that its configuration lists (`offer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..registry import Found, Seam, is_reference, require_methods
from .base import Codec

CODECS = {
    "raw32": "edgefl.codecs.raw32:Raw32",
    "planes": "edgefl.codecs.planes:Planes",
    "ecq": "edgefl.codecs.ecq:Ecq",
    "ecq-sparse": "edgefl.codecs.ecq_sparse:EcqSparse",
    "grid": "edgefl.codecs.grid:Grid",
}
# Codecs that were removed, with their wire ids. No other codec ever gets one of these ids.
RETIRED = {"f16": 2, "ecq-dither": 5, "ecq-tcq": 7, "qsgd": 8, "topk": 9, "sign": 10}
OUTSIDERS = range(128, 256)  # wire ids that are free for codecs from outside
SEAM = Seam("codec", "edgefl.codecs", CODECS)

__all__ = ["CODECS", "OUTSIDERS", "RETIRED", "Codec", "for_manifest", "from_wire", "get", "offer"]

_offered: dict[str, Found] = {}  # codecs that this process's configuration lists, beside built-ins and entry points


def get(codec: str | Codec | type[Codec], /, **options: Any) -> Codec:
    """The codec called `codec`, or of that class, with its options; a codec is returned as it is. UsageError."""
    if isinstance(codec, Codec):
        if options:
            raise UsageError(f"codec {codec.name!r} has its options already: leave out {', '.join(options)}")
        return codec
    found, name = _find(codec)
    return _make(found, name, options)


def from_wire(name: str, options: Mapping[str, Any]) -> Codec:
    """The codec that a manifest names, if it is built in, installed or listed here: no other module is imported.
    UsageError."""
    _refuse_retired(name)
    return _make(_offered.get(name) or SEAM.find_by_name_alone(name), name, options)


def offer(codec: str | Codec | type[Codec]) -> str:
    """Let messages to this process name a codec that is neither ours nor installed; its own name. UsageError."""
    found, name = (Found(type(codec), _whose(type(codec))), codec.name) if isinstance(codec, Codec) else _find(codec)
    if not found.whose:
        return name
    _check_outsider(found, name)
    own: str = found.value.name
    if found.value not in [other.value for other in _installed(own)]:
        _offered[own] = found
    return own


def for_manifest(codec: str | Codec | type[Codec], options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the options of `codec` in a manifest, which may name it to this process from now on. UsageError."""
    made = get(codec, **options)
    return offer(codec), dict(made.options)


def _find(codec: str | type[Codec]) -> tuple[Found, str]:
    """The class that `codec` names or is, and what to call it in errors."""
    if isinstance(codec, str):
        _refuse_retired(codec)
        return SEAM.find(codec), codec
    if isinstance(codec, type):
        whose = _whose(codec)
        return Found(codec, whose), whose or codec.name
    raise UsageError(f"codec is {codec!r}: give a name, 'module:Class', a class or an object of edgefl.codecs.Codec")


def _refuse_retired(name: str) -> None:
    if name in RETIRED:
        raise UsageError(f"codec {name!r} was removed: use ecq, which needs fewer bytes for the same accuracy")


def _whose(found: type) -> str:
    """The place of an outsider's class, "" for ours."""
    place = f"{found.__module__}:{found.__qualname__}"
    return "" if place in CODECS.values() else place


def _make(found: Found, name: str, options: Mapping[str, Any]) -> Codec:
    if found.whose:
        _check_outsider(found, name)
    made: Codec = SEAM.build(found, name, options, Codec)
    return made


def _check_outsider(found: Found, name: str) -> None:
    """UsageError if the class lacks something, or if its name or wire id is another codec's."""
    cls, what = found.value, f"codec {name!r}" + (f" of {found.whose}" if found.whose != name else "")
    if not isinstance(cls, type):
        raise UsageError(f"{what} is {type(cls).__name__}: it must be a class")
    require_methods(cls, Codec, what)
    own, number = getattr(cls, "name", None), getattr(cls, "wire_id", None)
    if not isinstance(own, str) or not 1 <= len(own) <= 32 or is_reference(own):
        raise UsageError(f"{what} has the name {own!r}: a class variable `name` must have 1 to 32 characters, no colon")
    if found.whose.startswith("package ") and own != name:
        raise UsageError(f"{what} calls itself {own!r}: its entry point must have the same name")
    if not isinstance(number, int) or number not in OUTSIDERS:
        raise UsageError(f"{what} has the wire id {number!r}: {OUTSIDERS[0]} to {OUTSIDERS[-1]} are free for outsiders")
    if own in CODECS or own in RETIRED:
        raise UsageError(f"{what} calls itself {own!r}, which is a codec of edgefl: choose another name")
    for other in (*_installed(own), *_offered.values(), *SEAM.others(own)):
        _check_unlike(cls, other, what)


def _installed(name: str) -> list[Found]:
    """The installed codec of that name, if there is one."""
    return [SEAM.find(name)] if SEAM.has(name) else []


def _check_unlike(cls: type[Codec], other: Found, what: str) -> None:
    """UsageError if another class has the name or the wire id of `cls`."""
    place = (cls.__module__, cls.__qualname__)
    if place == (getattr(other.value, "__module__", ""), getattr(other.value, "__qualname__", "")):
        return  # itself, or what a notebook defined before
    for attribute in ("name", "wire_id"):
        mine = getattr(cls, attribute)
        if mine == getattr(other.value, attribute, None):
            raise UsageError(f"{what} has the {attribute} {mine!r}, which {other.whose} has too: one must change it")
