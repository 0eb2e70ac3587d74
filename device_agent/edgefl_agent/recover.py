"""`edgefl-agent recover`: the owner lets a device take part in masked rounds again, whose memory of them was damaged.

What can still be read of that is taken over, from agent.db and from databases that were set aside (remains.py): the
newest messages and certificates, the highest epsilon, and the last round. If there is nothing, the owner has to say
what was spent; where that is more than what was read, the owner may say it later, too. What is lost for good is
forgotten, and only the owner can say that this is all right. No agent may run meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from edgefl.device.seen import Seen
from edgefl.errors import StoreError, UsageError
from edgefl.hosting import command
from edgefl.hosting.acting import as_owner_of
from edgefl.hosting.store import set_aside
from edgefl.privacy import MOST_EPSILON
from edgefl.settings import files

from . import remains
from .commands import add_config
from .config import AgentConfig
from .keys import root_of
from .remains import Remains
from .store import AgentStore


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
    add("--epsilon", type=float, metavar="E",
        help="what the federation has spent so far, as its operator says; this device agrees to no less. It is needed "
        "where nothing can be read")  # fmt: skip
    add_config(parser.add_argument)
    command.add_common_options(parser, level="error")
    return parser


def recover(options: argparse.Namespace) -> None:
    """Mend it, and say what the device goes on from; StoreError, UsageError."""
    config = files.load(options.config, AgentConfig, options.set)
    root, folder = root_of(config.keys), Path(config.state_dir)
    if options.epsilon is not None and not 0 <= options.epsilon <= MOST_EPSILON:
        raise UsageError(f"--epsilon {options.epsilon:g} can't be: give what was spent, from 0 to {MOST_EPSILON:g}")
    if not root:
        raise UsageError("this device has no [keys], so it takes part in no masked rounds: there is nothing to recover")
    path = folder / "agent.db"
    if not path.exists() and not set_aside(path):
        raise StoreError(f"there is no {path}: no agent has run with this state_dir yet")
    with as_owner_of(folder):
        store = AgentStore(folder, config.ledger_months)
        try:
            seen = store.load_seen(root) or Seen(root=root)
            if seen.lost:
                seen = _recovered(seen, remains.of_folder(path, root), options.epsilon)
            else:
                print("nothing is damaged: this device remembers the masked rounds of its federation")
                if (options.epsilon or 0.0) <= seen.epsilon:
                    return
            seen = replace(seen, epsilon=max(seen.epsilon, options.epsilon or 0.0))
            store.save_seen(seen)
        finally:
            store.close()
    last = f"masked round {seen.masked_round}" if seen.masked_round else "no masked round that is known"
    print(f"this device goes on from epsilon {seen.epsilon:g} and {last}: start its agent again")


def _recovered(lost: Seen, found: Sequence[Remains], spent: float | None) -> Seen:
    """What the device goes on from, after it is told; StoreError if nothing is known of that."""
    for one in found:
        print("\n".join(_told(one)))
    known = [seen for one in found for seen in one.all]
    if not known and spent is None:
        raise StoreError(
            "nothing of what this device remembered can be read. Without it, the device would agree again to an "
            "epsilon that was spent, and believe keys of helpers that were replaced: ask the operator what was spent "
            "(`edgefl status`), and run `edgefl-agent recover --epsilon E`, with 0 if rounds have no noise"
        )
    if not any(one.seen for one in found):
        print("which keys of helpers were replaced is forgotten: all that the root has certified are believed again")
    seen = reduce(Seen.joined, [*known, lost])
    return replace(seen, lost=False, root=lost.root)


def _told(found: Remains) -> Iterator[str]:
    """What was read of one database, and what could not be."""
    for what, records in (("its memory", found.seen), ("its ledger", found.ledger)):
        if records:
            seen = reduce(Seen.joined, records)
            yield f"{found.path.name}: {what} has epsilon {seen.epsilon:g} and masked round {seen.masked_round}"
    if not found.all:
        yield f"{found.path.name}: nothing of masked rounds"
    for fault in found.faults:
        yield f"{found.path.name}: {fault}; more may have been spent than what is told here"
