"""`edgefl keys`: its commands and options, and what they print. The work is in edgefl/keys/."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..hosting.command import add_common_options
from ..plural import plural
from ..protocol.topics import HELPER
from . import batches
from .enrolment_terms import RELOAD, add_terms, tell_policy, terms_of
from .text import say
from .values import at_least

if TYPE_CHECKING:
    from ..keys.enrolment import Terms
    from ..keys.report import Report

EXAMPLE = """edgefl keys init keys --federation my-fleet --broker broker.example.org
  edgefl keys add keys pi-01 pi-02 --model start.onnx
  edgefl keys list keys"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Keys and certificates of a federation: enrol devices, revoke and renew them.

    DIR is a folder that stays off line: a thief of it can enrol and sign. docs/security.md tells how its files reach
    the machines that need them.
    """
    commands = parser.add_subparsers(title="commands of keys", metavar="COMMAND", required=True)
    for name, (describe, work) in COMMANDS.items():
        text = cleandoc(describe.__doc__ or "")
        command = commands.add_parser(name, help=text.partition("\n")[0].rstrip("."), description=text)
        command.add_argument("dir", metavar="DIR", type=Path, help="the folder of the federation's keys")
        describe(command)
        add_common_options(command, level="warning")  # type: ignore[arg-type]
        command.set_defaults(command=work)


def _init_options(parser: argparse.ArgumentParser) -> None:
    """Make the folder of a new federation: root, authority, and the keys of aggregator and broker."""
    add = parser.add_argument_group("the federation").add_argument
    add("--federation", required=True, metavar="NAME", help="name of the federation: a-z, 0-9 and '-'")
    add("--broker", required=True, metavar="HOST", help="name or address by which clients reach the broker")
    add("--also", action="append", default=[], metavar="HOST", help="another name of it; may be given several times")
    add("--port", type=at_least(1), metavar="N", help="port of the broker's TLS listener (default: 8883)")
    add("--enrol-port", type=at_least(1), metavar="N", help="port where devices of a batch ask (default: 8884)")
    add("--root", metavar="TOPIC", help="where topics begin (default: edgefl/2)")
    add("--days", type=at_least(1), metavar="N", help="how long certificates hold (default: 825)")
    add("--home", metavar="DIR", help="where the broker's machine has its files (default: /etc/mosquitto/edgefl)")
    add("--guard", metavar="FILE", help="where it has the guard (default: /usr/local/lib/edgefl/guard.so)")


def _init(options: argparse.Namespace) -> int:
    from ..keys import enrolment
    from ..keys.federation import Federation
    from ..settings import files

    named = {key: getattr(options, key) for key in Federation.__struct_fields__}
    settings = files.build(Federation, {key: value for key, value in named.items() if value is not None})
    enrolment.init(options.dir, settings)
    where = options.dir
    say(f"{where} is made: keep it off line, and a copy of it")
    say(f"for the broker's machine, to {settings.home}: {where / 'broker'}")
    say(f"for the aggregator's machine: {where / 'aggregator'}")
    say(f"next: edgefl keys add {where} NAME...")
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Enrol devices: a certificate, a signing key and an agent.toml for each, in the bundle DIR/devices/NAME.tar.

    A bundle holds private keys: bring it to its device, and delete it. It is unpacked into one folder.
    """
    who = parser.add_argument_group("who").add_argument
    who("names", nargs="*", metavar="NAME", help="a device id, unique in the fleet")
    who("--count", type=at_least(1), metavar="N", help="as many devices with numbered names")
    who("--prefix", metavar="P", help="how their names begin")
    who("--first", type=at_least(0), default=1, metavar="N", help="the number of the first one")
    who("--viewer", action="store_true", help="enrol programs that watch, as viewer-NAME")
    who("--helper", action="store_true", help="enrol second parties of masked rounds, as helper-NAME")
    help = "who runs these helpers, also those that are enrolled: a device counts helpers of one operator as one"
    who("--operator", default="", metavar="WHO", help=help)
    add_terms(parser)


