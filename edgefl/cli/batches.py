"""`edgefl keys batch`, `claims` and `approve`: options and output. The work is in edgefl/keys/batches.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UsageError
from .enrolment_terms import RELOAD, add_terms, tell_policy, terms_of
from .text import say
from .values import at_least


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Let a fleet that is flashed from one image ask to be enrolled: writes the files of the image.

    Each device makes its own keys. The image holds a token, with which a device may ask; you approve the devices.
    """
    group = parser.add_argument_group("the batch").add_argument
    group("--count", type=at_least(1), metavar="N", help="most devices that it may enrol")
    group("--days", type=at_least(1), default=30, metavar="N", help="how long its token can be used")
    group("--prefix", default="pi-", metavar="P", help="how the names begin that devices ask for")
    group("--end", metavar="BATCH", help="end this batch now, instead of making one")
    add_terms(parser)


def batch(options: argparse.Namespace) -> int:
    """Make or end a batch; returns the exit code."""
    from ..keys import batches, enrolment

    where: Path = options.dir
    if (options.end is None) == (options.count is None):
        raise UsageError("give --count, how many devices the batch may enrol, or --end BATCH")
    if options.end:
        batches.end(where, options.end)
        say(f"{options.end} has ended")
    else:
        terms = enrolment.terms_here(where, terms_of(options))
        archive = batches.begin(where, options.count, options.days, terms, options.prefix)
        say(f"{archive}: unpack it in the image")
        tell_policy(terms)
    say(f"for the broker's machine: acl, batches and enrol.conf in {where / 'broker'}; {RELOAD}")
    say(f"for the aggregator's machine: {where / 'aggregator' / 'batches.json'}")
    return 0


def add_claims_options(parser: argparse.ArgumentParser) -> None:
    """Show which devices ask to be enrolled, each with the id of its keys."""
    parser.add_argument("asked", metavar="CLAIMS", type=Path, help="the aggregator's state_dir/claims, or a copy of it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def claims(options: argparse.Namespace) -> int:
    """List the requests; returns the exit code."""
    from ..keys import batches

    found = batches.claims(options.dir, options.asked)
    if options.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return 0
    for one in found:
        say(f"{one.shown}  {one.name:<24} {one.state:<9} {one.batch}{f'  {one.why}' if one.why else ''}")
    if not found:
        say("no device asks to be enrolled")
    return 0


def add_approve_options(parser: argparse.ArgumentParser) -> None:
    """Enrol devices that ask for it. Compare each id with the one that the device shows before you approve it."""
    add = parser.add_argument
    add("asked", metavar="CLAIMS", type=Path, help="the aggregator's state_dir/claims, or a copy of it")
    add("who", nargs="*", metavar="ID", help="the id of a device's keys, or the name that it asks for")
    add("--all", action="store_true", help="all that wait, as far as their batches allow")
    add("--name", metavar="NAME", help="enrol the one device under this name instead")


def approve(options: argparse.Namespace) -> int:
    """Enrol the devices; returns the exit code."""
    from ..keys import batches

    if options.all == bool(options.who) or (options.name and len(options.who) != 1):
        raise UsageError("give the ids to approve, or --all; --name goes with one id")
    names = {options.who[0]: options.name} if options.name else None
    done = batches.approve(options.dir, options.asked, options.who, every=options.all, names=names)
    for one in done:
        say(f"{one.shown}  {one.name}")
    where = options.dir / "aggregator"
    say(f"for helpers' machines: {where / 'roster.json'}; then for the aggregator's: that and {where / 'approved'}")
    return 0
