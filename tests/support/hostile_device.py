"""A device that means ill, with a valid certificate and a valid signing key: `hostile_device.py ATTACK FOLDER`.

FOLDER is an unpacked bundle. Half of the attacks are a real agent whose training lies: what it sends is signed and
whole. The others are MQTT clients that publish what they like, and say that the device is there.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from edgefl_agent import __main__ as agent
from edgefl_agent.config import AgentConfig
from guarded import RawClient

from edgefl.core.params import params_from_bytes
from edgefl.device import training
from edgefl.protocol.envelope import Kind, federation_hash
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import RETAINED_LIMIT, Status, decode, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import files
from edgefl.transports.mqtt import MqttLink, TlsConfig
from edgefl.trust.seal import read_seal

RNG = np.random.default_rng(5)
PART = 64 * 1024
VICTIM = "pi-1"
Lies = Callable[[training.TrainJob, np.ndarray], np.ndarray]

# ---- an agent whose training lies


def start(folder: Path) -> int:
    """A real agent."""
    return agent.main(["--config", str(folder / "agent.toml"), "--set", f"state_dir={folder / 'state'}"])


def agent_that(
    lies: Callable[[training.TrainJob, np.ndarray], np.ndarray], examples: int = 0
) -> Callable[[Path], None]:
    """An agent that sends lies(job, its honest delta) (P,), and claims so many examples, unless 0."""
    honest = training._train

    def train(trainer: Any, job: Any, *rest: Any, **options: Any) -> Any:
        learned = honest(trainer, job, *rest, **options)
        return learned._replace(delta=lies(job, learned.delta).astype(np.float32))

    def header(num_examples: int, *rest: Any, **fields: Any) -> UpdateHeader:
        return UpdateHeader(examples or num_examples, *rest, **fields)

    def run(folder: Path) -> None:
        training._train = train
        training.UpdateHeader = header  # type: ignore[assignment, misc]
        sys.exit(start(folder))

    return run


def jitter(_job: training.TrainJob, delta: np.ndarray) -> np.ndarray:
    return RNG.uniform(-0.49, 0.49, len(delta))


def noise(_job: training.TrainJob, delta: np.ndarray) -> np.ndarray:
    return RNG.normal(0, 3, len(delta))


class Reversal:
    """-3 times the step that the model made since the round before."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def __call__(self, job: training.TrainJob, delta: np.ndarray) -> np.ndarray:
        params = params_from_bytes(job.params)
        step = delta if self._before is None else params - self._before
        self._before = params
        return -3 * step


def adaptive(_job: training.TrainJob, delta: np.ndarray) -> np.ndarray:
    """Against the honest direction, and as long as the bound allows: an honest device knows about how long all are."""
    from edgefl.settings.defences import INFLUENCE

    return -INFLUENCE * delta


def replaying(folder: Path) -> None:
    """An agent that sends its last five parts again with each one, on their own topics and on the new one's."""
    publish, sent = MqttLink.publish, []

    def again(self: MqttLink, topic: str, payload: bytes, **options: Any) -> Any:
        token = publish(self, topic, payload, **options)
        if "/u/" in topic:
            for old_topic, old in sent[-5:]:
                publish(self, old_topic, old)
                publish(self, topic, old)
            sent.append((topic, payload))
        return token

    MqttLink.publish = again  # type: ignore[method-assign]
    sys.exit(start(folder))


# ---- a client that publishes what it likes


class Client:
    """The device's own connection, which is renewed when the broker ends it. `round` and `manifest` are the newest."""

    def __init__(self, folder: Path, client_id: str = "any") -> None:
        self.config = files.load(folder / "agent.toml", AgentConfig)
        self.topics = Topics(self.config.federation)
        self.device, self.boot = self.config.device_id, 1
        self.manifest: Manifest | None = None
        self.round: Round | None = None
        self._client_id, self._folder = client_id, folder
        self._mqtt: RawClient | None = None
        self._seen = 0

    def mqtt(self) -> RawClient:
        if self._mqtt is None or self._mqtt.left.is_set():
            time.sleep(0.2)
            port = int(self.config.mqtt.url.rpartition(":")[2])
            tls = TlsConfig(*(str(self._folder / name) for name in ("ca.crt", "device.crt", "device.key")))
            self._mqtt, self._seen = RawClient(port, tls, client_id=self._client_id), 0
            for topic in (self.topics.manifest, self.topics.round):
                self._mqtt.subscribe(topic)
            self.show()
        return self._mqtt

    def show(self) -> None:
        self.boot += 1
        assert self._mqtt is not None
        self._mqtt.send(self.topics.status(self.device), encode(Status("ready", self.boot, 100)), retain=True)

    def send(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        self.mqtt().send(topic, payload, retain=retain, qos=qos)

    def hear(self) -> bool:
        """Read what has come; whether a round is new."""
        mqtt, before = self.mqtt(), self.round
        for topic, payload, _ in mqtt.messages[self._seen :]:
            self._seen += 1
            if topic == self.topics.manifest:
                self.manifest = decode(Manifest, read_seal(payload).payload, RETAINED_LIMIT)
            elif topic == self.topics.round:
                self.round = decode(Round, read_seal(payload).payload, RETAINED_LIMIT)
        return self.round != before

    def parts(self, blob: bytes, part_bytes: int) -> Splitter:
        """`blob` as an update of the newest round."""
        assert self.manifest is not None and self.round is not None
        plan = self.manifest.plan.hash
        return Splitter(
            blob, part_bytes, kind=Kind.UPDATE, codec=self.manifest.update_codec.wire_id, round=self.round.round,
            federation=federation_hash(self.manifest.federation, self.manifest.run, plan), version=self.round.version,
        )  # fmt: skip


def pace(per_s: float, turn: Callable[[int], None]) -> None:
    """Call `turn` so many times a second, for good; in bursts where the machine is slow."""
    began, count = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * per_s)
        for number in range(count, min(due, count + 1000)):
            turn(number)
        count = due
        time.sleep(0.02)


