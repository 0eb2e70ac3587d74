"""`edgefl`: simulate a fleet, inspect a model, watch a demo. Exit codes: 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import __version__
from ..hosting import daemon
from . import model as cli_model
from . import simulate as cli_simulate
from .text import say
from .values import at_least


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(argv)
    daemon.log_to_stderr(options.log_level)
    return daemon.exit_code(lambda: options.command(options), options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgefl", description="Federated learning on devices that are really out there."
    )
    parser.add_argument("--version", action="version", version=f"edgefl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, add in (("demo", _add_demo), ("simulate", cli_simulate.add_options), ("inspect", _add_inspect)):
        doc = (add.__doc__ or "").rstrip(".")
        command = commands.add_parser(name, help=doc, description=doc + ".")
        add(command)
        command.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
        command.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    """A broker, an aggregator and ten agents on this machine, two of which lose power half way."""
    parser.add_argument("--out", type=Path, default=Path("edgefl-run"), metavar="DIR", help="run folder (%(default)s)")
    parser.add_argument("--devices", type=at_least(1), default=10, metavar="N")
    parser.add_argument("--rounds", type=at_least(1), default=30, metavar="R")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S")
    parser.set_defaults(command=_demo)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    """What a model is made of: ops, shapes, parameters, FLOPs, arena, what trains."""
    parser.add_argument("model", metavar="M.onnx", help="an ONNX file, or mlp:SIZES")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="B", help="samples the arena is sized for (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    cli_model.add_options(parser)
    parser.set_defaults(command=_inspect)


def _demo(options: argparse.Namespace) -> int:
    from ..simulation.demo import run_demo

    daemon.unwind_on_termination()
    run_demo(options.out, options.devices, options.rounds, options.seed, say)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    import msgspec

    from ..onnx.summary import describe, summarize

    model = cli_model.load(options)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(summarize(model, options.batch)), indent=2).decode())
    else:
        print(describe(model, options.batch))
    return 0
