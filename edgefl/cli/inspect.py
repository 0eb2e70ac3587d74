"""`edgefl inspect`: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import model as cli_model
from .values import at_least

if TYPE_CHECKING:
    from ..data import Dataset
    from ..onnx.model import Model
    from ..onnx.sparse import Choice

EXAMPLE = "edgefl inspect mlp:784-200-200-10 --batch 10 --json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What a model is made of: ops, shapes, parameters, FLOPs, arena, what trains."""
    group = parser.add_argument_group("the model and the report")
    group.add_argument("model", metavar="M.onnx", help="an ONNX file, mlp:SIZES such as mlp:784-200-10, or mcmahan:cnn")
    group.add_argument("--batch", type=at_least(1), default=32, metavar="B", help="samples that the arena is sized for")
    help = "data that it is to be trained on: whether they fit, and which loss their targets ask for"
    group.add_argument("--data", metavar="SPEC", help=help)
    help = (
        "train only what fits into an arena of so many megabytes: what contributes most, by the gradients of --data, "
        "or the last layers; this is what [sparse] would choose at this batch (docs/sparse.md)"
    )
    group.add_argument("--arena-mb", type=at_least(0.001), metavar="MB", help=help)
    help = (
        "write the plan and the params as C for a microcontroller (docs/microcontroller.md), with the arena of --batch"
    )
    group.add_argument("--c-header", type=Path, metavar="FILE.h", help=help)
    group.add_argument("--json", action="store_true", help="print JSON instead of text")
    cli_model.add_options(parser, adapters=True)
    parser.set_defaults(command=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    import msgspec

    from .. import data
    from ..onnx.summary import describe, summarize

    dataset = None if options.data is None else data.load(options.data, test_fraction=0)
    model = cli_model.load(options, y=None if dataset is None else dataset.y_train)
    if dataset is not None:
        dataset = data.fit_plan(dataset, model.plan)
        model.check_targets(dataset.y_train)
    choice = None
    if options.arena_mb is not None:
        model, choice = _sparse(options, model, dataset)
    if options.c_header is not None:
        _write_header(options, model)
    if options.json:
        found = summarize(model, options.batch)
        found |= {} if choice is None else {"freeze": choice.freeze, "channels": choice.channels}
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(describe(model, options.batch))
        if choice is not None:
            print(f"[sparse]\narena_mb = {options.arena_mb:g}")
            if options.data is not None:
                print(f"public_data = {msgspec.json.encode(options.data).decode()}")
    return 0


def _write_header(options: argparse.Namespace, model: Model) -> None:
    from ..atomic import write_atomically
    from ..core.c_header import c_header

    text = c_header(model.plan, model.params, name=options.model, batch=options.batch)
    write_atomically(options.c_header, text.encode())


def _sparse(options: argparse.Namespace, model: Model, dataset: Dataset | None) -> tuple[Model, Choice]:
    """The model that trains what fits, and what was chosen."""
    from ..onnx.sparse import applied, choose

    x, y = (None, None) if dataset is None else (dataset.x_train, dataset.y_train)
    choice = choose(model, int(options.arena_mb * 10**6), batch=options.batch, x=x, y=y)
    return applied(model, choice), choice
