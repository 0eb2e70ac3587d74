"""Lean: numpy and others without the modules that they import and an agent does not use, until something does use them.

The package imports this before anything else. What is imported here finds stand-ins (edgefl/later.py) for:

- inspect, ast: numpy and dataclasses look at functions with them where one has no signature or no docstring;
- ctypes, pickle: for `array.ctypes` and for arrays that are pickled;
- numpy.linalg, with LAPACK and numpy's types for annotations: polynomials and matrices use it;
- numpy's documentation of what it has in C, which is written in Python. Nobody reads it in an agent; it is there once
  numpy._core._add_newdocs is imported;
- ipaddress: for URLs with IPv6 addresses;
- msgspec's schemas, for which it takes types apart; and typing_extensions, where the owner's code has brought it along:
  msgspec finds there what typing has since Python 3.11.

The owner's code finds all of numpy: `np.linalg.svd` imports LAPACK then. Only inspect.signature fails of those of its
functions in C whose documentation has no signature, as of `np.inner`.
"""

from __future__ import annotations

import sys
import typing

from edgefl.later import Later, standing_in

OF_TYPING: dict[str, object] = {}
if sys.version_info >= (3, 11):
    OF_TYPING = {name: getattr(typing, name) for name in ("get_type_hints", "NotRequired", "Required")}


def _cleandoc(doc: str) -> str:
    """As inspect.cleandoc, by which numpy finds the signatures of its functions in C while it is imported."""
    first, *others = doc.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    return "\n".join([first.lstrip(), *(line[margin:] for line in others)]).strip("\n")


def _no_signature(function: object) -> None:
    """What numpy keeps as the signature of a function in C whose documentation has none."""


with standing_in(
    Later("inspect", meanwhile={"cleandoc": _cleandoc, "signature": _no_signature}),
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

__all__ = ["dataclasses", "msgspec", "numpy", "urllib"]
