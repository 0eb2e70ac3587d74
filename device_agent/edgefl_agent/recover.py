"""`edgefl-agent recover`: the owner lets a device take part in masked rounds again, whose memory of them was damaged.

What its ledger still has of that is taken over: the highest epsilon that an update was sent under, and the last round.
What neither of both has is forgotten, and only the owner can say that this is all right. No agent may run meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from edgefl.errors import UsageError
from edgefl.hosting import command
from edgefl.hosting.acting import as_owner_of
from edgefl.settings import files

from .approving import CONFIG
from .config import AgentConfig
from .keys import root_of
from .ledger import Line, Reader
from .store import AgentStore

MOST = 1e12  # as terms may tell


def main(words: list[str]) -> int:
    """Exit code 0; 1 if the state can't be read, or an agent runs."""
    options = make_parser().parse_args(words)
    return command.run(options, lambda: recover(options))


def make_parser() -> command.Parser:
    parser = command.Parser(
        prog="edgefl-agent recover",
        description="Let this device take part in masked rounds again, after what it remembered of them was damaged. "
        "Stop the agent first.",
        example="edgefl-agent recover --epsilon 3.5",
    )
    add = parser.add_argument_group("what was spent").add_argument
    add("--epsilon", type=float, default=0.0, metavar="E",
        help="what the federation has spent so far, as its operator says; this device agrees to no less")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", default=CONFIG, help="the agent's configuration")
    command.add_set_option(parser.add_argument, "state_dir=/var/lib/edgefl")
    command.add_common_options(parser, level="error")
    return parser


def recover(options: argparse.Namespace) -> None:
    """Mend it, and say what the device goes on from; StoreError, UsageError."""
    config = files.load(options.config, AgentConfig, options.set)
    root, folder = root_of(config.keys), Path(config.state_dir)
    if not 0 <= options.epsilon <= MOST:
        raise UsageError(f"--epsilon {options.epsilon:g} can't be: give what was spent, from 0 to {MOST:g}")
    if not root:
        raise UsageError("this device has no [keys], so it takes part in no masked rounds: there is nothing to recover")
    lines = Reader(folder)
    with as_owner_of(folder):
        store = AgentStore(folder, config.ledger_months)
        try:
            seen = store.load_seen(root)
            if seen is None or not seen.lost:
                print("nothing is damaged: this device remembers the masked rounds of its federation")
                return
            masked = list(_masked(lines, root))
            epsilon = max([options.epsilon, *(line.entry.epsilon for line in masked)])
            run, round = (masked[-1].entry.run, masked[-1].entry.round) if masked else ("", 0)
            seen = seen.recovered(epsilon, run, round)
            store.save_seen(seen)
        finally:
            store.close()
    last = f"masked round {seen.masked_round}" if seen.masked_round else "no masked round that is known"
    print(f"this device goes on from epsilon {seen.epsilon:g} and {last}: start its agent again")


def _masked(reader: Reader, root: str) -> Iterator[Line]:
    """The entries of masked updates to this root, or to one that was not written down."""
    return (line for line in reader.lines() if line.entry.is_masked and line.entry.root in ("", root))
