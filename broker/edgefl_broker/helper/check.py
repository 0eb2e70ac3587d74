"""`edgefl-helper --check`: whether this helper can be run from here, without running it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from edgefl.checks import broker, daemon, machine
from edgefl.checks.broker import Visit
from edgefl.checks.probe import Probe
from edgefl.checks.report import Finding, Table, ok, parted, problem, skipped, warning
from edgefl.errors import UsageError
from edgefl.plural import plural
from edgefl.privacy import accountant
from edgefl.protocol.topics import Topics
from edgefl.settings import files

from .config import HelperConfig
from .keys import KeyFolder

PACKAGES = ("numpy", "paho-mqtt", "msgspec", "pynacl")


class Subject:
    """What the checks look at. What takes time is found once, when it is first asked for."""

    packages = PACKAGES

    def __init__(self, config: HelperConfig) -> None:
        self.config, self.state_dir = config, Path(config.state_dir)
        self.topics = Topics(config.federation, config.mqtt.root)
        self.running, self.locked = daemon.claimed(self.state_dir)

    @property
    def part_bytes(self) -> int:
        return self.config.mqtt.limits.part_bytes

    @cached_property
    def visit(self) -> Visit:
        """What one visit to the broker has shown."""
        running = "the helper" if self.running else ""
        return broker.go(self.config.mqtt, self.config.user, running=running, ask=self._ask)

    def _ask(self, probe: Probe) -> None:
        probe.subscribe(self.topics.any_ask(self.config.name))
        probe.wait(lambda: bool(probe.denied), 1.0)


def least(subject: Subject) -> Finding:
    """What the owner has pinned."""
    found = subject.config.least
    if found.noise:
        try:
            accountant.load()
        except UsageError as error:
            return problem(*parted(str(error)))
    text = f"sums of {found.devices} devices or more, weights up to {found.weight}"
    return ok(f"{text}, {f'noise of {found.noise:g} and more' if found.noise else 'also without noise'}")


def keys(subject: Subject) -> Finding:
    """Our keys, what the root says of them, and the roster."""
    folder = KeyFolder(subject.config, lambda name, serial: serial)
    enrolled = len(folder.roster.enrolled)
    text = f"epoch {folder.keys.epoch}, roster {folder.roster.serial} with {plural(enrolled, 'device')}"
    if enrolled < subject.config.least.devices:
        return warning(f"{text}: fewer than [least] devices", "copy the operator's newest roster.json here")
    return ok(text)


def certificate(subject: Subject) -> Finding:
    """The TLS certificate: its name, its issuer, and when it expires."""
    return daemon.certificate(subject.config.mqtt, subject.config.user, "this helper's")


def access(subject: Subject) -> Iterator[Finding]:
    """Whether the broker lets this client read what it is asked."""
    if not subject.visit.is_in:
        yield skipped("the broker was not asked")
        return
    for denied in subject.visit.denied:
        yield problem(*parted(denied))
    if not subject.visit.denied:
        yield ok(f"the broker takes a subscription to {subject.topics.any_ask(subject.config.name)}")


CHECKS: Table[Subject] = {
    **machine.CHECKS,
    "helper": daemon.runs,
    "least": least,
    "keys": keys,
    "certificate": certificate,
    "broker": broker.reached,
    "mqtt": broker.mqtt,
    "access": access,
}


def main(path: str, sets: list[str], *, as_json: bool) -> int:
    """Check, and print what was found; the exit code."""
    read = functools.partial(files.load, path, HelperConfig, sets)
    return machine.check("helper", path, lambda: Subject(read()), CHECKS, PACKAGES, as_json=as_json)
