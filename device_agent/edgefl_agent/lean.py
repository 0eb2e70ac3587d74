"""Lean: numpy and others without the modules that they import and an agent does not use, until something does use them.

The package imports this before anything else. What is imported here finds stand-ins (edgefl/later.py) for:

- inspect, ast: numpy and dataclasses look at functions with them where one has no signature or no docstring;
- ctypes, pickle: for `array.ctypes` and for arrays that are pickled;
- numpy.linalg, with LAPACK and numpy's types for annotations: polynomials and matrices use it;
- numpy's documentation of what it has in C, which is written in Python. Nobody reads it in an agent; it is there once
  numpy._core._add_newdocs is imported, and so are signatures that inspect reads from it, as that of np.array;
- ipaddress: for URLs with IPv6 addresses;
- msgspec's schemas, for which it takes types apart; and typing_extensions, where the owner's code has brought it along:
  msgspec finds there what typing has since Python 3.11.

The owner's code finds all of numpy: `np.linalg.svd` imports LAPACK then. Some of its functions get their signature from
inspect, as `np.dot`: once inspect is imported, by whomever.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

from edgefl.later import Later, standing_in

OF_TYPING: dict[str, object] = {}
if sys.version_info >= (3, 11):
    OF_TYPING = {name: getattr(typing, name) for name in ("get_type_hints", "NotRequired", "Required")}


def _cleandoc(doc: str) -> str:
    """As inspect.cleandoc, by which numpy finds the signatures of its functions in C while it is imported."""
    first, *others = doc.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    return "\n".join([first.lstrip(), *(line[margin:] for line in others)]).strip("\n")


class _Unsigned:
    """What numpy keeps as the signature that inspect would have found of `function`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class _Signing:
    """A finder that imports inspect as ever, and gives numpy's functions the signatures that they lack.

    It stays in sys.meta_path afterwards: an import that goes through the list, here or in another thread, would pass
    over the next finder if this one were removed.
    """

    def __init__(self) -> None:
        self._loader: Any = None
        self._was_asked = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "inspect" or self._was_asked:
            return None
        self._was_asked = True
        spec = find_spec(name)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for value in list(vars(numpy).values()):  # another thread may import a part of numpy
            lacks = getattr(value, "__signature__", None)
            if isinstance(lacks, _Unsigned):
                value.__signature__ = module.signature(lacks.function)


with standing_in(
    Later("inspect", meanwhile={"cleandoc": _cleandoc, "signature": _Unsigned}),
    Later("ast"),
    Later("ctypes"),
    Later("ipaddress"),
    Later("pickle"),
    Later("msgspec.inspect"),
    Later("msgspec._json_schema", functions={"schema", "schema_components"}),
    Later("typing_extensions", meanwhile=OF_TYPING),
    Later("numpy.linalg", functions={"eigvals", "inv", "lstsq", "matrix_power"}),
    Later("numpy._core._add_newdocs"),
    Later("numpy._core._add_newdocs_scalars"),
):
    import dataclasses
    import urllib.parse

    import msgspec
    import numpy

if "inspect" not in sys.modules:
    sys.meta_path.insert(0, _Signing())

__all__ = ["dataclasses", "msgspec", "numpy", "urllib"]
