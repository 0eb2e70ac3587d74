"""Lean: paho-mqtt without the modules that an MQTT connection does not use, until something does use them.

paho-mqtt imports ssl (with OpenSSL), hashlib (OpenSSL again) and urllib.request (with http.client and email) when it is
imported itself: 10 MB of an agent's 50, for TLS, WebSockets and proxies. Whoever needs `Client` imports it from here.
While paho is imported, a `Later` stands in `sys.modules` for each of those modules that is not loaded yet, and paho
keeps it. A Later is no imitation: it hands out what the module itself has, and imports the module first if it must. So
TLS, a proxy in the environment and all else of paho work as ever, and cost their memory in the process that uses them.

Afterwards nothing is left in `sys.modules`: `import ssl` anywhere else, as in the owner's code, imports the real one.

`ssl` here is for our own modules, for the same reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Client", "Later", "ssl"]

# Classes whose objects come from TLS alone, by which a connection asks of every error whether it is one of theirs.
OF_TLS = {
    "CertificateError", "SSLCertVerificationError", "SSLError", "SSLSocket", "SSLWantReadError", "SSLWantWriteError"
}  # fmt: skip


class Nothing(Exception):
    """The class of no object: what a class of a module is while the module is not loaded."""


class Later(ModuleType):
    """Stands in for a module: each of its attributes is the module's own, which is imported at the first one.

    classes: those which do not import it. Without the module there is no object of such a class, so an `except` clause
    or `isinstance` that names one gets `Nothing`, which answers as the class itself would.
    """

    def __init__(self, name: str, classes: frozenset[str] | set[str] = frozenset()) -> None:
        super().__init__(name, "Imported when something of it is used.")
        self._classes = classes

    def __getattr__(self, attribute: str) -> Any:
        name = self.__name__
        loaded = sys.modules.get(name)
        if loaded is None and attribute in self._classes:
            return Nothing
        if loaded is None or loaded is self:
            if attribute.startswith("__"):  # the import system looks at a module's own attributes
                raise AttributeError(attribute)
            if loaded is self:  # paho asks for nothing yet, but another thread may: `from ssl import SSLError`
                sys.modules.pop(name, None)
            loaded = import_module(name)
        try:
            return getattr(loaded, attribute)
        except AttributeError:
            if attribute in self._classes:  # another thread is importing it, and has not come to this class yet
                return Nothing
            if hasattr(loaded, "__path__"):
                return import_module(f"{name}.{attribute}")  # urllib.request
            return getattr(import_module(name), attribute)  # which waits for that other thread


if TYPE_CHECKING:
    import ssl as ssl
else:
    ssl = Later("ssl", OF_TLS)


@contextmanager
def _standing_in(*modules: Later) -> Iterator[None]:
    """Let `import` find these instead of the modules that they stand for, but for those that are loaded already."""
    placed = [module for module in modules if sys.modules.setdefault(module.__name__, module) is module]
    try:
        yield
    finally:
        for module in placed:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


with _standing_in(vars()["ssl"], Later("hashlib"), Later("urllib.request")):
    from paho.mqtt import client
    from paho.mqtt.client import Client

vars(client)["urllib"] = Later("urllib")  # whose `request` is an attribute only once it is really imported
