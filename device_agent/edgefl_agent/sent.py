"""`edgefl-agent sent`: what has left this device, from the owner's ledger."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edgefl.hosting import command
from edgefl.hosting.acting import as_owner_of
from edgefl.hosting.store import set_aside
from edgefl.plural import plural
from edgefl.settings import files

from .commands import add_config
from .config import AgentConfig
from .ledger import Entry, Line, Reader

HEAD = f"{'time':25}  {'round':>7}  {'bytes':>9}  {'sent':>9}  {'norm':>9}  {'receipt':8}  update's sha256"
NO_DELTA = {
    "profile": "  column statistics",
    "evaluate": "  scores alone",
    "masked": "  masked",
    "masked profile": "  masked column statistics",
}  # what it is, by its round's mode


def main(words: list[str]) -> int:
    """Exit code 0; 1 if the ledger can't be read or was changed."""
    options = make_parser().parse_args(words)
    return command.run(options, lambda: show(options))


def make_parser() -> command.Parser:
    parser = command.Parser(
        prog="edgefl-agent sent",
        description="List every update that has left this device, or may have left it.",
        example="edgefl-agent sent --config /etc/edgefl/agent.toml",
    )
    add = parser.add_argument_group("what to list").add_argument
    add_config(add)
    add("--json", action="store_true", help="print a JSON array with everything that is known of each update")
    add("--verify", action="store_true", help="check that no entry was changed or removed, and print the chain's head")
    command.add_common_options(parser, level="warning")
    return parser


def show(options: argparse.Namespace) -> None:
    """Print the list; StoreError, UsageError."""
    config = files.load(options.config, AgentConfig, options.set)
    folder = Path(config.state_dir)
    reader = Reader(folder)
    with as_owner_of(folder):
        _print(options, folder, reader, config.policy.most_epsilon)


def _print(options: argparse.Namespace, folder: Path, reader: Reader, bound: float | None) -> None:
    if options.verify:
        count, head = reader.verify()
        print(f"{count} entries are as they were written; the newest has the hash {head.hex()}", file=sys.stderr)
    if options.json:
        sys.stdout.write(msgspec.json.encode([_fields(line) for line in reader.lines()]).decode() + "\n")
    elif not options.verify:
        for text in _table(reader, bound):
            print(text)
    for damaged in set_aside(reader.path):
        print(f"an earlier ledger is in {damaged}, which was damaged", file=sys.stderr)


def _table(reader: Reader, bound: float | None) -> Iterator[str]:
    yield HEAD
    total = count = first = 0
    masked: dict[str, Masked] = {}
    for line in reader.lines():
        entry, sent = line.entry, "unknown" if line.sent is None else str(line.sent)
        clipped = f"  clipped from {entry.clipped_from:.3g}" if entry.clipped_from else ""
        yield (
            f"{_date(line):25}  {entry.round:7}  {entry.bytes:9}  {sent:>9}  {entry.norm:9.3g}  {line.receipt:8}  "
            f"{entry.sha256[:16]}{clipped}{NO_DELTA.get(entry.mode, '')}"
        )
        count, total, first = count + (line.sent != 0), total + (line.sent or 0), first or line.number
        if line.sent != 0 and entry.is_masked:
            masked.setdefault(entry.root, Masked()).add(entry)
    yield from _of_masks(masked, reader.epsilons() if first > 1 else {}, bound)
    unknown = "`unknown`: still on its way, or the agent was killed before it could say"
    yield f"{plural(count, 'update')}, {total} bytes in all messages; {unknown}"


@dataclass
class Masked:
    """What has left for one federation, masked. A round that is opened again may get two updates, and one counts."""

    updates: int = 0
    rounds: set[tuple[str, int]] = field(default_factory=set)
    epsilon: float = 0.0
    delta: float = 0.0

    def add(self, entry: Entry) -> None:
        self.updates += 1
        self.rounds.add((entry.run, entry.round))
        if entry.epsilon >= self.epsilon:
            self.epsilon, self.delta = entry.epsilon, entry.delta


def _of_masks(masked: dict[str, Masked], told: dict[str, float], bound: float | None) -> Iterator[str]:
    """A line for each federation's root; `told`: the epsilon that its rounds have told, where entries were
    cut off."""
    for root, found in masked.items():
        epsilon, at = max(found.epsilon, told.get(root, 0.0)), f" at delta {found.delta:g}" if found.delta else ""
        what = f", and of a sum with noise: epsilon {epsilon:.3g} at most{at}" if epsilon else ""
        whose = f"root {root or 'unknown'}: " if len(masked) > 1 else ""
        were = "was" if found.updates == 1 else "were"
        yield (
            f"{whose}{found.updates} of these updates {were} masked, in {plural(len(found.rounds), 'round')}: the "
            f"aggregator learns their sum with others alone{what}"
        )
    if bound is not None:
        yield f"[policy] most_epsilon is {bound:g}: a round that tells more is refused before anything is trained"


def _date(line: Line) -> str:
    date = datetime.fromtimestamp(line.entry.time).astimezone().isoformat()
    return date if line.entry.trusted else f"{date[:19]} (?)"


def _fields(line: Line) -> dict[str, Any]:
    known = {"number": line.number, "hash": line.hash.hex(), "sent": line.sent, "receipt": line.receipt}
    return {**known, **msgspec.to_builtins(line.entry)}
