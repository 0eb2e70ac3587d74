"""The options that say how a model is read, for all commands that read one, and the reading."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..onnx.specs import is_spec
from ..settings.reading import CONSTANTS, HELP

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ..onnx.model import Model
    from ..settings import AdapterSettings


def add_options(parser: argparse.ArgumentParser, *, adapters: bool = False) -> None:
    """A group of options that a command with a model has; `adapters` if it has no options of settings."""
    add = parser.add_argument_group("how the model is read").add_argument
    losses = "cross_entropy, bce, mse, l1, huber, hinge or focal"
    add(
        "--loss",
        metavar="NAME",
        help=f"{losses} (default: inferred from the model's output and the data); to train several outputs at once, "
        "OUTPUT=NAME[:WEIGHT] for each, with commas",
    )
    for name, text in HELP.items():
        sentence = text[0].lower() + text[1:-1]
        add(f"--{name}", action="append", default=[], metavar="NAME", help=f"{sentence}; may be given several times")
    add(
        "--dim",
        action="append",
        default=[],
        type=_dim,
        metavar="NAME=N",
        help="size of an axis that the file leaves open; may be given several times",
    )
    add(
        "--constant",
        action="append",
        default=[],
        dest="constants",
        type=_constant,
        metavar="NAME=NUMBER",
        help=f"{CONSTANTS[0].lower()}{CONSTANTS[1:-1]}; may be given several times",
    )
    if adapters:
        help = "a setting of [adapters], such as rank=8 (docs/adapters.md); may be given several times"
        add("--adapters", action="append", default=[], metavar="KEY=VALUE", help=help)


def load(
    options: argparse.Namespace, seed: int = 0, y: np.ndarray | None = None, *, standardize: bool = False
) -> Model:
    """The model of an ONNX file or of a spec such as mlp:SIZES; `seed` draws the weights of the latter. Targets `y` say
    what its loss is, where --loss does not; `standardize` puts a scaling in front. ModelError, UsageError."""
    spec = options.model
    if not is_spec(spec):
        return _read(options, spec, y, standardize)
    from ..onnx import zoo

    return _read(options, zoo.from_spec(spec, seed), y, standardize)


def load_trained(options: argparse.Namespace, path: Path) -> Model:
    """A file that was saved from the model of these options: its params are in the same order."""
    return _read(options, path)


def _read(
    options: argparse.Namespace, source: str | Path | onnx.ModelProto, y: np.ndarray | None = None,
    standardize: bool = False,
) -> Model:  # fmt: skip
    from ..onnx.load import load

    chosen = {name: getattr(options, name) for name in HELP} | {"constants": dict(options.constants)}
    adapters = _adapters(getattr(options, "adapters", []))
    return load(
        source, loss=options.loss, dims=dict(options.dim), y=y, standardize=standardize, adapters=adapters, **chosen
    )


def _adapters(given: list[str]) -> AdapterSettings:
    from ..settings import Settings, files

    return files.build(Settings, {}, [f"adapters.{text}" for text in given]).adapters


def _dim(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=N: write an axis's name in the file and its size, as time=80"
        )
    return name, int(size)


def _constant(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        if name:
            return name, float(number)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text!r} is not NAME=NUMBER: write an input's name in the file and its number, as h0=0"
    )
