"""edgefl-helper: the command line."""

from __future__ import annotations

import argparse
import sys

from edgefl.hosting import command, daemon, hygiene, log_lines
from edgefl.hosting.reload import on_hangup
from edgefl.machine import Stop
from edgefl.settings import files

from .config import HelperConfig


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 after a clean stop, 1 failed, 2 wrong use."""
    if argv is None:
        hygiene.harden()
    options = make_parser().parse_args(argv)
    return command.start(options, HelperConfig, check=lambda: check(options), work=lambda: run(options))


def make_parser() -> command.Parser:
    """The parser of all options."""
    parser = command.Parser(
        prog="edgefl-helper",
        description="Help a federation's masked rounds: open the sum of enough masks, once a round, and no single one.",
        example="edgefl-helper --config helper.toml --check\n  edgefl-helper --config helper.toml",
    )
    command.add_daemon_options(parser, "help the federation of this helper.toml", "least.devices=20")
    return parser


def check(options: argparse.Namespace) -> int:
    """Look at everything, run nothing."""
    from . import check  # which a running helper has no use for

    return check.main(command.checked(options), options.set, as_json=options.json)


def run(options: argparse.Namespace) -> None:
    """Run the helper until a signal comes."""
    from .daemon import HelperDaemon

    command.check_sets(options.set)

    def load() -> HelperConfig:
        return files.load(options.config, HelperConfig, options.set)

    config = load()
    log_lines.always(federation=config.federation)
    helper = HelperDaemon(config)
    with daemon.on_termination(lambda: helper.post(Stop())), on_hangup(lambda: helper.reload.ask(load)):
        helper.run()


if __name__ == "__main__":
    sys.exit(main())
