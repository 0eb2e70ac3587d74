"""`edgefl profile`: its options, and what it prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from ..core.protobuf import metadata_of
from ..errors import EdgeFLError, ModelError, UsageError
from ..hosting.config import AggregatorConfig
from ..hosting.orders import AskProfile, give
from ..profiles import Profile
from ..settings import files
from .orders import STATE_DIR
from .text import say
from .values import at_least

MODEL = "model.onnx"  # in the state folder
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
        print(f"asked; waiting up to {options.wait} s for the aggregator's next round", file=sys.stderr, flush=True)
        answer = give(folder, AskProfile(), float(options.wait))
        if answer is None:
            raise EdgeFLError(
                f"no profile within {options.wait} s: edgefl status says what the round waits for. "
                f"The order waits in {folder}/orders; "
                "edgefl profile --last prints what comes of it"
            )
        if not answer.done:
            raise EdgeFLError(answer.text)
    profile = Profile.read(folder)
    if profile is None:
        raise UsageError(f"there is no profile in {folder} yet: run edgefl profile without --last")
    say(profile.to_json().decode().rstrip() if options.json else profile.table(**_names(folder)))
    return 0


def _names(folder: Path) -> dict[str, list[str]]:
    """What columns and labels are called, as far as the model's file says it."""
    try:
        told = metadata_of((folder / MODEL).read_bytes())
        return {name: msgspec.json.decode(told[name], type=list[str]) for name in ("columns", "labels") if name in told}
    except (OSError, ModelError, msgspec.DecodeError):
        return {}


def _folder(options: argparse.Namespace) -> Path:
    if options.config is None:
        return options.state_dir or Path(STATE_DIR)
    if options.state_dir is not None:
        raise UsageError("--config and --state-dir both name the state folder: give one of them")
    return Path(files.load(options.config, AggregatorConfig).state_dir)
