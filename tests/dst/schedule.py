"""Schedule: what a seed decides beforehand. Weather: what the network is like, from moment to moment."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from edgefl import strategies
from edgefl.coordinator.model.base_payload import with_base
from edgefl.core.plan import Node, Param, Plan
from edgefl.protocol.manifest import Base, Manifest
from edgefl.settings import RoundSettings, TrainSettings
from edgefl.strategies import Strategy
from edgefl.strategies.local import LocalRule
from edgefl.strategies.masked import over

from .lasting import SHORT_DEADLINE_S, Lasting
from .noise import NO_NOISE, Noisy

FEDERATION = "sim"
FAULTS = (
    "cut", "partition", "kill device", "kill aggregator", "kill at an action", "disk error", "broker restart",
    "snapshot", "amnesia", "lose retained", "flip bit on disk", "wipe device", "stop device", "clock jump", "replay",
    "pause", "failed training", "leave", "freeze", "freeze broker",
)  # fmt: skip
OUTPUTS = 4
PART_BYTES = 256  # the protocol's smallest: a model and an update are one to three parts
INTERVALS = (None,) * 6 + (20.0, 150.0)  # between rounds; devices are told of the longer one
LONGEST_S = 20.0  # of a packet: TCP gives up
RULES = {
    "fedavg": {},
    "fedavgm": {"momentum": 0.5},
    "fedadam": {"server_lr": 0.1, "tau": 0.01, "beta1": 0.5, "beta2": 0.9},
}


@dataclass
class Weather:
    """`healed` ends all that a network does wrong, but not its latency."""

    rng: random.Random
    latency_s: float
    tail: float  # probability of a packet that takes very long
    repeated: float  # probability that a message is delivered twice
    damaged: float  # probability that a bit of a delivered tensor is flipped
    late_wills: bool
    max_queued: int
    healed: bool = False
    frozen_until: float = 0.0  # the broker, which does nothing until then

    def latency(self) -> float:
        seconds = self.rng.expovariate(1 / self.latency_s)
        if not self.healed and self.rng.random() < self.tail:
            seconds *= self.rng.uniform(20, 200)
        return min(seconds, LONGEST_S)

    def repeats(self) -> int:
        return 1 if not self.healed and self.rng.random() < self.repeated else 0

    def damages(self) -> bool:
        return not self.healed and self.rng.random() < self.damaged

    def will_delay(self) -> float:
        return self.rng.uniform(0, 60) if self.late_wills and self.rng.random() < 0.5 else 0.0

    def heal(self) -> None:
        self.healed = True
        self.frozen_until = 0.0
        self.latency_s = min(self.latency_s, 0.5)
        self.max_queued = 1000


@dataclass(frozen=True)
class Schedule:
    """`faults` are the kinds that happen, one every `fault_every_s` seconds until `heal_at`."""

    seed: int
    devices: tuple[str, ...]
    late: tuple[str, ...]  # of the devices: those that appear only later
    examples: dict[str, int]
    manifest: Manifest
    config: RoundSettings
    params: np.ndarray  # (P,) float32
    persistent: bool  # clients have MQTT sessions
    earlier_run: bool  # broker and disks hold what an earlier run of the same plan has left
    slow: float  # probability that a training outlasts the deadline
    faults: tuple[str, ...]
    fault_every_s: float
    heal_at: float
    lasting: Lasting
    masked: bool = False  # rounds are (masked.py)
    hostile: str = ""  # the device that seals nonsense in masked rounds
    unlisted: str = ""  # the device that the helper's roster lacks, until it is replaced
    noisy: Noisy = NO_NOISE  # of masked sums

    @classmethod
    def draw(cls, seed: int) -> Schedule:
        rng = random.Random(seed)
        devices = tuple("abcdef"[: rng.randint(3, 6)])
        inputs = rng.choice([2, 6, 15, 30])
        config = msgspec.structs.replace(_draw_config(rng, len(devices)), interval_s=INTERVALS[seed % len(INTERVALS)])
        lasting = Lasting.draw(rng, devices, config)
        if lasting.outlasts_deadline:
            config = msgspec.structs.replace(config, deadline_s=SHORT_DEADLINE_S)
        elif not lasting.heals:  # far above what a round takes without them
            config = msgspec.structs.replace(config, deadline_s=rng.choice([60.0, 120.0, 300.0]))
        return cls(
            seed=seed,
            devices=devices,
            late=tuple(rng.sample(devices, rng.choice([0, 0, 1]))),
            examples={device: rng.randint(1, 20) for device in devices},
            manifest=(drawn := _draw_manifest(rng, inputs)),
            config=config,
            params=_params(drawn.plan, np.array([rng.randint(-64, 64) / 64 for _ in range(OUTPUTS * (inputs + 1))])),
            persistent=rng.random() < 0.75,
            earlier_run=rng.random() < 0.3,
            slow=rng.choice([0.0, 0.05, 0.2]),
            faults=tuple(rng.sample(FAULTS, rng.randint(0, len(FAULTS)))),
            fault_every_s=rng.choice([4.0, 8.0, 15.0]),
            heal_at=rng.uniform(60.0, 480.0),
            lasting=lasting,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "manifest", with_base(self.manifest, self.params)[0])  # as it is announced

    @property
    def round_s(self) -> float:
        """From one opening to the next, at most."""
        return max(self.config.deadline_s, self.config.interval_s or 0.0)

    @property
    def rule(self) -> str:
        """The strategy: half of the schedules have one with state."""
        return ("fedavg", "fedavgm", "fedavg", "fedadam")[self.seed % 4]

    def make_strategy(self) -> Strategy:
        return over(self.manifest.mask, strategies.get(self.rule, **RULES[self.rule]))

    def weather(self, rng: random.Random) -> Weather:
        return Weather(
            rng,
            latency_s=rng.choice([0.02, 0.1, 0.1, 1.0]),
            tail=rng.choice([0.0, 0.01, 0.05]),
            repeated=rng.choice([0.0, 0.02, 0.2]),
            damaged=rng.choice([0.0, 0.0, 0.05]),
            late_wills=rng.random() < 0.5,
            max_queued=rng.choice([3, 20, 1000, 1000]),
        )


def _draw_manifest(rng: random.Random, inputs: int) -> Manifest:
    weights = [Param("w", [inputs, OUTPUTS]), Param("b", [OUTPUTS]), Param("frozen", [inputs, inputs], False)]
    codec, run = rng.choice(["raw32", "ecq"]), rng.getrandbits(64)
    base = run % 2 == 0  # half of the plans have something that no training changes
    if base:
        nodes = [Node("dense", [0], [2]), Node("dense", [1], [0, 1])]
    else:
        nodes = [Node("dense", [0], [0, 1])]
        weights.pop()
    plan = Plan([inputs], nodes, weights, "mse", len(nodes), len(nodes))
    return Manifest(
        FEDERATION,
        f"{run:016x}",
        plan,
        TrainSettings(),
        codec=codec,
        part_bytes=PART_BYTES,
        error_feedback=codec == "ecq" and rng.random() < 0.7,
        downlink=rng.choice(["raw32", "raw32", "ecq"]),
        span=rng.choice([1, 1, 3]),
        holdout=0.2,
        local=LocalRule("ditto") if run % 3 == 0 else None,  # devices have something of their own
        base=Base([2]) if base else None,
        requires=["base"] if base else [],
    )


def _params(plan: Plan, trained: np.ndarray) -> np.ndarray:
    """(P,) float32: what is trained, and what is frozen."""
    frozen = np.random.default_rng(plan.num_params).integers(-64, 65, plan.num_params - len(trained)) / 64
    return np.concatenate([trained, frozen]).astype(np.float32)


def _draw_config(rng: random.Random, devices: int) -> RoundSettings:
    mode: Literal["sync", "async"] = "async" if rng.random() < 0.25 else "sync"
    goal = rng.choice([None, None, devices - 1]) if mode == "sync" else rng.randint(1, devices - 1)
    return RoundSettings(
        deadline_s=rng.choice([20.0, 30.0, 60.0]),
        min_reports=rng.randint(1, goal or devices - 1),
        goal=goal,
        fraction=rng.choice([1.0, 1.0, 1.0, 0.6]),
        over_select=rng.choice([None, None, None, 1.3]) if goal else None,
        cohort=rng.choice(["list", "draw"]),
        mode=mode,
        late=rng.choice(["drop", "drop", "fold"]),
        late_rounds=rng.randint(1, 4),
        expect=rng.choice([0, 0, devices]),
        evaluate_every=rng.choice([None, None, 2, 3]) if mode == "sync" else None,
    )
