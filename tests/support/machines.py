"""The two state machines by hand: a tiny plan, its manifest, and the messages that each side would get."""

from __future__ import annotations

import random

import numpy as np

from edgefl import codecs, strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import Commit, Evaluate, Evaluated, SaveAttempt
from edgefl.coordinator.model.downlink import Downlink
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.core.plan import Node, Param, Plan
from edgefl.device.events import StartTraining, Trained
from edgefl.device.session import DeviceSession
from edgefl.machine import Connected, Publish, Received, Subscribe, Tick
from edgefl.protocol.envelope import Envelope, Kind, federation_hash
from edgefl.protocol.inbox import Inbox, Receipt
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import Status, decode, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import RoundSettings, TrainSettings

FEDERATION = "tiny"
TOPICS = Topics(FEDERATION)
PLAN = Plan([99], [Node("dense", [0], [0, 1])], [Param("w", [99, 10]), Param("b", [10])], "cross_entropy", 1, 1)
P = PLAN.num_params  # 1000: a model of 16 parts of 256 bytes
RUN = "0" * 16
HASH = federation_hash(FEDERATION, RUN, PLAN.hash)
PARAMS = np.linspace(-1, 1, P, dtype=np.float32)


def make_manifest(**changes) -> Manifest:
    settings = {"run": RUN, "plan": PLAN, "train": TrainSettings(), "part_bytes": 256} | changes
    return Manifest(FEDERATION, **settings)


MANIFEST = make_manifest()


def make_model(version=0, params=PARAMS, manifest=MANIFEST) -> Downlink:
    return Downlink(manifest, params, version)


def publish_model(version=0, params=PARAMS, manifest=MANIFEST) -> list[Publish]:
    return RetainedModel(TOPICS, manifest, HASH).put(make_model(version, params, manifest).payloads)


def make_round(
    round=1, version=0, attempt=1, *, params=PARAMS, manifest=MANIFEST, state="open", cohort=None, **changes
):
    model = make_model(version, params, manifest)
    message = {"model_sha256": model.sha256, "frames": model.frames, "deadline_s": 60.0, "cohort": cohort} | changes
    return Round(manifest.id, state, round, attempt, version, **message)


def make_session(device="a", outbox=None, **options) -> DeviceSession:
    options = {"rng": random.Random(0), "num_examples": 5, **options}
    return DeviceSession(device, FEDERATION, outbox=outbox, **options)


def make_coordinator(*, strategy="fedavg", params=PARAMS, manifest=MANIFEST, seed=0, start=None, **config):
    """A coordinator that is not connected; `start` sets round, version and attempt."""
    return RoundCoordinator(
        manifest,
        RoundSettings(**{"deadline_s": 60.0, "min_reports": 1} | config),
        strategies.get(strategy),
        params,
        rng=random.Random(seed),
        **(start or {}),
    )


def received(topic: str, message) -> Received:
    """`message` (a struct, or bytes) as it comes from `topic`."""
    return Received(topic, message if isinstance(message, bytes) else encode(message))


def status(device: str, state="ready", boot=1) -> Received:
    return received(TOPICS.status(device), Status(state, boot, 5))


def make_update(delta=None, *, num_examples=5, steps=1, loss=0.5, codec="raw32") -> bytes:
    """Header and encoded (P,) delta, the global params' tenth by default."""
    delta = PARAMS / 10 if delta is None else np.broadcast_to(np.float32(delta), (P,))
    return UpdateHeader(num_examples, steps, loss, 10, 100).to_bytes() + codecs.get(codec).encode(delta)


def update_parts(device="a", blob=None, *, round=1, version=0, part_bytes=2048, codec=1, federation=HASH):
    """The messages that bring one update to the coordinator: two of 2048 bytes by default."""
    blob = make_update() if blob is None else blob
    splitter = Splitter(
        blob, part_bytes, kind=Kind.UPDATE, codec=codec, federation=federation, round=round, version=version
    )
    return [Received(TOPICS.update(device, round, i), splitter.part(i)) for i in range(splitter.parts)]


def of(actions, kind, topic=None) -> list:
    """The actions of one class, and of one topic if it is given."""
    return [a for a in actions if isinstance(a, kind) and (topic is None or a.topic == topic)]


def last(actions, kind, topic: str):
    """The newest message on `topic` among `actions`, decoded; None if there is none."""
    found = of(actions, Publish, topic)
    return decode(kind, found[-1].payload, 2**16) if found else None