def _add(options: argparse.Namespace) -> int:
    from ..keys import enrolment
    from ..keys.report import report

    names = list(options.names)
    if (options.count is None) != (options.prefix is None):
        raise UsageError("--count and --prefix belong together, as in --count 500 --prefix pi-")
    if options.count is not None:
        names += enrolment.numbered(options.prefix, options.count, options.first)
    if not names:
        raise UsageError("nobody is named: give names, or --count and --prefix")
    denied = options.dir / "broker" / "denied"
    before = denied.read_bytes() if denied.exists() else b""
    role, terms = _role(options), terms_of(options)
    if role == "device":
        terms = enrolment.terms_here(options.dir, terms)
    paths = enrolment.add(options.dir, names, terms, role)
    _tell_added(options.dir, paths, role, terms)
    bundles = {path.stem for path in paths}
    for name in names:
        if role == "helper" and HELPER + name not in bundles:
            say(f"{HELPER}{name}: run by {options.operator} from now on; its keys stay as they are")
    if denied.read_bytes() != before:  # of a name that was revoked
        say(f"for the broker's machine: acl, denied and crl.pem in {denied.parent}; {RELOAD}")
    elif role != "device" and paths:
        say(f"for the broker's machine: acl in {denied.parent}; {RELOAD}")
    if role == "helper":
        _tell_warnings(report(options.dir))
    return 0


def _tell_added(where: Path, paths: list[Path], role: str, terms: Terms) -> None:
    """The bundles, and what the aggregator's and the helpers' machines need."""
    for path in paths[:20]:
        say(f"{path}")
    if len(paths) > 20:
        say(f"... {len(paths)} bundles in all")
    mine = where / "aggregator"
    if role == "device":
        tell_policy(terms)
        say(f"for helpers' machines, and then for the aggregator's: {mine / 'roster.json'}")
    if role == "helper" and paths:
        say(f"for the aggregator's machine: {', '.join(f'{mine / path.stem}.json' for path in paths)}")
        say("devices that you enrol from now on demand masked rounds of it; for those before: docs/masked.md")


def _role(options: argparse.Namespace) -> Any:
    if options.viewer and options.helper:
        raise UsageError("--viewer or --helper: a name has one role")
    role = "viewer" if options.viewer else "helper" if options.helper else "device"
    of_devices = (
        options.model, options.data, options.max_examples, options.canary, options.policy, options.standardize
    )  # fmt: skip
    if role != "device" and any(of_devices):
        raise UsageError(
            f"a {role} trains nothing: --model, --data, --max-examples, --canary, --policy and --standardize are for "
            "devices"
        )
    if options.operator and role != "helper":
        raise UsageError("--operator is who runs a helper: give it with --helper")
    return role


