"""Planning: what a round of a fleet will cost, before it is built: seconds and joules, computation and communication.

    training of device k   epochs x examples_k x 3 x forward FLOPs / its speed (world.py), or as its profile says
    its link               latency + bytes down / rate down + bytes up / rate up
    a round                lasts until the report that closes it; the expectation is over random cohorts

Bytes are those of real codecs on real deltas (planned_bytes.py). How many rounds a target takes can't be derived from
sizes and speeds: trials.py simulates the rounds, and shows how far the plan is off.

Not in it: hours, batteries and dropouts of devices, waiting between rounds, and faults. A simulation has them all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ... import _core, auto
from ...coordinator.devices.standing import PATIENCE, QUICK_S
from ...core.packed import drawn_x, drawn_y
from ...core.plan import Plan
from ...core.seeds import derived_seed
from ...data import Dataset
from ...device.owner.effort import TRAINING, trained_on
from ...errors import UsageError
from ...federation import make_manifest
from ...onnx.model import Model
from ...protocol.manifest import Manifest
from ...settings import Settings
from ..devices.world import Bodies, World
from ..hosts.device_host import SECONDS_PER_EXAMPLE
from ..hosts.fleet_host import LATENCY_S
from ..split.partitions import Parts
from .planned_bytes import sizes

SAMPLED = 10  # devices that train, for the sizes of messages: what a mean of few looks like depends on how few
COHORTS = 400  # drawn for the expectation of a round's time
MOST_BODIES = 10_000
LATENCIES = 2  # of a round: its message, and the update; one more for each payload of the model
UPDATE_BYTES = 90  # header and envelope
ROUND_BYTES, RECEIPT_BYTES = 260, 60  # a round's message without its frames and a list of devices
NAME_BYTES = 10  # of a device in that list


class Candidate(msgspec.Struct, frozen=True):
    """What is compared."""

    epochs: int
    codec: str


class Fresh(msgspec.Struct, frozen=True):
    """A round in which no device has a model yet."""

    bytes_down: int
    round_s: float
    joules: tuple[float, float]


class Mean(msgspec.Struct, frozen=True):
    """Of some rounds."""

    round_s: float
    bytes_down: float
    joules: tuple[float, float]


class Estimate(msgspec.Struct, frozen=True):
    """A round, for a device that takes part (`flops` to `link_s`: the median device) and for the fleet.

    `link_s` has latencies in it. `late`: the share of the devices that no round waits for, since they take ten times as
    long as the median device, or longer than the deadline. `joules` are those of all devices, as a range; (0, 0):
    nobody has said what they spend. `first`: the first round, in which all devices fetch a whole model; `later`:
    another round, if all did."""

    codec: str
    downlink: str
    flops: float
    bytes_up: int
    bytes_down: int
    train_s: float
    link_s: float
    round_s: float
    late: float
    asked: int
    share: float  # of the rounds, in which a device is asked
    joules: tuple[float, float]
    first: Fresh
    later: Fresh

    def over(self, begin: int, end: int) -> Mean:
        """What the rounds `begin` to `end` cost on average, with the first models that devices fetch: a device that
        round r asks has not been asked before with the probability (1 - share)^(r - 1)."""
        each = [self._round(number) for number in range(begin, end + 1)]
        round_s, bytes_down, low, high = (sum(column) / len(each) for column in zip(*each, strict=True))
        return Mean(round_s, bytes_down, (low, high))

    def _round(self, number: int) -> tuple[float, float, float, float]:
        """Seconds, bytes down of a report, and joules of round `number`, as a range."""
        whole = self.first if number == 1 else self.later
        new = (1 - self.share) ** (number - 1)
        any_new = 1 - (1 - new) ** self.asked
        low, high = (one + new * (other - one) for one, other in zip(self.joules, whole.joules, strict=True))
        return (
            self.round_s + any_new * (whole.round_s - self.round_s),
            self.bytes_down + new * (whole.bytes_down - self.bytes_down), low, high,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ground:
    """What all candidates have in common. `parts` of `dataset` are the devices' examples."""

    model: Model
    settings: Settings
    world: World
    dataset: Dataset
    parts: Parts

    @property
    def flops(self) -> float:
        """Of the forward pass of an example."""
        return float(_core.plan_flops(self.model.plan))

    def settings_of(self, candidate: Candidate) -> Settings:
        """The settings of a candidate's run; "auto" is left to it."""
        return self.settings.replace(
            **{"train.epochs": candidate.epochs, "codec.name": candidate.codec} | _down(candidate)
        )

    def bodies(self) -> Bodies:
        return self.world.bodies(len(self.parts), self.flops, self.settings.train.seed)


def _down(candidate: Candidate) -> dict[str, str]:
    """A lossless codec up goes with one down, or the comparison would be of neither."""
    return {"downlink.name": candidate.codec} if candidate.codec == "raw32" else {}


