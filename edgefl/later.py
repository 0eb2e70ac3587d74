"""Modules that are imported once something of them is used: stand-ins for those that a package imports in vain.

A package imports at its own import what it may need one day. While it does so, a `Later` stands in `sys.modules` for
each such module that is not loaded yet, and the package keeps it. A Later is no imitation: it hands out what the module
itself has, and imports the module first if it must. So all of the package works as ever, and costs its memory in the
process that uses it. If the package uses the module while it is imported, it gets the module then, as without us.

Afterwards nothing is left in `sys.modules`: `import` anywhere else, as in the owner's code, imports the real module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["Later", "Nothing", "standing_in"]


class Nothing(Exception):
    """The class of no object: what a class of a module is while the module is not loaded."""


class Later(ModuleType):
    """Stands in for a module: each of its attributes is the module's own, which is imported at the first one.

    classes: those which do not import it. Without the module there is no object of such a class, so an `except` clause
    or `isinstance` that names one gets `Nothing`, which answers as the class itself would.
    functions: those which a package binds to a name of its own while it is imported (`from numpy.linalg import inv`).
    It gets a function that calls the module's.
    meanwhile: what an attribute is until the module is loaded.
    """

    def __init__(
        self,
        name: str,
        classes: frozenset[str] | set[str] = frozenset(),
        *,
        functions: frozenset[str] | set[str] = frozenset(),
        meanwhile: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name, "Imported when something of it is used.")
        self._classes = classes
        self._meanwhile = {**(meanwhile or {}), **{function: _calling(name, function) for function in functions}}

    def __getattr__(self, attribute: str) -> Any:
        name = self.__name__
        loaded = sys.modules.get(name)
        if loaded is None and attribute in self._classes:
            return Nothing
        if loaded is None or loaded is self:
            if attribute in self._meanwhile:
                return self._meanwhile[attribute]
            if attribute.startswith("__"):  # the import system looks at a module's own attributes
                raise AttributeError(attribute)
            if loaded is self:  # its package asks for nothing yet, but another thread may: `from ssl import SSLError`
                sys.modules.pop(name, None)
            loaded = import_module(name)
        try:
            return getattr(loaded, attribute)
        except AttributeError:
            if attribute in self._classes:  # another thread is importing it, and has not come to this class yet
                return Nothing
        return _waited_for(name, attribute)


def _waited_for(name: str, attribute: str) -> Any:
    """What the module has once another thread that is importing it is done; or a module of the package."""
    loaded = import_module(name)
    try:
        return getattr(loaded, attribute)
    except AttributeError:
        part = f"{name}.{attribute}"  # urllib.request
        try:
            if hasattr(loaded, "__path__"):
                return import_module(part)
        except ModuleNotFoundError as error:
            if error.name != part:
                raise
        raise


def _calling(module: str, function: str) -> Any:
    def later(*args: Any, **options: Any) -> Any:
        return getattr(import_module(module), function)(*args, **options)

    later.__name__ = later.__qualname__ = function
    later.__module__ = module
    return later


@contextmanager
def standing_in(*modules: Later) -> Iterator[None]:
    """Let `import` find these instead of the modules that they stand for, but for those that are loaded already."""
    placed = [module for module in modules if sys.modules.setdefault(module.__name__, module) is module]
    try:
        yield
    finally:
        for module in placed:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]
