"""A federation whose devices have slow links of their own: real processes, a real broker, proxies with a rate.

`run` measures how long the first rounds take from a cold start and how many bytes pass, beside what would be ideal:
each message that is needed passes once, at the link's rate, one direction after the other.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from brokers import Mosquitto, eventually
from proxy import Bad, Proxy

from edgefl.data import Dataset
from edgefl.history_record import RoundRecord
from edgefl.onnx import zoo
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet
from edgefl.transports.mqtt import LinkEvent, Message, MqttLink, Up

DEVICES = 2
PACKET_S = 0.5  # a packet may take on the link: of longer ones, TCP's needless retransmissions would be measured
QUEUE = 64 * 1024  # bytes that wait for a token bucket at most; of a shorter queue, TCP's losses would be measured
BUFFER = 2048  # of the proxy: more would hide from both ends how slow the link is
SLACK, START_S = 1.3, 3.0  # time may be so many times the ideal, and so much longer
MORE_BYTES = 1.1  # bytes may be so many times the ideal
CLASSES, FEATURES = 10, 64


class Link(Protocol):
    """A device's link. `command` runs the device's program on it; `proxy` counts."""

    proxy: Proxy
    command: tuple[str, ...]

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class Row:
    """What one federation showed. `ideal_bytes` and `bytes` are those of the device with the most."""

    kbit_s: float
    codec: str
    model_bytes: int
    rounds: int
    seconds: float
    ideal_s: float
    bytes: int
    ideal_bytes: int
    connections: int

    @property
    def in_time(self) -> bool:
        return self.seconds <= SLACK * self.ideal_s + START_S

    @property
    def in_bytes(self) -> bool:
        return self.bytes <= MORE_BYTES * self.ideal_bytes

    def __str__(self) -> str:
        marks = ("" if self.in_time else " TIME") + ("" if self.in_bytes else " BYTES")
        return (
            f"{self.kbit_s:5.1f} kbit/s {self.codec:5} {self.model_bytes / 1e3:4.0f} kB, {self.rounds} rounds "
            f"{self.seconds:5.1f} of {self.ideal_s:5.1f} s, {self.bytes / 1e3:6.1f} of {self.ideal_bytes / 1e3:6.1f} kB"
            f", {self.connections} connections{marks}"
        )


class Witness:
    """Hears at the broker, where links are fast, each message of a federation, and knows which of them are needed."""

    def __init__(self, url: str, federation: str) -> None:
        self._topics = Topics(federation)
        self._heard: dict[tuple[str, bytes], int] = {}
        self._rounds: dict[int, Round] = {}
        self._link = MqttLink(
            url, "witness", on_event=self._take, rng=random.Random(0), session_expiry_s=0, backoff_cap_s=0.3
        )

    def _take(self, event: LinkEvent) -> None:
        topics = self._topics
        if isinstance(event, Up):
            self._link.subscribe([topics.manifest, topics.round, f"{topics.base}/d/#"])
        elif isinstance(event, Message) and event.payload:
            if event.topic == topics.round:
                round = decode(Round, event.payload, RETAINED_LIMIT)
                self._rounds.setdefault(round.round if round.state == "open" else 0, round)
            if "/inbox" not in event.topic or b'"receipt"' in event.payload:
                self._heard[event.topic, event.payload] = len(event.topic) + len(event.payload)

    @property
    def ready(self) -> bool:
        """Whether the aggregator has announced what is trained."""
        return any(topic == self._topics.manifest for topic, _ in self._heard)

    def needed(self, device: str) -> int:
        """Bytes of topics and payloads: manifest, rounds, statuses, update, receipts, and the model's payloads."""
        ours = (self._topics.manifest, self._topics.round, f"{self._topics.base}/d/{device}/")
        control = sum(size for (topic, _), size in self._heard.items() if topic.startswith(ours))
        models, keyframe = 0, True
        for number in sorted(self._rounds.keys() - {0}):
            frame = self._rounds[number].frames[-1]
            models += frame.keyframe if keyframe or not frame.delta else frame.delta
            keyframe = False
        return control + models

    def __enter__(self) -> Witness:
        self._link.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._link.stop(0.0)


def model_of(num_bytes: int) -> bytes:
    """An MLP of about so many bytes of float32."""
    hidden = round(num_bytes / 4 / (FEATURES + 1 + CLASSES))
    return zoo.mlp([FEATURES, hidden, CLASSES], seed=1).SerializeToString()


def data_of(examples: int) -> Dataset:
    rng = np.random.default_rng(7)
    centres = rng.normal(0, 1, (CLASSES, FEATURES))
    y = rng.integers(0, CLASSES, examples)
    return Dataset((centres[y] + rng.normal(0, 1, (examples, FEATURES))).astype(np.float32), y)