def estimate(ground: Ground, candidate: Candidate) -> Estimate:
    """A round of this candidate. UsageError for settings that can't be planned."""
    settings = ground.settings_of(candidate)
    if settings.rounds.mode == "async":
        raise UsageError("asynchronous rounds close at their goal: simulate them (edgefl simulate --devices-file)")
    plan = ground.model.plan
    if auto.wanted(settings):
        settings = auto.apply(settings, auto.choose(settings, plan))
    manifest = make_manifest(settings, "plan", "0" * 16, plan)
    if manifest.local_mode == "gradient":
        raise UsageError(
            f"devices of strategy {settings.strategy.name!r} take one gradient a round: there are no epochs"
        )
    asked_share, _ = auto.shares(settings.rounds)
    asked = max(1, min(len(ground.parts), math.ceil(asked_share * len(ground.parts) - 1e-9)))
    found = sizes(manifest, ground.model.params, _sampled(ground, min(asked, SAMPLED)), share=asked_share)
    message = ROUND_BYTES + found.frames + (NAME_BYTES * asked if asked < len(ground.parts) else 0)
    up = found.up + UPDATE_BYTES
    down = round(found.down + RECEIPT_BYTES + message / asked_share)  # all devices hear of every round
    times = _Times(ground, manifest, settings, up, down, latencies=LATENCIES + found.payloads)
    around = down - round(found.down)

    def fresh(model: int) -> Fresh:
        whole = _Times(ground, manifest, settings, up, model + around, latencies=LATENCIES + 1)
        return Fresh(model + around, whole.round_s(asked, settings), whole.joules(asked))

    return Estimate(
        manifest.codec, manifest.downlink, TRAINING * ground.flops * float(np.median(times.trained)),
        up, down, float(np.median(times.train)), float(np.median(times.link)),
        times.round_s(asked, settings), 1 - float(np.mean(times.waited)), asked, asked_share, times.joules(asked),
        fresh(found.first), fresh(found.later),
    )  # fmt: skip


def _sampled(ground: Ground, count: int) -> list[Dataset]:
    """The examples of the devices that have the most usual numbers of them."""
    by_size = sorted(range(len(ground.parts)), key=lambda number: len(ground.parts[number]))
    start = (len(by_size) - count) // 2
    x, y = ground.dataset.x_train, ground.dataset.y_train
    parts = [ground.parts[number] for number in by_size[start : start + count]]
    return [Dataset(x[part], y[part]) for part in parts]


def invented(plan: Plan, devices: int, examples: int) -> tuple[Dataset, Parts]:
    """Random examples that fit a plan, `examples` a device. Devices share those of a few: only their number matters."""
    rng, n = np.random.default_rng(0), examples * min(devices, SAMPLED)
    x, y = drawn_x(plan, rng, n), drawn_y(plan, _core.Net(plan, 1).shapes, rng, n)
    parts = [np.arange(start, start + examples) for start in range(0, n, examples)]
    return Dataset(x, y, name="random examples"), [parts[number % len(parts)] for number in range(devices)]


class _Times:
    """Seconds of each device for a round that it takes part in."""

    def __init__(
        self, ground: Ground, manifest: Manifest, settings: Settings, up: int, down: int, *, latencies: float
    ) -> None:
        self._up, self._down, self._latencies = up, down, latencies
        bodies, count = ground.bodies(), min(len(ground.parts), MOST_BODIES)
        self._bodies = [bodies.body(number) for number in range(count)]
        self.trained = np.array([trained_on(manifest, len(part)) for part in ground.parts[:count]])
        each = [body.seconds_per_example or SECONDS_PER_EXAMPLE for body in self._bodies]
        self.train = self.trained * np.array(each)
        self.link = np.array([self._link(body.up, body.down, body.latency_s) for body in self._bodies])
        self._seed, self._total = settings.train.seed, self.train + self.link
        slow = max(QUICK_S, PATIENCE * float(np.median(self._total)))  # coordinator/devices/standing.py
        self.waited = self._total <= min(slow, settings.rounds.deadline_s)
        if not self.waited.any():
            raise UsageError(f"no device reports within the deadline of {settings.rounds.deadline_s:g} s: raise it")

    def _link(self, up: float | None, down: float | None, latency_s: float | None) -> float:
        seconds = self._latencies * (LATENCY_S if latency_s is None else latency_s)
        return seconds + (self._up / up if up else 0.0) + (self._down / down if down else 0.0)

    def round_s(self, asked: int, settings: Settings) -> float:
        """The expectation over cohorts: until the report that closes it, at most until the deadline."""
        rng, total = random.Random(derived_seed(self._seed, "cohorts")), self._total[self.waited].tolist()
        goal = min(asked, settings.rounds.goal or asked)
        drawn = max(1, min(round(asked * float(np.mean(self.waited))), len(total)))
        rank = max(1, math.ceil(goal / asked * drawn))
        times = [sorted(rng.sample(total, drawn))[rank - 1] for _ in range(COHORTS if drawn < len(total) else 1)]
        return float(np.mean(times))

    def joules(self, asked: int) -> tuple[float, float]:
        spent = [
            body.appetite.of(seconds, self._up, self._down)
            for body, seconds in zip(self._bodies, self.train.tolist(), strict=True)
        ]
        low, high = (asked * float(np.mean([getattr(each, end) for each in spent])) for end in ("low", "high"))
        return low, high


def balance(estimates: Sequence[tuple[Candidate, Estimate]]) -> float | None:
    """The epochs at which a median device trains as long as its link takes: with fewer a round is mostly the link's,
    with more mostly the processor's. From the first of `estimates`; None if training takes no time."""
    candidate, first = estimates[0]
    return None if not first.train_s else first.link_s / (first.train_s / candidate.epochs)
