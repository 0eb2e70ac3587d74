"""What a device, a viewer or a helper is given: NAME.tar, whose files belong into one folder of its own machine.

A device's has its agent.toml, with which the agent can start. Paths in it begin at the folder that it lies in.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any

import msgspec

from ..protocol.enrol import TEMPLATE, TICKET, Ticket
from ..settings.render import dump
from .federation import Federation

MODE = 0o600  # of every file in it


def pack(files: Mapping[str, bytes], now: float) -> bytes:
    """A tar archive of these files, which belong to the user that unpacks it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), MODE, int(now)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def agent_toml(settings: Federation, device: str, source: str, policy: Mapping[str, Any] | None) -> bytes:
    """The agent's configuration; `source` is its data."""
    table = {
        "federation": settings.federation,
        "device_id": device,
        "mqtt": {"url": settings.url, "root": settings.root},
        "keys": {"dir": "."},
        "data": {"source": source},
        "policy": policy,
    }
    note = f"# {device} in the federation {settings.federation}. edgefl-agent --print-config explains every key.\n"
    return (note + dump(table).strip() + "\n").encode()


def viewer_toml(settings: Federation) -> bytes:
    """What `edgefl status --config` reads."""
    table = {
        "federation": settings.federation,
        "mqtt": {"url": settings.url, "root": settings.root},
        "keys": {"dir": "."},
    }
    note = f"# Watches the federation {settings.federation}: edgefl status --config viewer.toml\n"
    return (note + dump(table).strip() + "\n").encode()


def helper_toml(settings: Federation, name: str) -> bytes:
    """The helper's configuration; `name` is what the settings of the aggregator call it."""
    table = {
        "federation": settings.federation,
        "name": name,
        "mqtt": {"url": settings.url, "root": settings.root},
        "keys": {"dir": "."},
    }
    note = f"# Helps the federation {settings.federation}. edgefl-helper --print-config explains every key.\n"
    return (note + dump(table).strip() + "\n").encode()


def image(ticket: Ticket, settings: Federation, source: str, policy: Mapping[str, Any] | None) -> dict[str, bytes]:
    """What a device of a batch needs to ask for its enrolment; in its agent.toml, {name} stands for the device."""
    return {TICKET: msgspec.json.encode(ticket), TEMPLATE: agent_toml(settings, "{name}", source, policy)}


def aggregator_toml(settings: Federation) -> bytes:
    """The aggregator's configuration."""
    table = {
        "federation": settings.federation,
        "model": "start.onnx",
        "mqtt": {"url": settings.url, "root": settings.root},
        "keys": {"dir": "."},
    }
    note = f"# The aggregator of {settings.federation}. edgefl-aggregator --print-config explains every key.\n"
    return (note + dump(table).strip() + "\n").encode()
