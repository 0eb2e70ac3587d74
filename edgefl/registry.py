"""Parts by name: codecs, strategies, data readers, partitions; ours from a visible table, outsiders' from entry points.

Design:
  a) A name is that of a built-in or of an installed entry point, or "module:attribute". The latter imports any code, so
     it works in the operator's own configuration, command line and calls, and is never resolved from a message.
  b) Nothing is replaced silently: two parts with one name are an error that names both packages.
  c) A plug-in is imported only when its name is used. If it is broken, that is a UsageError with its package and the
     reason; programs that do not use it are not affected.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib import import_module
from importlib.machinery import PathFinder
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from .errors import EdgeFLError, UsageError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
OURS = "edgefl-toolkit"
VARKEYWORDS = 0x08  # of a function's co_flags, as inspect.CO_VARKEYWORDS


class Found(Struct, frozen=True):
    """A part that was imported. `whose` names its package; "" is ours."""

    value: Any
    whose: str


class Seam:
    """One kind of part that outsiders may add to. `kind` is its word in errors, `group` that of the entry points."""

    def __init__(self, kind: str, group: str, table: Mapping[str, str]) -> None:
        self.kind, self.group, self.table = kind, group, table

    def has(self, name: str) -> bool:
        """Whether it is ours or installed. UsageError if two packages have it."""
        return name in {*self._installed(name), *self.table}

    def find(self, name: str) -> Found:
        """The part that an operator names. UsageError."""
        installed = self._installed(name)
        if name in self.table:
            return self.built_in(name)
        if name in installed:
            return self._load(installed[name])
        head, _, rest = name.partition(":")
        if rest and self.has(head):
            raise UsageError(f"{self.kind} {name!r}: {rest!r} is not key=value: write {head}:{rest}=...")
        if is_reference(name):
            with working_directory_importable():
                return Found(self._import(name, f"{self.kind} {name!r}"), name)
        raise UsageError(f"unknown {self.kind} {name!r}: {self._nearest(name)}")

    def find_by_name_alone(self, name: str) -> Found:
        """As `find`, for a name from a message: only a built-in or an installed entry point is imported."""
        if name in self.table:
            return self.built_in(name)
        installed = self._installed(name)
        if name in installed:
            return self._load(installed[name])
        where = "neither ours, nor installed, nor listed in [plugins] here"
        todo = "update edgefl on this side if the other one's is newer"
        raise UsageError(f"unknown {self.kind} {name!r}, {where}: {todo}; {self._nearest(name)}")

    def _nearest(self, name: str) -> str:
        return nearest(name, {*self.table, *(entry.name for entry in _entry_points(self.group, tuple(sys.path)))})

    def built_in(self, name: str) -> Found:
        return Found(self._import(self.table[name], f"{self.kind} {name!r}"), "")

    def others(self, name: str) -> Iterator[Found]:
        """All other installed parts that can be imported."""
        for other, entry in self._installed(name).items():
            if other != name:
                try:
                    yield self._load(entry)
                except UsageError:  # broken: an error only where its own name is used
                    continue

    def _installed(self, asked: str) -> dict[str, EntryPoint]:
        """Entry points by name; UsageError if two packages have the name that is `asked` for."""
        found: dict[str, EntryPoint] = {}
        for entry in _entry_points(self.group, tuple(sys.path)):
            earlier = _package(found[entry.name]) if entry.name in found else OURS if entry.name in self.table else ""
            if not earlier:
                found[entry.name] = entry
            elif asked == entry.name and not _same(found.get(entry.name), entry):
                raise UsageError(
                    f"{self.kind} {entry.name!r} is in package {_package(entry)!r} and in {earlier!r}: uninstall one, "
                    "or rename its entry point"
                )
        return found

    def _load(self, entry: EntryPoint) -> Found:
        whose = f"package {_package(entry)!r}"
        if not REFERENCE.fullmatch(entry.value):
            raise UsageError(f"{self.kind} {entry.name!r} of {whose}: its entry point is not module:attribute")
        return Found(self._import(entry.value, f"{self.kind} {entry.name!r} of {whose}"), whose)

    def _import(self, reference: str, what: str) -> Any:
        module, _, path = reference.partition(":")
        try:
            value = import_module(module)
            for attribute in path.split("."):
                value = getattr(value, attribute)
        except EdgeFLError:
            raise
        except (Exception, SystemExit) as error:  # whatever an outsider's module raises
            raise UsageError(f"{what} can't be imported: {type(error).__name__}: {error}") from error
        return value

    def build(self, found: Found, name: str, options: Mapping[str, Any], base: type | None = None) -> Any:
        """Call the `found` factory with `options`; it must return a `base`. UsageError says what is wrong."""
        what = f"{self.kind} {name!r}" + (f" of {found.whose}" if found.whose not in ("", name) else "")
        factory = found.value
        if not callable(factory):
            raise UsageError(f"{what} is {type(factory).__name__}: it must be a class or a function")
        if base is not None and isinstance(factory, type):
            require_methods(factory, base, what)
        _check_options(factory, what, options)
        try:
            made = factory(**options)
        except EdgeFLError:
            raise
        except Exception as error:
            given = f" with {options}" if options else ""
            raise UsageError(f"{what} can't be made{given}: {type(error).__name__}: {error}") from error
        if base is not None and not isinstance(made, base):
            require_methods(type(made), base, what)
        return made


def is_reference(name: str) -> bool:
    """Whether it has the form "module:attribute"."""
    return REFERENCE.fullmatch(name) is not None


def require_methods(found: type, base: type, what: str) -> None:
    """UsageError if the class `found` lacks a method of `base`, or does not derive from it."""
    needed = sorted(getattr(base, "__abstractmethods__", ()))
    abstract: frozenset[str] = getattr(found, "__abstractmethods__", frozenset())
    missing = [name for name in needed if name in abstract or not callable(getattr(found, name, None))]
    if missing:
        raise UsageError(f"{what} lacks {', '.join(missing)}: a {base.__name__} must have {', '.join(needed)}")
    if not issubclass(found, base):
        raise UsageError(f"{what} is no {base.__module__}.{base.__name__}: derive its class from that")


class Options(NamedTuple):
    """The options of a factory: those with a name, in order, and whether it takes any others too."""

    names: tuple[str, ...]
    others: bool


@cache
def options_of(factory: Any) -> Options:
    """What a factory takes. Cached, since every message that names a codec needs it."""
    made = isinstance(factory, type)
    found = _options_of(factory.__init__ if made else factory)
    return Options(tuple(name for name in found.names if not (made and name == "self")), found.others)


def _options_of(function: Any) -> Options:
    """Of a plain function by its code; of what else can be called by inspect, which takes 0.8 MB."""
    if type(function) is FunctionType and not {"__wrapped__", "__signature__"} & vars(function).keys():
        code = function.__code__
        named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return Options(named, bool(code.co_flags & VARKEYWORDS))
    import inspect

    parameters = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = tuple(parameter.name for parameter in parameters if parameter.kind not in variable)
    return Options(named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters))


def _check_options(factory: Callable[..., Any], what: str, options: Mapping[str, Any]) -> None:
    """UsageError for an option that the factory does not take."""
    known, others = options_of(factory)
    if others:
        return
    for option in options:
        if option not in known:
            raise UsageError(f"{what} has no option {option!r}: {nearest(option, known) if known else 'it has none'}")


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """A console script does not look for modules where it was started; `python -m` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@lru_cache(maxsize=16)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """All entry points of `group` on the import `path`, which is the cache's key."""
    if not _may_have_any(group, path):
        return ()
    from importlib.metadata import entry_points  # here: with email and csv it takes two megabytes

    return tuple(entry_points(group=group))


def _may_have_any(group: str, path: tuple[str, ...]) -> bool:
    """False if no package on the `path` brings any, as on most devices: none has a file that names the group.

    It looks where importlib.metadata does. Archives, and what other finders than Python's own know, it takes for a yes.
    """
    if any(finder is not PathFinder and hasattr(finder, "find_distributions") for finder in sys.meta_path):
        return True
    return any(os.path.isfile(folder) or _is_named(group.encode(), folder or os.curdir) for folder in path)


def _is_named(group: bytes, folder: str) -> bool:
    """Whether a package in this folder has entry points of that group, or a text that looks so."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.lower().endswith((".dist-info", "egg-info")):
                with suppress(OSError), open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                    if group in file.read():
                        return True
    return False


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "?"


def _same(one: EntryPoint | None, other: EntryPoint) -> bool:
    return one is not None and (_package(one), one.value) == (_package(other), other.value)
