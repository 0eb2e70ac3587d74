"""`edgefl-agent sent`: what has left this device, from the owner's ledger."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edgefl.hosting import command
from edgefl.hosting.acting import as_owner_of
from edgefl.settings import files

from .approving import CONFIG
from .config import AgentConfig
from .ledger import Line, Reader

HEAD = f"{'time':25}  {'round':>7}  {'bytes':>9}  {'sent':>9}  {'norm':>9}  {'receipt':8}  update's sha256"
NO_DELTA = {
    "profile": "  column statistics",
    "evaluate": "  scores alone",
    "masked": "  masked",
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
    add("--config", metavar="FILE", default=CONFIG, help="the agent's configuration")
    command.add_set_option(add, "state_dir=/var/lib/edgefl")
    add("--json", action="store_true", help="print a JSON array with everything that is known of each update")
    add("--verify", action="store_true", help="check that no entry was changed or removed, and print the chain's head")
    command.add_common_options(parser, level="warning")
    return parser


def show(options: argparse.Namespace) -> None:
    """Print the list; StoreError, UsageError."""
    folder = Path(files.load(options.config, AgentConfig, options.set).state_dir)
    reader = Reader(folder)
    with as_owner_of(folder):
        _print(options, folder, reader)


def _print(options: argparse.Namespace, folder: Path, reader: Reader) -> None:
    if options.verify:
        count, head = reader.verify()
        print(f"{count} entries are as they were written; the newest has the hash {head.hex()}", file=sys.stderr)
    if options.json:
        sys.stdout.write(msgspec.json.encode([_fields(line) for line in reader.lines()]).decode() + "\n")
    elif not options.verify:
        for text in _table(reader):
            print(text)
    for damaged in sorted(folder.glob("agent.damaged-*")):
        print(f"an earlier ledger is in {damaged}, which was damaged", file=sys.stderr)


def _table(reader: Reader) -> Iterator[str]:
    yield HEAD
    total = count = masked = 0
    epsilon = 0.0
    for line in reader.lines():
        entry, sent = line.entry, "unknown" if line.sent is None else str(line.sent)
        clipped = f"  clipped from {entry.clipped_from:.3g}" if entry.clipped_from else ""
        yield (
            f"{_date(line):25}  {entry.round:7}  {entry.bytes:9}  {sent:>9}  {entry.norm:9.3g}  {line.receipt:8}  "
            f"{entry.sha256[:16]}{clipped}{NO_DELTA.get(entry.mode, '')}"
        )
        count, total = count + (line.sent != 0), total + (line.sent or 0)
        masked, epsilon = masked + (line.sent != 0 and entry.mode == "masked"), max(epsilon, entry.epsilon)
    if masked:
        bound = f", and of a sum with noise: epsilon {epsilon:.3g} at most" if epsilon else ""
        yield f"{masked} of these updates were masked: the aggregator learns their sum with others alone{bound}"
    yield f"{count} updates, {total} bytes in all messages; `unknown` where the agent was killed before it could say"


def _date(line: Line) -> str:
    date = datetime.fromtimestamp(line.entry.time).astimezone().isoformat()
    return date if line.entry.trusted else f"{date[:19]} (?)"


def _fields(line: Line) -> dict[str, Any]:
    known = {"number": line.number, "hash": line.hash.hex(), "sent": line.sent, "receipt": line.receipt}
    return {**known, **msgspec.to_builtins(line.entry)}
