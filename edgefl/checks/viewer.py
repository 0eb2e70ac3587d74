"""`edgefl doctor` with a viewer.toml: whether `edgefl status` can read the federation from here."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from ..hosting import own_certificate
from ..protocol.topics import VIEWER, Topics
from ..viewer.config import ViewerConfig, load
from ..viewer.picture import Picture, read_root
from ..viewer.words import ago
from . import broker, daemon, machine
from .broker import Visit
from .probe import Probe
from .report import Finding, ok, parted, problem, skipped, warning

PACKAGES = ("numpy", "paho-mqtt", "msgspec")


class Viewer:
    """What the checks look at. A viewer has no folder of its own, and is no daemon."""

    state_dir: Path | None = None
    running = False

    def __init__(self, config: ViewerConfig) -> None:
        self.config = config
        self.topics = Topics(config.federation, config.mqtt.root)
        self.packages = (*PACKAGES, "pynacl") if config.keys.dir is not None else PACKAGES

    @property
    def part_bytes(self) -> int:
        return self.config.mqtt.limits.part_bytes

    @cached_property
    def visit(self) -> Visit:
        """What one visit to the broker has shown, under an id of its own as `edgefl status` has."""
        return broker.go(self.config.mqtt, f"{VIEWER}{secrets.token_hex(6)}", running="", ask=self._ask)

    def _ask(self, probe: Probe) -> None:
        topics = self.topics
        probe.subscribe(topics.summary, topics.aggregator, topics.manifest)
        probe.wait(lambda: topics.summary in probe.messages or bool(probe.denied), broker.WAIT_S)

    @cached_property
    def picture(self) -> Picture:
        """What the messages of the visit say."""
        topics, said = self.topics, self.visit.messages
        found = Picture(self.config.federation, topics, read_root(self.config.keys.dir), wants_rows=False)
        for topic in (topics.manifest, topics.aggregator, topics.summary):
            if topic in said:
                found.hear(topic, said[topic].payload)
        return found


def keys(viewer: Viewer) -> Finding:
    """The root by whose word the aggregator is believed."""
    if read_root(viewer.config.keys.dir) is None:
        return skipped("without [keys] what the broker keeps is not verified")
    return ok(f"{viewer.config.keys.dir}: root can be used")


def certificate(viewer: Viewer) -> Finding:
    """The TLS certificate: its issuer, and when it expires."""
    tls, name = viewer.config.mqtt.tls, None
    if viewer.config.keys.dir is not None and tls is not None and tls.cert is not None:
        name = own_certificate.read(tls, anchor=tls.ca).name
        if not name.startswith(VIEWER):
            text = f"{tls.cert} is the certificate of {name!r}, which is no viewer"
            return problem(text, "unpack what `edgefl keys add DIR NAME --viewer` has made")
    return daemon.certificate(viewer.config.mqtt, name, "this viewer's")


def access(viewer: Viewer) -> Iterator[Finding]:
    """Whether the broker lets this client read what the aggregator keeps for viewers."""
    visit, topic = viewer.visit, viewer.topics.summary
    if not visit.is_in:
        yield skipped("the broker was not asked")
        return
    for denied in visit.denied:
        yield problem(*parted(denied))
    if topic in visit.messages:
        yield ok(f"reads {topic}")
    elif not visit.denied:
        yield skipped(f"nothing is on {topic}, or the broker hides it")


def federation(viewer: Viewer) -> Finding:
    """What the aggregator says of the federation."""
    if not viewer.visit.is_in:
        return skipped("the broker was not asked")
    picture, topics, now = viewer.picture, viewer.topics, time.time()
    summary = picture.summary
    if picture.why_not:
        return problem(picture.why_not, "compare root.pub in [keys] dir with the federation's")
    if summary is None and (picture.claim is not None or picture.has_manifest):
        todo = f"let this client read {topics.summary} in the broker's ACL: bring the newest acl there"
        return problem(f"an aggregator has {topics.base}, and no summary of it has come", todo)
    if summary is None:
        todo = "start the aggregator, or check the federation's name and [mqtt] root"
        return problem(f"nothing of {topics.base} is on the broker", todo)
    text = f"round {summary.round}, model version {summary.version}, {summary.total} enrolled or seen devices"
    if picture.is_stale(now):
        return warning(f"{text}; told {ago(summary.at, now)} ago", "look whether the aggregator runs")
    return ok(text)


CHECKS = {
    **{name: machine.CHECKS[name] for name in ("versions", "clock")},  # a viewer trains nothing and keeps nothing
    "keys": keys,
    "certificate": certificate,
    "broker": broker.reached,
    "mqtt": broker.mqtt,
    "access": access,
    "federation": federation,
}


def main(path: str, sets: Sequence[str], *, as_json: bool) -> int:
    """Check, and print what was found; the exit code."""
    read = functools.partial(load, Path(path), sets)
    return machine.check("viewer", path, lambda: Viewer(read()), CHECKS, PACKAGES, as_json=as_json)
