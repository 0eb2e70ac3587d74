"""Fuzzing: `make fuzz` runs each target for FUZZ_SECONDS; README of the targets in __main__.py.

A target is a module here with

    seeds() -> list[bytes]        real inputs, made by the code that writes them
    run(data: bytes) -> None      reads one input; ends normally or with an EdgeFLError. All else is a finding
    mend(data: bytes) -> bytes    optional: makes checksums right, so that a mutation is looked at behind them

corpus.zip has more inputs, which long runs found; an entry's name begins with its target's.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

PYTHON = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem[0] != "_"))
ARCHIVE = Path(__file__).with_name("corpus.zip")


def load(target: str) -> ModuleType:
    """The module of one of PYTHON."""
    return import_module(f"{__name__}.{target}")


def kept(target: str) -> Iterator[bytes]:
    """The inputs of `target` in corpus.zip."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        for entry in archive.namelist():
            if entry.partition("@")[0] == target:
                yield archive.read(entry)
