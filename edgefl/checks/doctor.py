"""`edgefl doctor` without a configuration: the machine, and a broker."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from ..transports.settings import MqttConfig
from . import broker, machine
from .broker import SCRATCH, Visit
from .report import Finding, Report, Table, run, show, skipped

PACKAGES = ("numpy", "paho-mqtt", "msgspec")


class Machine:
    """A machine, and a broker if `mqtt` is not None."""

    state_dir: Path | None = None
    packages = PACKAGES

    def __init__(self, mqtt: MqttConfig | None) -> None:
        self.mqtt = mqtt

    @property
    def part_bytes(self) -> int:
        assert self.mqtt is not None
        return self.mqtt.limits.part_bytes

    @cached_property
    def visit(self) -> Visit:
        """A visit under an id of its own; with a certificate or user name only to the door, since a daemon that the
        broker knows by it may run anywhere."""
        assert self.mqtt is not None
        ask = lambda probe: broker.retained_round_trip(probe, SCRATCH)  # noqa: E731
        return broker.go(self.mqtt, "", running="perhaps a daemon with this name", ask=ask)


def access(subject: Machine) -> Finding:
    """A round trip of a retained message."""
    if not subject.visit.is_in:
        return skipped("the broker was not asked")
    return broker.retains(subject.visit, SCRATCH, "a scratch topic")


BROKER: Table[Machine] = {"broker": broker.reached, "mqtt": broker.mqtt, "access": access}


def look(url: str | None, tls: tuple[str | None, ...], username: str | None, *, as_json: bool) -> int:
    """Check and print; returns the exit code. UsageError."""
    mqtt = None if url is None else MqttConfig(url, ca=tls[0], cert=tls[1], key=tls[2], username=username)
    subject = Machine(mqtt)
    lines = run(machine.CHECKS, subject)
    if mqtt is not None:
        lines += run(BROKER, subject)
    return show(Report(of="machine", checks=lines), as_json=as_json)
