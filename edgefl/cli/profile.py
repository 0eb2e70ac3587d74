"""`edgefl profile`: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import EdgeFLError, UsageError
from ..hosting.config import AggregatorConfig
from ..hosting.orders import AskProfile, give
from ..profiles import Profile
from ..settings import files
from .orders import STATE_DIR
from .text import say
from .values import at_least

EXAMPLE = "edgefl profile --config aggregator.toml\n  edgefl profile --config aggregator.toml --last --json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the devices' columns look like: means, deviations, ranges and labels.

    The running aggregator asks for them in its next round. No value leaves a device: it sends counts, sums and a
    histogram of each column, if its owner lets it (`[policy] statistics` of agent.toml; with keys the owner has to).
    """
    add = parser.add_argument_group("the aggregator").add_argument
    add("--config", metavar="FILE", help="its aggregator.toml, which names its state_dir")
    add("--state-dir", metavar="DIR", type=Path, help=f"or its state_dir itself (default: {STATE_DIR})")
    add = parser.add_argument_group("the profile").add_argument
    add("--last", action="store_true", help="print the newest profile, and ask no device")
    add("--wait", type=at_least(1), default=600, metavar="S", help="seconds to wait for the round")
    add("--json", action="store_true", help="print JSON instead of a table, with every bin")
    parser.set_defaults(command=_profile)


def _profile(options: argparse.Namespace) -> int:
    folder = _folder(options)
    if not options.last:
        answer = give(folder, AskProfile(), float(options.wait))
        if answer is None:
            raise EdgeFLError(
                f"no profile within {options.wait} s: is the aggregator running? The order waits in {folder}/orders; "
                "edgefl profile --last prints what comes of it"
            )
        if not answer.done:
            raise EdgeFLError(answer.text)
    profile = Profile.read(folder)
    if profile is None:
        raise UsageError(f"there is no profile in {folder} yet: run edgefl profile without --last")
    say(profile.to_json().decode().rstrip() if options.json else profile.table())
    return 0


def _folder(options: argparse.Namespace) -> Path:
    if options.config is None:
        return options.state_dir or Path(STATE_DIR)
    if options.state_dir is not None:
        raise UsageError("--config and --state-dir both name the state folder: give one of them")
    return Path(files.load(options.config, AggregatorConfig).state_dir)
