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

import numpy as np

from ...errors import CodecError, ProtocolError
from ...masking import ring
from ...masking.exchange import Answer
from ...masking.profile import Pooled
from ...masking.profile import read as read_profile
from ...masking.vector import Mean, mean
from ...privacy.ledger import ROUNDING
from ...protocol.terms import Party
from ...protocol.topics import Topics
from .asking import Asking
from .saved_ask import SavedAsk


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


class Unmasking(Asking):
    """The sum of a set."""

    def __init__(self, saved: SavedAsk, topics: Topics, *, hash: int, patience_s: float) -> None:
        super().__init__(saved.terms, saved.ask().set_digest, topics, hash=hash, patience_s=patience_s)
        self.saved, self._groups = saved, saved.groups
        self.began_at: float | None = None
        self.refused = 0  # larger sets of this round

    def begin(self, now: float) -> None:
        """Helpers have time from now on: they could not hear, or not answer, before."""
        if self.began_at is None:
            self.began_at = now
        self.closes_at = now + self.patience_s

    @property
    def is_alone(self) -> bool:
        """Whether a helper that refuses is the only one: no other can have opened the set."""
        return len(self.terms.helpers) == 1

    # What comes back

    def _keep(self, party: Party, answer: Answer) -> None:
        """NotOpened if the helper says that it does not open this set."""
        if answer.set_digest != self.set_digest and answer.reason:
            raise ProtocolError(f"helper {party.name} refuses a set that it was asked for before: dropped", "round")
        if answer.set_digest != self.set_digest:
            raise NotOpened(f"helper {party.name} has answered for another set of this round")
        if not answer.reason and answer.epsilon > self.terms.epsilon * (1 + ROUNDING):
            raise NotOpened(
                f"helper {party.name} has opened the sum under an epsilon of {self.terms.epsilon:.6g}, and signs that "
                f"{answer.epsilon:.6g} is spent: it is at fault"
            )
        if code := self._note(party, answer):
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
