"""Noise in masked schedules: which of them have it, and what only the simulation knows of it and of what it costs.

The helper's randomness is a tape, so what it has drawn can be made again from the same bytes: independent noise by the
sampler, correlated noise by the sum over earlier rounds, which the simulation keeps by itself. In some schedules the
helper's disk is put back to an earlier state, under the next epoch of its keys.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.helper.opening import Job, Sums
from edgefl.history_record import RoundRecord
from edgefl.privacy import accountant
from edgefl.privacy.correlated import coefficients
from edgefl.privacy.ledger import ROUNDING, Ledger
from edgefl.privacy.noise import discrete_gaussian
from edgefl.protocol.fleet import Spent
from edgefl.protocol.terms import Terms
from edgefl.settings import FeatureSettings

from .kept import Kept, kept, put_back
from .violation import require

SIGMA, DELTA, BITS = 1.5, 1e-5, 20
MANY, FEW = 5000, 12  # rounds that correlated noise is accounted for: more than there will be, and less
RANGES = FeatureSettings(ranges="-1:2")
RESTORED = "restored helper"
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Key = tuple[str, int]  # run, round


@dataclass(frozen=True)
class Noisy:
    """`rounds` are all that there will be; None: no end is set. `restored`: the helper's disk is, now and then.
    `turns`: a round asks as many devices as can take turns, so that correlated noise takes back what others' rounds
    have had."""

    kind: Literal["none", "independent", "banded"] = "none"
    separation: int = 0
    band: int = 1
    rounds: int | None = None
    restored: bool = False
    turns: bool = False

    @classmethod
    def draw(cls, seed: int) -> Noisy:
        """None for half of all masked schedules. It is from a stream of its own: nothing else depends on it."""
        rng = random.Random(f"noise {seed}")
        kind: Literal["none", "independent", "banded"] = rng.choice(["none", "none", "independent", "banded"])
        if kind == "none":
            return cls()
        restored, separation = rng.random() < 0.5, rng.choice([1, 2, 3, 4])
        turns = rng.random() < 0.6 and separation > 1
        if kind == "independent":
            return cls(kind, separation, restored=restored, turns=turns)
        band, rounds = rng.randint(1, separation), FEW if rng.random() < 0.25 else MANY
        return cls(kind, separation, max(2, band) if turns else band, rounds, restored, turns)

    def __bool__(self) -> bool:
        return self.kind != "none"

    def over(self) -> dict[str, object]:
        """Settings of [privacy] that are others with this noise."""
        if not self:
            return {}
        found: dict[str, object] = {"noise": self.kind, "sigma": SIGMA, "bits": BITS, "delta": DELTA}
        found["separation"] = self.separation
        if self.kind == "banded":  # whose places and units must not change
            found |= {"band": self.band, "share": 1.0, "groups": 1, "clip_quantile": None}
        return found


NO_NOISE = Noisy()


class Tape:
    """Random bytes, the same for the same name, and all that were read."""

    def __init__(self, name: str) -> None:
        self._random, self.read = random.Random(name), b""

    def __call__(self, size: int) -> bytes:
        found = self._random.randbytes(size)
        self.read += found
        return found


class Played:
    """The bytes of a tape once more; I38 if more are wanted than it has."""

    def __init__(self, read: bytes) -> None:
        self._left = read

    def __call__(self, size: int) -> bytes:
        require(len(self._left) >= size, "I38", "noise that was drawn from %d random bytes fewer", size)
        found, self._left = self._left[:size], self._left[size:]
        return found

    @property
    def is_over(self) -> bool:
        return not self._left


@dataclass(frozen=True)
class Opening:
    """A set that a helper has opened, by what its host knows; `tape` was its randomness."""

    job: Job
    sums: Sums
    tape: Tape


@dataclass(frozen=True)
class Shown:
    """The devices of a set that helpers were asked for, or have opened. `lost`: with a database."""

    run: str
    round: int
    devices: frozenset[str]
    lost: bool = False


class NoiseTruth:
    """`used`: the noise of each group of each round that was opened, which a sum has to have."""

    def __init__(self, noisy: Noisy) -> None:
        self._noisy = noisy
        self.used: dict[Key, dict[int, Integers]] = {}
        self._sets: dict[Key, bytes] = {}
        self._seen: dict[bytes, Key] = {}  # noise -> its round
        self._cost: Counter[str] = Counter()  # device -> rho of all noise that its vectors were given
        self._spent: dict[Key, float] = {}  # rho of the device that has spent most, after that round
        self._paid: set[int] = set()  # rounds that the aggregator has paid for
        self._most = 0.0  # rho of the noise of one round, at most
        self._helpers: dict[Key, float] = {}  # epsilon, by the helper's ledger
        self._asks: list[Shown] = []
        self._opened: list[Shown] = []
        self._told_in: set[int] = set()  # rounds that devices were told epsilon of
        self._others = 0  # the same, and paid for, that were lost with a database
        self._least, self._pending = 0.0, 0  # what no round tells less than, but one that a backup waited for
        self._reported: dict[int, frozenset[str]] = {}  # the same, of rounds whose end is durable
        self._agreed = self._told = self._shown = 0.0

    def __bool__(self) -> bool:
        return bool(self._noisy)

    # What goes back with a database (losses.py)

    GOES_BACK = ("_paid", "_reported", "_told_in", "_agreed", "_told", "_shown")

    def kept(self) -> Kept:
        return kept(self, self.GOES_BACK)

    def went_back(self, backup: Kept, epsilon: float, pending: int) -> None:
        """To a backup, in which helpers were still to answer for the round `pending`; {}: to nothing. They know by now
        that `epsilon` is spent."""
        before, known = self._paid | self._told_in, set(backup.get("_reported", ())) | {pending}
        put_back(self, backup or {name: getattr(NoiseTruth(self._noisy), name) for name in self.GOES_BACK})
        self._others += len(before - self._paid)
        self._least, self._pending = epsilon, pending
        self._asks = [replace(one, lost=one.lost or one.round not in known) for one in self._asks]

    # What the helper has drawn

    def drawn(self, opening: Opening, past: Mapping[Key, Floats]) -> tuple[dict[int, Integers], dict[Key, Floats]]:
        """The noise of each group that was opened, from its tape; `past` is the correlated noise of the rounds that the
        helper's disk knows of, and the second what it knows of then. I38 if the helper has read more."""
        terms, source = opening.job.terms, Played(opening.tape.read)
        found, after = {}, dict(past)
        for place, group in enumerate(opening.sums.groups):
            if group is None:
                continue
            if terms.noise.kind == "banded":
                after[terms.run, terms.round] = _filtered(terms, source, past)
                found[place] = np.rint(after[terms.run, terms.round]).astype(np.int64)
            else:
                found[place] = discrete_gaussian(terms.noise.sigma, terms.length, source)
            found[place][terms.at_checks] = 0
        require(source.is_over, "I38", "round %d: more was drawn than is added", terms.round)
        return found, after

    def opened(self, opening: Opening, noise: dict[int, Integers], ledger: Ledger | None) -> None:
        """It is durable, and about to leave. I34: a round has one noise, for one set. I38: no noise is of two sums, and
        no device in two that are too near."""
        job = opening.job
        round, terms = job.terms.round, job.terms
        key = terms.run, round
        require(self._sets.setdefault(key, job.set_digest) == job.set_digest, "I34", "round %d: two noises", round)
        require(key not in self.used, "I34", "round %d has had noise before", round)
        for one in noise.values():
            known = self._seen.setdefault(one.tobytes(), key)
            require(known == key, "I38", "round %d has the noise of %r", round, known)
        self.used[key] = noise
        shown = Shown(*key, frozenset(one.entry.device for place in noise for one in job.groups[place]))
        self._are_apart(shown, self._opened)  # those too that were lost with a database
        self._opened.append(shown)
        assert ledger is not None
        self._helpers[key] = ledger.epsilon
        rho = rho_of(terms)
        self._cost.update({one.entry.device: rho for place in noise for one in job.groups[place]})
        self._spent[key] = max(self._cost.values(), default=0.0)

    # What the aggregator asks and tells

    def asked(self, saved: SavedAsk) -> None:
        """I38: no device is in two rounds between which there are fewer than the separation."""
        run, round, devices = saved.terms.run, saved.record.round, frozenset(saved.entries)
        self._are_apart(Shown(run, round, devices), [one for one in self._asks if not one.lost])
        self._asks = [one for one in self._asks if one.lost or (one.run, one.round) != (run, round)]
        self._asks.append(Shown(run, round, devices))
        if self._noisy:
            require(round in self._paid, "I38", "round %d is asked for, and not paid for", round)

    def _are_apart(self, new: Shown, others: Iterable[Shown]) -> None:
        for other in others:
            if other.run == new.run and 0 < abs(new.round - other.round) < self._noisy.separation:
                again = new.devices & other.devices
                require(not again, "I38", "%r are in rounds %d and %d", sorted(again), other.round, new.round)

    def rests(self, round: int, device: str = "") -> bool:
        """Whether a device rests in that round, or this one, since it has reported in one before, whatever became of
        that; also if helpers were asked for that one's sum, and the newest model is damaged since."""
        before = self._reported | {one.round: one.devices for one in self._asks if not one.lost}
        near = (those for other, those in before.items() if 0 < round - other < self._noisy.separation)
        return any(device in those if device else those for those in near)

    def announced(self, terms: Terms | None) -> None:
        """I38: no round tells less than one before it, whether that was opened or not: devices would refuse it."""
        if terms is not None and self._noisy:
            least = self._agreed if terms.round == self._pending else max(self._agreed, self._least)
            require(terms.epsilon >= least, "I38", "epsilon falls from %r to %r", least, terms.epsilon)
            self._agreed, self._most = terms.epsilon, max(self._most, rho_of(terms))
            self._told_in.add(terms.round)

    def paid(self, ledger: Ledger) -> None:
        """It is durable. I38: epsilon is what was spent, no less than any device has, and no more than all rounds cost
        by themselves."""
        require(ledger.epsilon >= self._told, "I38", "epsilon falls from %r to %r", self._told, ledger.epsilon)
        if ledger.times:
            self._paid.add(ledger.round)
        most = accountant.epsilon((len(self._paid) + self._others) * self._most, DELTA)
        require(ledger.epsilon <= most * (1 + ROUNDING), "I38", "epsilon %r, %r at most", ledger.epsilon, most)
        self._told = ledger.epsilon

    def over(self, run: str, record: RoundRecord, ledger: Ledger | None) -> None:
        """I38: the record of a round that was opened tells what both ledgers do."""
        self._reported[record.round] = frozenset(record.devices)
        if not record.helped or not self._noisy:
            require(record.epsilon == 0, "I38", "epsilon %r in %r", record.epsilon, record)
            return
        assert ledger is not None
        told = record.epsilon, ledger.epsilon, self._helpers[run, record.round]
        require(len(set(told)) == 1, "I38", "round %d: record and ledgers tell %r", record.round, told)
        least = accountant.epsilon(self._spent[run, record.round], DELTA)
        require(record.epsilon >= least * (1 - ROUNDING), "I38", "%r is told, %r is spent", record.epsilon, least)

    def shows(self, spent: Spent | None, ledger: Ledger | None) -> None:
        """I38: a summary tells what is durable."""
        require((spent is not None) == bool(self._noisy), "I38", "shown: %r", spent)
        if spent is not None:
            known = 0.0 if ledger is None else ledger.epsilon
            require(spent.epsilon == known >= self._shown, "I38", "%r is shown, %r is spent", spent.epsilon, known)
            self._shown = spent.epsilon


def rho_of(terms: Terms) -> float:
    """What the noise of these terms costs a device whose vector is in the sum, however far apart its rounds are."""
    squares = float((coefficients(terms.noise.band) ** 2).sum()) if terms.noise.kind == "banded" else 1.0
    return terms.norm2 * squares / (2 * terms.noise.sigma**2)


def _filtered(terms: Terms, source: Played, past: Mapping[Key, Floats]) -> Floats:
    """(L,) fresh noise less the parts that the band takes back of the rounds before."""
    fresh = terms.noise.sigma * _white(terms.length, source)
    c = coefficients(terms.noise.band)
    for number in reversed(range(terms.round - terms.noise.band + 1, terms.round)):
        if (terms.run, number) in past:
            fresh -= c[terms.round - number] * past[terms.run, number]
    return fresh


def _white(count: int, source: Played) -> Floats:
    """(count,) Gaussian noise of sigma 1, as Box and Muller make it of pairs of words."""
    half = (count + 1) // 2
    words = np.frombuffer(source(16 * half), "<u8").reshape(2, half)
    radius = np.sqrt(-2 * np.log(((words[0] >> np.uint64(11)) + np.float64(1)) * 2.0**-53))
    angle = words[1] * (2 * np.pi * 2.0**-64)
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]
