"""Wanted: what a federation is made from, checked as far as that is possible without reading anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UsageError
from ..protocol.topics import check_device_id, check_federation
from .complete import as_spec

AUTO = "auto"
DEVICES = ("dev-01", "dev-02")
HERE = ("localhost", "127.0.0.1", "::1")  # a broker on this machine: the federation is tried first
PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Wanted:
    """`model`: a template's name, "auto", or an ONNX file. `split`: deal the rows of the table to the devices.
    `guard`: where the broker's plug-in is; None: where it is usually installed, if it is there."""

    folder: Path
    data: str
    model: str = AUTO
    broker: str = ""
    keys: bool = True
    federation: str = ""
    devices: tuple[str, ...] = DEVICES
    split: bool = False
    guard: str | None = None
    loss: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(f"{self.folder} exists already: name a folder that does not; nothing is overwritten")
        if not self.folder.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {self.folder.absolute().parent}: make it first")
        check_federation(self.name)
        for device in self.devices:
            check_device_id(device)
        if not self.devices or len(set(self.devices)) < len(self.devices):
            raise UsageError(f"devices {','.join(self.devices)!r}: name at least one, each once")
        if self.split and (not as_spec(self.data).startswith("csv:") or "{name}" in self.data):
            raise UsageError("--split deals the rows of one csv: table to the devices: leave it out for other data")
        self._check_url()

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise UsageError(f"broker {self.url!r}: give mqtt://HOST[:PORT], or mqtts://HOST[:PORT] for TLS")
        if "@" in parts.netloc:
            raise UsageError(
                "the broker's URL has a password, which would be in files and in the list of processes: leave it out, "
                "and set username and password_file in [mqtt] of the files that are written"
            )
        if self.keys and parts.scheme != "mqtts":
            raise UsageError(f"keys need TLS: give mqtts:// and not {self.url!r}, or --open for a trial without keys")

    @property
    def name(self) -> str:
        """The federation's: that of the folder, if it was given none."""
        return self.federation or re.sub(r"[^a-z0-9-]+", "-", self.folder.absolute().name.lower()).strip("-")[:48]

    @property
    def url(self) -> str:
        return self.broker or ("mqtts://localhost:8883" if self.keys else "mqtt://localhost:1883")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @property
    def is_here(self) -> bool:
        """Whether the broker is on this machine."""
        return self.host in HERE