def _revoke_options(parser: argparse.ArgumentParser) -> None:
    """Revoke names: at the broker, and in the aggregator's roster. They are out as soon as the files are there."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="names to revoke")


def _revoke(options: argparse.Namespace) -> int:
    from ..keys import enrolment

    enrolment.revoke_names(options.dir, options.names)
    say(f"revoked: {', '.join(options.names)}")
    say(f"for the broker's machine: acl, denied and crl.pem in {options.dir / 'broker'}; {RELOAD}")
    say(f"for helpers' machines, and then for the aggregator's: {options.dir / 'aggregator' / 'roster.json'}")
    if any(name.startswith(HELPER) for name in options.names):
        say(
            "take the helper out of [privacy] helpers on the aggregator's machine, and out of [policy] on devices that "
            "name it: docs/helper.md"
        )
    return 0


def _renew_options(parser: argparse.ArgumentParser) -> None:
    """New certificates, for the names that are given, or for the federation's own machines.

    A device keeps its signing key and its agent.toml: the new bundle is unpacked over the old files, and the agent
    takes them at its next connection. The old certificate holds until it expires; the aggregator's old one is revoked.
    """
    group = parser.add_argument_group("what is renewed").add_argument
    group("names", nargs="*", metavar="NAME", help="devices, viewers, helpers")
    group("--aggregator", action="store_true", help="the aggregator's TLS key and certificate")
    group("--broker", action="store_true", help="the broker's; its names are those of federation.toml")
    group("--signer", action="store_true", help="the aggregator's signing key, which the root certifies")
    group("--crl", action="store_true", help="the list of revoked certificates")


def _renew(options: argparse.Namespace) -> int:
    from ..keys import enrolment

    where: Path = options.dir
    if not (options.names or options.aggregator or options.broker or options.signer or options.crl):
        raise UsageError("say what is to be renewed: names, --aggregator, --broker, --signer or --crl")
    if options.names:
        for path in enrolment.renew(where, options.names):
            say(f"{path}: unpack it over the old files")
    mine, brokers = f"in {where / 'aggregator'}", f"in {where / 'broker'}; {RELOAD}"
    both = f"aggregator.crt and aggregator.key {mine}; then crl.pem {brokers}"
    parts: list[tuple[bool, Callable[[Path], None], str]] = [
        (options.aggregator, enrolment.renew_aggregator, both),
        (options.signer, enrolment.renew_signer, f"signer.key and signer.json {mine}"),
        (options.broker, enrolment.renew_broker, f"server.crt and server.key {brokers}"),
        (options.crl, enrolment.renew_revocations, f"crl.pem {brokers}"),
    ]
    for wanted, work, files in parts:
        if wanted:
            work(where)
            say(f"to be copied: {files}")
    return 0


def _epoch_options(parser: argparse.ArgumentParser) -> None:
    """Begin the next epoch of the aggregator, for a new run or a restored backup, or of the helpers that are named.

    In one epoch of the aggregator's signing key there is one run: devices refuse a second one, and a model that is
    older than one they have seen in it. A helper that is named gets new keys, in a bundle that is unpacked over its old
    files. It needs them when its state was restored from a backup, or was lost.
    """
    parser.add_argument("names", nargs="*", metavar="NAME", help="helpers, as in helper-north; none: the aggregator")


def _epoch(options: argparse.Namespace) -> int:
    from ..keys import enrolment

    if options.names:
        for path in enrolment.next_helper_epoch(options.dir, options.names):
            say(f"{path}: unpack it over the old files")
            say(f"for the aggregator's machine: {options.dir / 'aggregator' / path.stem}.json")
        return 0
    epoch = enrolment.next_epoch(options.dir)
    say(f"epoch {epoch}; for the aggregator's machine: {options.dir / 'aggregator' / 'signer.json'}")
    return 0


def _list_options(parser: argparse.ArgumentParser) -> None:
    """List every enrolled name with its expiry date, and warn of what expires within 60 days."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _list(options: argparse.Namespace) -> int:
    from ..keys.report import report

    found = report(options.dir)
    if options.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _print(found)
    return 0


def _print(found: Report) -> None:
    from ..keys.report import date

    say(f"federation {found.federation}, broker {found.broker}, epoch {found.epoch}, roster {found.roster}")
    for what, end in found.ends.items():
        say(f"  {what:<12} until {date(end)}")
    for row in found.members:
        notes = f"  at most {plural(row.max_examples, 'example')}" if row.max_examples else ""
        notes += f"  run by {row.operator}" if row.operator else ""
        say(f"{row.name:<24} {row.role:<7} {row.state:<10} until {date(row.ends)}{notes}{'  canary' * row.canary}")
    _tell_warnings(found)


def _tell_warnings(found: Report) -> None:
    for warning in found.warnings:
        say(f"warning: {warning}")


COMMANDS: dict[str, tuple[Callable[[Any], None], Callable[[argparse.Namespace], int]]] = {
    "init": (_init_options, _init),
    "add": (_add_options, _add),
    "revoke": (_revoke_options, _revoke),
    "renew": (_renew_options, _renew),
    "epoch": (_epoch_options, _epoch),
    "list": (_list_options, _list),
    "batch": (batches.add_batch_options, batches.batch),
    "claims": (batches.add_claims_options, batches.claims),
    "approve": (batches.add_approve_options, batches.approve),
}
