"""edgefl-aggregator: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgefl import __version__
from edgefl.errors import UsageError
from edgefl.hosting import config, daemon
from edgefl.machine import Stop

from .aggregator import Aggregator
from .config import AggregatorConfig
from .progress import LiveLine, Silent


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the rounds are done or after a clean stop, 1 failed, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="edgefl-aggregator", description="Average whichever devices report, over MQTT."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", help="aggregator.toml")
    what.add_argument("--print-config", action="store_true", help="write a sample configuration and end")
    parser.add_argument("--json", metavar="FILE", help="write the history there at the end")
    parser.add_argument(
        "--take-over", action="store_true", help="although another aggregator has the federation: it is gone for good"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"edgefl {__version__}")
    options = parser.parse_args(argv)
    if options.print_config:
        print(config.render(AggregatorConfig), end="")
        return 0
    daemon.log_to_stderr(options.log_level)
    return daemon.exit_code(lambda: run(options.config, options.json, options.take_over), options.debug)


def run(path: str, json: str | None, take_over: bool) -> None:
    """Until the rounds are done or a signal comes."""
    settings = config.load(path, AggregatorConfig)
    aggregator = Aggregator(settings, LiveLine() if sys.stderr.isatty() else Silent(), take_over)
    daemon.on_termination(lambda: aggregator.post(Stop()))
    aggregator.run()
    if json:
        try:
            Path(json).write_bytes(aggregator.history.to_json())
        except OSError as error:
            raise UsageError(
                f"can't write {json}: {error.strerror}: all is in {settings.state_dir}/history.jsonl"
            ) from None


if __name__ == "__main__":
    sys.exit(main())
