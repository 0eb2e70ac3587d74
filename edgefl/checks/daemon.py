"""What the checks of all daemons ask first: does one run here, and is its TLS certificate its own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import StoreError
from ..hosting import own_certificate
from ..hosting.store import is_claimed
from ..transports.settings import MqttConfig
from .report import Finding, ok, parted, skipped, warning


class Daemon(Protocol):
    """What these checks need to know of their subject. `locked` says why it is not known whether it runs."""

    running: bool
    locked: str

    @property
    def state_dir(self) -> Path: ...


def claimed(state_dir: Path) -> tuple[bool, str]:
    """Whether a daemon runs with this folder; if that can't be told, true, and why."""
    try:
        return is_claimed(state_dir), ""
    except StoreError as error:
        return True, str(error)


def runs(subject: Daemon) -> Finding:
    """Whether a daemon runs with this configuration."""
    if subject.locked:
        return warning(*parted(subject.locked))
    return ok(f"it {'runs' if subject.running else 'does not run'} with {subject.state_dir}")


def certificate(mqtt: MqttConfig, name: str | None, whose: str) -> Finding:
    """The TLS certificate: its name, its issuer, and when it expires. `name` is as in own_certificate.check."""
    if mqtt.tls is None or mqtt.tls.cert is None:
        return skipped("none is set: the broker knows this client otherwise")
    if text := own_certificate.check(mqtt.tls, name):
        return warning(*parted(text))
    return ok(f"{mqtt.tls.cert} is {whose}, and holds")
