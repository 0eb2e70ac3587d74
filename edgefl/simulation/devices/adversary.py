"""Adversary: simulated devices that collude, and when and how they report (attacks.py has what they send).

Design:
  a) Attackers are devices like all others. They train and report within the round, in the federation's codec, and claim
     as many examples as they have. Only the delta is another one, and it is the same for all of them.
  b) They wait until the honest devices of the round have finished, but for none that takes `PATIENCE` times as long as
     the others, and report at once. Where the round has a goal, they report before it is reached without them. If they
     have seen less than two honest updates by then, they use those of the round before.
  c) A delta is as short as admission wants it (updates/influence.py): an update that is refused does no harm.
  d) A quantizer writes it with a fine step. The step is in the payload, so any device may choose it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from ... import codecs
from ...codecs import Codec
from ...coordinator.coordinator import RoundCoordinator
from ...coordinator.updates.influence import norm_of
from ...core.accumulator import MAX_WEIGHT
from ...core.params import params_from_bytes
from ...core.seeds import derived_seed
from ...device.events import TrainJob
from ...errors import CodecError, UsageError
from ...protocol.round import Round
from ...protocol.update_header import UpdateHeader
from ...registry import options_of
from ...strategies import Site, Strategy, Update
from .attacks import Attack, Known, craft

PATIENCE = 4.0  # times the median training: attackers don't wait longer for an honest device
MARGIN_S = 0.001  # after the last honest device, and before what it sends arrives
FINE = 0.1  # an attacker's quantization step, in root mean squares of its delta
LONGEST = 0.99  # of the longest delta that admission takes: the norm is that of the decoded delta
IN_MEMORY = 2**28  # bytes of honest deltas that are decoded once, not for each trial
MOST = 2.0**21  # n_k |delta| of a coordinate: what accumulators take, with room for the codec


@dataclass
class _Round:
    """What the adversary knows of one round: the honest updates, when each device ends its training, what it sends."""

    seen: dict[str, Update] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    lasts: list[float] = field(default_factory=list)
    began: float = math.inf
    crafted: np.ndarray | None = None


class Adversary:
    """The attackers among `devices`, drawn from `seed`, against `coordinator`."""

    def __init__(self, attack: Attack, devices: list[str], seed: int, coordinator: RoundCoordinator) -> None:
        self.attack = attack
        rng = random.Random(derived_seed(seed, "fault", "attack"))
        self.attackers = frozenset(rng.sample(devices, round(attack.share * len(devices))))
        self._seed, self._coordinator = seed, coordinator
        self._rounds: dict[int, _Round] = {}
        self._classes = 0
        self._strategy: Strategy | None = None
        self._probe: Strategy | None = None

    def prepare(self, labels: np.ndarray, strategy: Strategy, make: Callable[[], Strategy], site: Site) -> None:
        """Learn the labels and the strategy; `make` makes the strategy again. UsageError if the attack can't be."""
        if self.attack.kind == "label-flip":
            if labels.dtype.kind not in "iu":
                raise UsageError("attack label-flip needs integer labels: choose another attack, such as sign-flip")
            self._classes = int(labels.max()) + 1
        if self.attack.kind.startswith("opt-"):
            self._strategy, self._probe = strategy, make()
            if self._probe is strategy:
                raise UsageError(
                    f"attack {self.attack.kind} asks a copy of the strategy: name it, don't give an object"
                )
            self._probe.prepare(site)

    # What hosts of devices call, in this order

    def begins(self, device: str, round: int, now: float, lasts_s: float) -> None:
        """The device begins to train for `round`."""
        known = self._rounds.setdefault(round, _Round())
        known.ends[device] = now + lasts_s
        if device not in self.attackers:
            known.lasts.append(lasts_s)
        for old in [number for number in self._rounds if number < round - 1]:
            del self._rounds[old]

    def flips(self, device: str) -> int:
        """Of how many classes the device turns the labels around; 0: it trains with its own."""
        return self._classes if device in self.attackers else 0

    def reports_at(self, device: str, round: Round) -> float:
        """When the device, whose training has ended, reports; a time that has passed: now."""
        known = self._rounds.get(round.round)
        if device not in self.attackers or known is None or not known.lasts or self._classes:
            return 0.0
        longest_s = PATIENCE * sorted(known.lasts)[len(known.lasts) // 2]
        honest = sorted(end for name, end in known.ends.items() if name not in self.attackers)
        own = known.ends[device]
        honest = [end for end in honest if end <= own or end <= own + longest_s]
        tally = self._coordinator.tally
        if tally is not None and tally.goal is not None:
            needed = max(1, tally.goal - sum(name in self.attackers for name in known.ends))
            if needed <= len(honest):
                return honest[needed - 1] - MARGIN_S
        return honest[-1] + MARGIN_S if honest else 0.0

    def turned(self, device: str, job: TrainJob, blob: bytes) -> bytes:
        """The update that the device sends in the place of its honest one, `blob`."""
        if job.round.mode != "train":
            return blob
        header = UpdateHeader.from_bytes(blob)
        known = self._rounds.setdefault(job.round.round, _Round())
        codec = job.manifest.update_codec
        if device not in self.attackers:
            known.seen[device] = _update(device, header, codec, memoryview(blob)[header.size :])
            return blob
        if known.crafted is None:
            before = self._rounds.get(job.round.round - 1)
            known.seen = known.seen if len(known.seen) > 1 or before is None else before.seen
            if self._classes or not known.seen:
                return blob
            known.crafted = self._craft(known, job, header)
        delta = self._capped(known, known.crafted, header.num_examples)
        return blob[: header.size] + _fine(codec).encode(delta)

    # What they send

    def _craft(self, known: _Round, job: TrainJob, header: UpdateHeader) -> np.ndarray:
        honest = [known.seen[device] for device in sorted(known.seen)]
        attackers = sorted(name for name in known.ends if name in self.attackers)
        params = job.manifest.mask.shared(job.manifest.unstack(params_from_bytes(job.params))[0])
        own, size = _update("", header, job.manifest.update_codec, b""), job.manifest.update_size
        if 4 * size * len(honest) <= IN_MEMORY:
            honest = [replace(update, decoded=update.delta(size)) for update in honest]

        def deltas() -> Iterator[np.ndarray]:
            return (update.delta(size) for update in honest)

        def judge(delta: np.ndarray) -> float:
            assert self._probe is not None and self._strategy is not None
            self._probe.restore(self._strategy.state())
            self._probe.start(params, job.round.round)
            for update in [*honest, *(replace(own, device=name, decoded=delta) for name in attackers)]:
                with suppress(CodecError):  # it will not count either: an attack that works makes devices diverge
                    self._probe.add(update)
            moved = self._probe.finish().astype(np.float64) - params
            return float(np.linalg.norm(moved - mean))

        facts = Known(
            deltas, judge, lambda delta: self._capped(known, delta, header.num_examples),
            derived_seed(self._seed, "attack", job.round.round),
        )  # fmt: skip
        mean = facts.moments()[0][: len(params)] if self._probe is not None else np.zeros(0)
        return craft(self.attack, facts)

    def _capped(self, known: _Round, delta: np.ndarray, num_examples: int) -> np.ndarray:
        """`delta`, shortened to what admission takes of a device with so many examples."""
        wide = delta.astype(np.float64)
        most = self._longest(known, len(delta), num_examples) / (float(np.linalg.norm(wide)) or 1.0)
        largest = MOST / min(num_examples, MAX_WEIGHT) / (float(np.abs(wide).max(initial=0.0)) or 1.0)
        return (wide * min(1.0, most, largest)).astype(np.float32)

    def _longest(self, known: _Round, num_params: int, num_examples: int) -> float:
        """The norm of the longest delta that is not refused of a device with so many examples; where that is not known
        yet, by the honest ones."""
        admission = self._coordinator.admission
        if admission.influence.factor is None:
            return math.inf
        bound = admission.bound
        if bound is None:
            claims = {name: (u.num_examples, norm_of(u.delta(num_params))) for name, u in known.seen.items()}
            bound = admission.influence.of(claims)
        return math.inf if bound is None else LONGEST * bound.longest(None) / admission.influence.reach(num_examples)


def _update(device: str, header: UpdateHeader, codec: Codec, payload: bytes | memoryview) -> Update:
    """An update as the coordinator makes it of this header."""
    return Update(device, header.num_examples, codec, payload, steps=header.steps, loss=header.loss)


def _fine(codec: Codec) -> Codec:
    """The same codec with a fine step, if it has one."""
    if "step" not in options_of(type(codec)).names:
        return codec
    options = {name: value for name, value in codec.options.items() if name not in ("step", "bits", "max_bytes")}
    return codecs.get(type(codec), **options, step=FINE).for_tensors(codec.tensors)
