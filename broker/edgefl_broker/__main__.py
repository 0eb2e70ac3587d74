"""edgefl-aggregator: the command line."""

from __future__ import annotations

import argparse
import sys

from edgefl.errors import UsageError
from edgefl.hosting import command, daemon, hygiene, log_lines
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.reload import on_hangup
from edgefl.machine import Stop
from edgefl.settings import files

from .aggregator import Aggregator
from .progress import LiveLine, Silent


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the rounds are done or after a clean stop, 1 failed, 2 wrong use."""
    if argv is None:
        hygiene.harden()
    options = make_parser().parse_args(argv)
    live = sys.stderr.isatty() and options.log_format == "text"
    return command.start(
        options, AggregatorConfig, check=lambda: check(options), work=lambda: run(options, live=live),
        lone_json="--json needs a FILE for the history, or --check",
    )  # fmt: skip


def make_parser() -> command.Parser:
    """The parser of all options."""
    parser = command.Parser(
        prog="edgefl-aggregator",
        description="Run a federation's rounds: average the updates of whichever devices report over MQTT.",
        example="edgefl-aggregator --print-config > aggregator.toml\n  edgefl-aggregator --config aggregator.toml",
    )
    add = command.add_daemon_options(parser, "run the federation of this aggregator.toml", json=False)
    add(
        "--json",
        metavar="FILE",
        nargs="?",
        const=True,
        help="write the history to this file at the end; with --check and no FILE, print JSON",
    )
    add(
        "--take-over",
        action="store_true",
        help="start although another aggregator has claimed the federation; only if that one is gone for good",
    )
    return parser


def check(options: argparse.Namespace) -> int:
    """Look at everything, run nothing."""
    from . import check  # which a running aggregator has no use for

    return check.main(command.checked(options), options.set, as_json=options.json is not None)


def run(options: argparse.Namespace, *, live: bool) -> None:
    """Run the aggregator until the rounds are done or a signal comes."""
    command.check_sets(options.set)
    settings = files.load(options.config, AggregatorConfig, options.set)
    log_lines.always(federation=settings.federation)
    aggregator = Aggregator(settings, LiveLine() if live else Silent(), options.take_over)

    def reload() -> None:
        aggregator.reload.ask(lambda: files.load(options.config, AggregatorConfig, options.set))

    with daemon.on_termination(lambda: aggregator.post(Stop())), on_hangup(reload):
        aggregator.run()
    if options.json:
        try:
            with open(options.json, "wb") as file:
                file.writelines(aggregator.history_json())
        except OSError as error:
            raise UsageError(
                f"can't write {options.json}: {error.strerror}: all is in {settings.state_dir}/history.jsonl"
            ) from None


if __name__ == "__main__":
    sys.exit(main())
