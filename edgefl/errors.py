"""The errors that reach an operator. Few, typed, and each says what, where, and what to do.

`exit_code` is what a command line ends with: 1 failed, 2 wrong use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

OUT_OF_RANGE = "a label or a token is out of the model's range"


class EdgeFLError(Exception):
    """Base of all errors that EdgeFL raises on purpose; `str()` of one is fit for an operator."""

    exit_code = 1


class UsageError(EdgeFLError):
    """A wrong option, configuration key or argument."""

    exit_code = 2


class ModelError(EdgeFLError):
    """An ONNX model or plan that can't be loaded, trained or saved."""


class DataError(EdgeFLError):
    """Data that can't be read, or that the model can't be trained on.

    The message may quote the data. `safe` says where and what is wrong without any value from them, so it may leave the
    device; if it is empty, only the device's own log tells. `code` is one of protocol/trouble.py.
    """

    def __init__(self, message: str, safe: str = "", code: str = "data") -> None:
        super().__init__(message)
        self.safe, self.code = safe, code


class CodecError(EdgeFLError):
    """A vector that can't be encoded, or a payload that can't be decoded. `code`: see protocol/refusals.py."""

    def __init__(self, message: str, code: str = "codec") -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(EdgeFLError):
    """Bytes from the network that are not what the protocol says. Counted and dropped, never fatal. `code`: see
    protocol/refusals.py."""

    def __init__(self, message: str, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code


class StoreError(EdgeFLError):
    """The local state (SQLite, model file) can't be read or written durably."""


class PolicyError(EdgeFLError):
    """A round's work that the policy of the device's owner does not allow."""


class TransportError(EdgeFLError):
    """The MQTT broker can't be used as configured, or nothing can listen where the dashboard shall."""


def nearest(word: object, known: Iterable[str]) -> str:
    """A hint for a misspelt `word`: "did you mean 'x'?" or the list of what is known."""
    import difflib  # here: a program that runs well needs no hint

    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def path_of(value: object) -> Path:
    """`value` as a path; UsageError if it can't be one."""
    if not isinstance(value, str | os.PathLike) or "\0" in os.fspath(value):
        raise UsageError(f"path is {value!r}: give the path of a file")
    return Path(value)
