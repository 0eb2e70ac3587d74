"""Unmasking: the sum of a masked round that is closed, until its helpers have opened it. No I/O.

    every helper is asked for one set -> their answers, sums of masks and noise -> sum - masks, centred -> the mean

A helper that is silent is asked again; one that refuses, or has opened another set, ends the round, but for a refusal
that names devices as its reason: where no other helper was asked nothing was opened, so it may be asked for the set
without them (unopened.py). The sums are exact: what comes out is the sum of the devices' integers, and the ones among
them add up to their number, or a party is at fault. With several groups, a group that can't be right is left out, and
the others are combined by their median; one hostile device can spoil one group. Part of RoundCoordinator.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from ..errors import CodecError, ProtocolError
from ..machine import Publish
from ..masking import ring
from ..masking.exchange import Answer, Ask, answer_bound, read_answer
from ..masking.profile import Pooled
from ..masking.profile import read as read_profile
from ..masking.vector import Mean, mean
from ..privacy.ledger import ROUNDING
from ..protocol.envelope import Envelope, Kind
from ..protocol.parts import Assembler, Splitter
from ..protocol.terms import Party
from ..protocol.topics import HelperTopic, Topics
from ..trust.ed25519 import from_text
from .answered import Answered
from .saved_ask import SavedAsk
from .signing import Open

ASK_AGAIN_S = 30.0  # a silent helper is asked again; sooner where it has less time for its answer
TRIES = 4  # in that time, at least
PAST = ("old", "second")  # refusals that tell of a round of this run that was opened


class NotOpened(Exception):
    """The sum can't be opened; the text says why. Of a refusal, `code` is the helper's (helper/refusal.py), and
    `unopened` are the devices that are the reason."""

    def __init__(self, text: str, helper: str = "", code: str = "", unopened: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.helper, self.code, self.unopened = helper, code, unopened


class Total(NamedTuple):
    """The mean delta (P,) of these `devices`, whose weights add up to `weight`, and what they measured of the model:
    loss and accuracy. `left_out`: groups that could not be right. `unopened`: helpers, and the devices whose sealed
    seeds each of them can't open. `within`: the share of the devices that was within the clip. Of a `profile` there is
    no delta, and its `weight` are examples."""

    delta: np.ndarray
    devices: int
    weight: int
    held_out: tuple[float, float] | None
    left_out: int = 0
    epsilon: float = 0.0
    unopened: tuple[tuple[str, tuple[str, ...]], ...] = ()
    profile: Pooled | Mean | None = None
    within: float | None = None


class Unmasking:
    """`hash` is in every envelope of the federation."""

    def __init__(self, saved: SavedAsk, topics: Topics, *, hash: int, patience_s: float) -> None:
        self.saved, self.terms = saved, saved.terms
        self.set_digest = saved.ask().set_digest
        self.closes_at = self.wake_at = 0.0  # set when it first asks
        self.began_at: float | None = None
        self._topics, self._hash, self.patience_s = topics, hash, patience_s
        self._answers: dict[str, Answer] = {}
        self._arriving: dict[str, Assembler] = {}
        self.epsilon = 0.0  # the highest that a helper has signed
        self.opened_round = 0  # the newest round of this run that a helper has opened, as its refusal says
        self.refused_by = ""  # the helper that does not open the set
        self.rosters: dict[str, int] = {}  # the serial of the one that each helper goes by, as it has signed
        self._groups = saved.groups

    # What is asked

    def begin(self, now: float) -> None:
        """Helpers have time from now on: they could not hear, or not answer, before."""
        if self.began_at is None:
            self.began_at = now
        self.closes_at = now + self.patience_s

    def ask(self, signing: Open, ask: Ask, answered: Answered, part_bytes: int, now: float) -> list[Publish]:
        """Ask the helpers that have not answered."""
        self.wake_at = min(self.closes_at, now + min(ASK_AGAIN_S, self.patience_s / TRIES))
        out: list[Publish] = []
        for party in self.terms.helpers:
            helper = party.name
            if helper in self._answers:
                continue
            seen_round, seen_epsilon = answered.of(party)
            own = msgspec.structs.replace(ask, seen_round=seen_round, seen_epsilon=seen_epsilon)
            splitter = Splitter(
                signing.seal_ask(own, helper), part_bytes, kind=Kind.ASK, codec=0, federation=self._hash,
                round=self.terms.round, version=self.terms.version,
            )  # fmt: skip
            topics = (self._topics.ask(helper, part) for part in range(splitter.parts))
            out += [Publish(topic, splitter.part(part)) for part, topic in enumerate(topics)]
        return out

    @property
    def silent(self) -> list[str]:
        """The helpers that have not answered."""
        return [party.name for party in self.terms.helpers if party.name not in self._answers]

    @property
    def is_alone(self) -> bool:
        """Whether a helper that refuses is the only one: no other can have opened the set."""
        return len(self.terms.helpers) == 1

    # What comes back

    def hear(self, where: HelperTopic, payload: bytes) -> None:
        """A part of an answer. ProtocolError if it is none, and is dropped; NotOpened if a helper says that it does not
        open this set."""
        party = self.terms.party(where.helper)
        if party is None or party.name in self._answers:
            return
        envelope = Envelope.from_bytes(payload)
        if envelope.part != where.part:
            raise ProtocolError(f"part {envelope.part} of an answer on another's topic: dropped")
        assembler = self._arriving.get(party.name)
        if assembler is None:
            assembler = self._arriving[party.name] = self._assembler()
        if not assembler.add(envelope):
            return
        del self._arriving[party.name]
        self._keep(party, read_answer(assembler.blob(), party.name, from_text(party.key), self.terms))

    def _assembler(self) -> Assembler:
        return Assembler(
            kind=Kind.ANSWER, federation=self._hash, round=self.terms.round, version=self.terms.version,
            max_total=answer_bound(self.terms),
        )  # fmt: skip

    def _keep(self, party: Party, answer: Answer) -> None:
        if answer.set_digest != self.set_digest and answer.reason:
            raise ProtocolError(f"helper {party.name} refuses a set that it was asked for before: dropped", "round")
        if answer.set_digest != self.set_digest:
            raise NotOpened(f"helper {party.name} has answered for another set of this round")
        if not answer.reason and answer.epsilon > self.terms.epsilon * (1 + ROUNDING):
            raise NotOpened(
                f"helper {party.name} has opened the sum under an epsilon of {self.terms.epsilon:.6g}, and signs that "
                f"{answer.epsilon:.6g} is spent: it is at fault"
            )
        self.epsilon = max(self.epsilon, answer.epsilon)
        self.rosters[party.name] = answer.roster
        if answer.reason:
            self.refused_by, code = party.name, answer.reason.partition(":")[0]
            if code in PAST:
                self.opened_round = max(self.opened_round, answer.round)
            why = f"helper {party.name} refuses to open the sum: {answer.reason}"
            raise NotOpened(why, party.name, code, answer.unopened)
        for devices, group in zip(self._groups, answer.groups, strict=True):
            if group is not None and group[0] != len(devices):
                raise NotOpened(f"helper {party.name} has opened a group of {group[0]} devices, not {len(devices)}")
        self._answers[party.name] = answer

    # What comes of it

    def look(self, now: float) -> Total | None:
        """The total; None: answers are still to come. NotOpened."""
        if not self.silent:
            return self._total()
        if now >= self.closes_at:
            waited = f"in {self.patience_s:g} s"
            raise NotOpened(f"no answer of helper {', '.join(self.silent)} {waited}: is it running, and connected?")
        return None

    def _total(self) -> Total:
        if self.terms.profile is not None:
            return self._pooled()
        means, why = [], ""
        for place, devices in enumerate(self._groups):
            if any(answer.groups[place] is None for answer in self._answers.values()):
                continue  # too few devices were in it, or a seed that can't be opened
            try:
                means.append(self._mean(place, len(devices)))
            except (ProtocolError, CodecError) as error:
                why = str(error)
        left_out = len(self._groups) - len(means)
        if not means:
            raise NotOpened(why or "no group had as many devices as a sum needs")
        delta = means[0].delta if len(means) == 1 else np.median([each.delta for each in means], axis=0)
        devices, weight = (sum(getattr(each, name) for each in means) for name in ("count", "weight"))
        unopened = tuple((name, answer.unopened) for name, answer in self._answers.items() if answer.unopened)
        votes = [each.within for each in means if each.within is not None]
        within = float(np.median(votes)) if votes else None  # as of the deltas: a hostile device is in one group
        delta = delta.astype(np.float32, copy=False)
        return Total(delta, devices, weight, _held_out(means), left_out, self.epsilon, unopened, within=within)

    def _pooled(self) -> Total:
        """Of a profile, which has one group. With noise there are means of shares, and no counts."""
        if any(answer.groups[0] is None for answer in self._answers.values()):
            raise NotOpened("no group had as many devices as a sum needs")
        try:
            if self.terms.profile is not None and self.terms.profile.ranges:
                return self._shares(self._mean(0, len(self._groups[0])))
            found = read_profile(self.opened(0), self.terms)
        except (ProtocolError, CodecError) as error:
            raise NotOpened(str(error)) from None
        if found.devices != len(self._groups[0]):
            raise NotOpened(f"a sum of {len(self._groups[0])} masked vectors whose checks say {found.devices}: refused")
        none = np.zeros(0, np.float32)
        return Total(none, found.devices, found.examples, None, epsilon=self.epsilon, profile=found)

    def _shares(self, found: Mean) -> Total:
        return Total(found.delta, found.count, found.weight, None, epsilon=self.epsilon, profile=found)

    def opened(self, place: int) -> np.ndarray:
        """(L,) int64, the sum of one group's integers: its masked sum without all masks."""
        bits, total = self.terms.bits, self.saved.sums[place].copy()
        for answer in self._answers.values():
            group = answer.groups[place]
            assert group is not None
            total -= ring.unpack(group[1], self.terms.length, bits)
        return ring.centre(total, bits)

    def _mean(self, place: int, devices: int) -> Mean:
        found = mean(self.opened(place), self.terms)
        if found.count != devices:
            raise ProtocolError(f"a sum of {devices} masked vectors whose checks say {found.count}: refused", "sum")
        return found


def _held_out(means: list[Mean]) -> tuple[float, float] | None:
    """Loss and accuracy, each group's by the devices in it."""
    told = [(each.count, each.held_out) for each in means if each.held_out is not None]
    total = sum(count for count, _ in told)
    if not total:
        return None
    loss, accuracy = (sum(count * scores[at] for count, scores in told) / total for at in (0, 1))
    return loss, accuracy