def flood_retained(folder: Path) -> None:
    """200 messages of 64 KB a second, each retained on a topic of its own."""
    one = Client(folder)
    pace(200, lambda n: one.send(one.topics.update(one.device, n, 0), bytes(PART), retain=True))


def flood_messages(folder: Path) -> None:
    """1,000 messages a second: statuses, parts that are none, and parts of any round."""
    one = Client(folder)
    status, junk = encode(Status("ready", 1, 100)), RNG.bytes(300)

    def turn(n: int) -> None:
        topic = one.topics.status(one.device) if n % 3 == 0 else one.topics.update(one.device, n % 40, n % 7)
        one.send(topic, status if n % 3 == 0 else junk)

    pace(1000, turn)


def flood_noise(folder: Path) -> None:
    """10 MB of noise in statuses and updates, again and again."""
    one = Client(folder)
    pace(40, lambda n: one.send(one.topics.update(one.device, n % 40, n % 16), RNG.bytes(PART)))


def bad_statuses(folder: Path) -> None:
    """500 statuses a second that are none: 25 s of them were 2 MB of log."""
    one = Client(folder)
    pace(500, lambda n: one.send(one.topics.status(one.device), RNG.bytes(200), retain=True))


def stall_by_parts(folder: Path) -> None:
    """The valid first part of each round's update, and no other."""
    one = Client(folder)

    def turn(_n: int) -> None:
        if one.hear() and one.manifest is not None and one.round is not None and one.round.state == "open":
            one.send(one.topics.update(one.device, one.round.round, 0), one.parts(bytes(512), 256).part(0))

    pace(20, turn)


def stall_by_statuses(folder: Path) -> None:
    """Always there, with a new `boot` each half second, and never an update."""
    one = Client(folder)
    one.mqtt()
    pace(2, lambda n: (one.mqtt(), one.show()))


def another_id(folder: Path) -> None:
    """Statuses, parts and receipts in another device's name, and rounds in the aggregator's."""
    one = Client(folder)

    def turn(n: int) -> None:
        one.hear()
        if one.round is None or one.manifest is None:
            return
        part = one.parts(bytes(512), 256).part(0)
        ahead = encode(msgspec.structs.replace(one.round, attempt=2**32 - 1))
        one.send(one.topics.status(VICTIM), encode(Status("lost", 2**52)), retain=True)
        one.send(one.topics.update(VICTIM, one.round.round, 0), part)
        one.send(one.topics.update(one.device, one.round.round, 0), part)
        one.send(one.topics.inbox(VICTIM), b'{"kind":"receipt","round":1,"attempt":1,"outcome":"counted"}')
        one.send(one.topics.round, ahead, retain=True)

    pace(10, turn)


def take_over(folder: Path) -> None:
    """The aggregator's and another device's client id, again and again, beside the device's own connection."""
    config = files.load(folder / "agent.toml", AgentConfig)
    names = ("aggregator", f"agg-{config.federation}", VICTIM, f"edgefl-{VICTIM}")

    def connect(name: str) -> None:
        while True:
            one = Client(folder, name)
            one.mqtt()
            time.sleep(0.5)
            one.mqtt().close()

    for name in names:
        threading.Thread(target=connect, args=(name,), daemon=True).start()
    threading.Event().wait()


ATTACKS: dict[str, Callable[[Path], None]] = {
    "weight": agent_that(jitter, 2**24),
    "noise": agent_that(noise),
    "reversed": agent_that(Reversal()),
    "adaptive": agent_that(adaptive),
    "replays": replaying,
    "another-id": another_id,
    "stall-by-parts": stall_by_parts,
    "stall-by-statuses": stall_by_statuses,
    "retained-flood": flood_retained,
    "messages": flood_messages,
    "noise-flood": flood_noise,
    "bad-statuses": bad_statuses,
    "take-over": take_over,
}

if __name__ == "__main__":
    ATTACKS[sys.argv[1]](Path(sys.argv[2]))