class ByProxy:
    """A device's link whose rate a proxy keeps. It needs no rights, and hides from TCP what its own buffers hold."""

    command: tuple[str, ...] = ()

    def __init__(self, bytes_s: float, port: int) -> None:
        self.proxy = Proxy(port, Bad(rate=bytes_s, buffer=BUFFER))

    def __enter__(self) -> ByProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.proxy.__exit__()


class ByNamespace:
    """A device in a network namespace of its own, whose two ends have a token bucket. A proxy without a rate counts."""

    _numbers = itertools.count()

    def __init__(self, bytes_s: float, port: int) -> None:
        number = next(self._numbers)
        self._name = f"slow-{os.getpid()}-{number}"
        here, there = f"sl{os.getpid() % 100000}-{number}a", f"sl{os.getpid() % 100000}-{number}b"
        net = f"10.{200 + number // 60 % 50}.{os.getpid() % 250}.{4 * (number % 60)}"
        address = net.rpartition(".")[0] + f".{4 * (number % 60) + 1}"
        other = net.rpartition(".")[0] + f".{4 * (number % 60) + 2}"
        inside = ("ip", "netns", "exec", self._name)
        mtu = f"{max(576, min(1500, PACKET_S * bytes_s)):.0f}"  # short where links are slow, as RFC 3150 advises
        rate = ("root", "tbf", "rate", f"{8 * bytes_s:.0f}bit", "burst", "1600", "limit", str(QUEUE))
        ip("netns", "add", self._name)
        try:
            ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
            ip("addr", "add", f"{address}/30", "dev", here)
            ip("link", "set", here, "mtu", mtu, "up")
            ip("-n", self._name, "addr", "add", f"{other}/30", "dev", there)
            ip("-n", self._name, "link", "set", there, "mtu", mtu, "up")
            ip("-n", self._name, "link", "set", "lo", "up")
            call("tc", "qdisc", "add", "dev", here, *rate)
            call(*inside, "tc", "qdisc", "add", "dev", there, *rate)
            self.command = inside
            self.proxy = Proxy(port, host=address)
        except BaseException:
            ip("netns", "del", self._name)
            raise

    def __enter__(self) -> ByNamespace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.proxy.__exit__()
        ip("netns", "del", self._name)  # and with it both ends of the link


def call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def ip(*words: str) -> None:
    call("ip", *words)


def namespaces_work() -> bool:
    """Whether this user and this kernel can make a namespace with a token bucket."""
    try:
        with ByNamespace(1e6, 1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class SlowFleet(ProcessFleet):
    """Agents with a link of their own each."""

    def __init__(self, folder: Path, url: str, links: Sequence[Link], model: bytes, **tables: Any) -> None:
        data = data_of(100 * len(links))
        parts = list(np.split(np.arange(len(data.y_train)), len(links)))
        super().__init__(folder, url, model, data, parts, settings=tables)
        self._links = dict(zip(self.devices, links, strict=True))
        for device, link in self._links.items():
            path = folder / device / "agent.toml"
            path.write_text(path.read_text().replace(url, link.proxy.url))

    def _command(self, name: str) -> list[str]:
        link = self._links.get(name)
        return [*(link.command if link else ()), *super()._command(name)]


def run(
    folder: Path,
    kbit_s: float,
    codec: str,
    num_bytes: int,
    *,
    rounds: int = 1,
    make_link: Callable[[float, int], Link] = ByProxy,
    patience_s: float = 1800.0,
    deadline_s: float | None = 3600.0,
) -> tuple[Row, list[RoundRecord]]:
    """Run so many rounds from a cold start; `deadline_s` None: the default one."""
    bytes_s = kbit_s * 1000 / 8
    settings: dict[str, Any] = {"rounds": rounds, "min_reports": DEVICES, "expect": DEVICES, "interval_s": 0.0}
    if deadline_s is not None:
        settings["deadline_s"] = deadline_s
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto())
        links = [stack.enter_context(make_link(bytes_s, broker.port)) for _ in range(DEVICES)]
        fleet = SlowFleet(folder, broker.url, links, model_of(num_bytes), rounds=settings, codec={"name": codec})
        witness = stack.enter_context(Witness(broker.url, fleet.federation))
        seen = [link.proxy.seen for link in links]
        stack.callback(fleet.__exit__)
        fleet.start(AGGREGATOR)
        eventually(lambda: witness.ready, 60.0)
        for device in fleet.devices:
            fleet.start(device)
        eventually(lambda: all(counts["connections"] for counts in seen), 60.0)
        began = time.monotonic()
        eventually(lambda: len(fleet.records()) == rounds, patience_s)
        seconds = time.monotonic() - began
        passed = [counts["up"] + counts["down"] for counts in seen]
        needed = [witness.needed(device) for device in fleet.devices]
        worst = max(range(DEVICES), key=lambda i: passed[i] / needed[i])
        row = Row(
            kbit_s, codec, num_bytes, rounds, seconds, max(needed) / bytes_s, passed[worst], needed[worst],
            max(counts["connections"] for counts in seen),
        )  # fmt: skip
        return row, fleet.records()