def feed(machine, *events, now=0.0, accuracy=None) -> list:
    """Step through `events` as a host would, answering every Evaluate with `accuracy`, and a coordinator's claim with
    its echo; all actions in order, without those of the fence."""
    out = []
    for event in events:
        for action in machine.step(event, now):
            if isinstance(action, Publish) and action.topic == TOPICS.aggregator:
                out += [] if action.retain else feed(machine, received(action.topic, action.payload), now=now)
                continue
            if action == Subscribe((TOPICS.aggregator,)) or isinstance(action, SaveAttempt):
                continue
            out.append(action)
            if isinstance(action, Evaluate):
                out += feed(machine, Evaluated(accuracy=accuracy), now=now, accuracy=accuracy)
    return out


def open_round(*devices: str, now=0.0, **options) -> RoundCoordinator:
    """A connected coordinator in round 1, with these devices present; it waits for all of them by default."""
    coordinator = make_coordinator(**{"min_reports": len(devices)} | options)
    feed(coordinator, *map(status, devices), Connected(), now=now)
    assert coordinator.snapshot().phase == "open"
    return coordinator


def commit_of(actions) -> Commit | None:
    """The one commit among `actions`, or None."""
    commits = of(actions, Commit)
    assert len(commits) <= 1
    return commits[0] if commits else None


def blob_of(publishes: list[Publish]) -> bytes:
    """What the parts in `publishes` say together."""
    envelopes = {e.part: e for e in (Envelope.from_bytes(p.payload) for p in publishes)}
    return b"".join(envelopes[i].data for i in range(len(envelopes)))


# A session, step by step

STATUS, INBOX = TOPICS.status("a"), TOPICS.inbox("a")
BLOB = make_update()


def model_parts(version=0, params=PARAMS):
    return [Received(p.topic, p.payload) for p in publish_model(version, params)]


def give(session, message, now=0.0):
    """The aggregator's manifest or round."""
    topic = TOPICS.manifest if type(message) is type(MANIFEST) else TOPICS.round
    return feed(session, received(topic, message), now=now)


def serve(session, actions, parts=None, now=0.0):
    """Answer model subscriptions from what is retained until nothing more is asked; all actions in order."""
    retained = {p.topic: p for p in parts or model_parts()}
    out, waiting = list(actions), list(actions)
    while waiting:
        action = waiting.pop(0)
        for topic in action.topics if isinstance(action, Subscribe) else ():
            if topic in retained:
                more = feed(session, retained[topic], now=now)
                out, waiting = out + more, waiting + more
    return out


def fetching(manifest=MANIFEST, round=None, **options) -> tuple[DeviceSession, list]:
    """A session that has asked for round 1's model, and what it did so far."""
    session = make_session(**options)
    out = feed(session, Connected(boot=7)) + give(session, manifest)
    return session, out + give(session, round or make_round(manifest=manifest))


def training(**options):
    """A session that trains round 1, and its job."""
    session, out = fetching(**options)
    (start,) = of(serve(session, out), StartTraining)
    return session, start.job


def reporting(now=0.0, blob=BLOB, residual=None, connected=None, **options):
    """A session that has just reported to round 1, and what it sent."""
    session, job = training(**options)
    if connected:
        feed(session, connected)
    return session, feed(session, Trained(job, blob, {"residual": residual} if residual else {}), now=now)


def updates(actions) -> list[Publish]:
    return [a for a in of(actions, Publish) if "/u/" in a.topic]


def receipt(outcome="counted", round=1, attempt=1, reason=""):
    return received(INBOX, Receipt(round, attempt, outcome, reason))


# A coordinator, step by step


def word_to(actions, device):
    """The newest Receipt or Missing to `device`, or None."""
    return last(actions, Inbox, TOPICS.inbox(device))


def round_in(actions) -> Round | None:
    return last(actions, Round, TOPICS.round)


def report(coordinator, device, now=1.0, accuracy=None, **update):
    """One device's whole update; what the coordinator does."""
    return feed(coordinator, *update_parts(device, **update), now=now, accuracy=accuracy)


def run_out(coordinator, accuracy=None) -> list:
    """Nothing more comes, until the round is over: all actions, in order."""
    number, out = coordinator.round, []
    while coordinator.round == number:
        out += feed(coordinator, Tick(), now=coordinator.wake_at, accuracy=accuracy)
    return out


def accumulator_of(coordinator) -> bytes:
    return coordinator.strategy.combine.accumulator.to_bytes()
