"""`edgefl`: simulate a fleet, inspect a model, watch a demo. Exit codes: 0 done, 1 failed, 2 wrong use.

A command is a file of this folder with `add_options(parser)`, whose docstring is the command's description and which
sets `command`, the function that does the work; and `EXAMPLE`, which its help shows. Add it to the table.
"""

from __future__ import annotations

from inspect import cleandoc

from ..hosting.command import Parser, add_common_options, add_program_options, run
from . import (
    compare,
    data,
    demo,
    doctor,
    download,
    forget,
    inspect,
    keys,
    new,
    partition,
    pause,
    plan_fleet,
    privacy,
    profile,
    release,
    report,
    resume,
    rollback,
    simulate,
    status,
    tag,
    tune,
    versions,
)  # fmt: skip

COMMANDS = {
    "demo": demo,
    "new": new,
    "simulate": simulate,
    "compare": compare,
    "tune": tune,
    "inspect": inspect,
    "data": data,
    "partition": partition,
    "plan-fleet": plan_fleet,
    "privacy": privacy,
    "keys": keys,
    "status": status,
    "versions": versions,
    "tag": tag,
    "download": download,
    "profile": profile,
    "rollback": rollback,
    "release": release,
    "pause": pause,
    "resume": resume,
    "forget": forget,
    "doctor": doctor,
    "report": report,
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = make_parser().parse_args(argv)
    return run(options, lambda: options.command(options))


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="edgefl",
        description="Federated learning for devices that are really out there: simulate a fleet, inspect a model.",
        example="edgefl demo\n  edgefl simulate --help",
    )
    add_program_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        text = cleandoc(module.add_options.__doc__ or "")
        command = commands.add_parser(
            name, help=text.partition("\n")[0].rstrip("."), description=text, example=module.EXAMPLE
        )
        module.add_options(command)
        if module not in (keys, data):  # whose commands have them
            add_common_options(command, level="warning")
    return parser
