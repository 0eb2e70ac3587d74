"""`edgefl download`: its options."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..hosting.acting import as_owner_of
from ..hosting.versions import opened
from . import orders
from .text import say

EXAMPLE = "edgefl download best model.onnx\n  edgefl download 41 model-41.onnx"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Write a version of the model that an aggregator keeps as an ONNX file.

    It reads the state folder, whether the aggregator runs or not. The file says in its metadata which version it is.
    """
    add = parser.add_argument_group("the model").add_argument
    add("which", metavar="VERSION", help="a version, a tag, or best: see edgefl versions")
    add("file", type=Path, metavar="FILE", help="the file to write; one that is there already is replaced")
    orders.add_options(parser)
    parser.set_defaults(command=write)


def write(options: argparse.Namespace) -> int:
    """StoreError, UsageError."""
    from ..atomic import write_atomically
    from ..errors import UsageError

    with as_owner_of(options.state_dir), opened(options.state_dir) as versions:
        version = versions.find(options.which)
        pieces = versions.file(version)
    try:
        write_atomically(options.file, pieces)
    except OSError as error:
        raise UsageError(f"can't write {options.file}: {error.strerror}: choose another file") from None
    say(f"{options.file} is version {version}")
    return 0
