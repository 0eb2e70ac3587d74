"""The ledger: what a federation has spent, (epsilon, delta) by round, over all its runs. No I/O.

A ledger belongs to the public key of the federation's root, not to a run: another run with the same devices spends on.
It is a value. `spend` gives the next one, which its host makes durable (`SaveLedger`) before the noise is used, so a
crash may count a round that nobody has seen, and never misses one. Epsilon never falls.

A restored backup can't know that it is one. Helpers and devices keep the highest (epsilon, round) that they have seen,
and sign or refuse accordingly; `hear` takes the highest of theirs over.

Rounds under one noise are a *stretch*: what they cost together is known exactly, by the most of them that one device
can have taken part in. Another noise, another run, or a ledger that was behind begins a new one; `before` is what was
spent until then, and the accountant adds the two (accountant.after), so a stretch that ends costs no more than its own
rounds.

A helper keeps a ledger too, of the rounds to which it has added noise (`spend`), and holds what the aggregator tells
against it (`told`). An honest aggregator pays for a round before it asks for it, so its rounds are the helper's and
perhaps more, and by the rule of `spend` more rounds never cost less: it never tells less than the helper computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import StoreError
from . import MOST_EPSILON, Epsilon, accountant
from .accountant import Mechanism

ROUNDING = 2.0**-30  # by how much, of itself, two ledgers may differ that have added up in another order

Count = Annotated[int, Meta(ge=0, le=2**53)]


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the federation of this `root`, a fingerprint, has spent: `epsilon` at `delta`, after `round` of `run`.

    `purpose` names what that round's noise is for: the digest of its terms and its counted set. The stretch is of
    `noise` and began with the round `first`. One device can have taken part in `times` of its rounds at most, if it did
    so as early as it could: in `first` and, after every separation, in the next that had noise. The last is `counted`.
    `highest` is the most that devices were told, of rounds too that were abandoned and whose noise nobody has used.
    `taken` is what of `epsilon` was taken over at the word of helpers alone, and no sum was opened since.
    """

    root: Annotated[str, Meta(pattern=r"^[0-9a-f]{16,64}\Z")]
    delta: Annotated[float, Meta(gt=0, lt=1)]
    epsilon: Epsilon = 0.0
    run: str = ""
    round: Count = 0
    purpose: str = ""
    before: Epsilon = 0.0
    noise: Mechanism | None = None
    first: Count = 0
    times: Count = 0
    counted: Count = 0
    highest: Epsilon = 0.0
    taken: Epsilon = 0.0

    def after(self, noise: Mechanism, run: str, round: int) -> float:
        """Epsilon once this round of this run is over; StoreError for a round before the newest."""
        if run == self.run and round == self.round and self.times:
            return self.epsilon  # it is paid for: it is opened again
        return self.spend(noise, run, round, "").epsilon

    def spend(self, noise: Mechanism, run: str, round: int, purpose: str) -> Ledger:
        """The ledger with this round in it; it must be durable before the noise is used.

        A round for the same purpose again costs nothing: it has the same noise. Another purpose is a StoreError.
        """
        if run == self.run and round == self.round and purpose == self.purpose and self.times:
            return self
        if run == self.run and round <= self.round:
            raise StoreError(
                f"round {self.round} was paid for, so noise is never added to round {round} again: skip it"
            )
        first, times, counted, before = self.first, self.times, self.counted, self.before
        if run != self.run or noise != self.noise or not self.times:
            first, times, counted, before = round, 1, round, self.epsilon
        elif round - counted >= max(1, noise.separation):
            times, counted = times + 1, round
        rho = noise.rho(round - first + 1, times)
        epsilon = max(self.epsilon, accountant.after(before, rho, self.delta))
        return msgspec.structs.replace(
            self, epsilon=epsilon, run=run, round=round, purpose=purpose, before=before, noise=noise, first=first,
            times=times, counted=counted,
        )  # fmt: skip

    def tell(self, epsilon: float) -> Ledger:
        """The ledger, which must be durable before devices are told that so much is spent once a round is over. They go
        by no terms that tell less, and less it would be if that round were abandoned and the next had more noise."""
        return self if epsilon <= self.highest else msgspec.structs.replace(self, highest=epsilon)

    def charged(self, epsilon: float) -> Ledger:
        """The ledger, whose newest round is paid for, if its terms have told `epsilon`: helpers take that for spent
        (`told`), so it is, even where the round has cost less."""
        return self if epsilon <= self.epsilon else self._raised(epsilon, 0)

    def told(self, epsilon: float) -> Ledger:
        """The ledger, whose newest round is paid for, once an aggregator has told what is spent after that round;
        StoreError if that is less than what this ledger computes.

        If it is more, the aggregator knows of rounds that this ledger lacks, and what they cost is taken over, but for
        one round: the aggregator may have counted one already that this ledger counts later.
        """
        if epsilon < self.epsilon * (1 - ROUNDING):
            raise StoreError(f"epsilon {epsilon:.6g} was told, and {self.epsilon:.6g} is spent")
        return self._raised(epsilon, 0 if self.counted == self.round else 1)

    def _raised(self, epsilon: float, later: int) -> Ledger:
        """So much is spent, and what the rounds of this stretch have not cost was before it, but for `later` rounds."""
        before = self.before
        if self.noise is not None and epsilon > self.epsilon * (1 + ROUNDING):
            rho = self.noise.rho(self.round - self.first + 1, self.times) + later * self.noise.rho(1)
            before = max(before, min(epsilon, accountant.until(epsilon, rho, self.delta)))  # which rounds up
        return msgspec.structs.replace(self, epsilon=epsilon, before=before)

    def hear(self, epsilon: float, run: str, round: int) -> Ledger:
        """The ledger once a helper or a device has signed that so much was spent in that round."""
        same = run == self.run
        if epsilon <= self.epsilon and not (same and round > self.round):
            return self
        epsilon, round = max(epsilon, self.epsilon), max(round, self.round if same else 0)
        return Ledger(
            self.root, self.delta, epsilon, run, round, before=epsilon, highest=self.highest, taken=self.taken
        )  # fmt: skip

    def leave_out(self, run: str, round: int) -> Ledger:
        """The ledger once a helper has told that it has opened this round, which is after ours. A stretch of the same
        run goes on: its rounds that were left out are counted as time that has passed, and cost nothing more."""
        if run == self.run:
            return msgspec.structs.replace(self, round=round, purpose="")
        return msgspec.structs.replace(self, run=run, round=round, purpose="", before=self.epsilon, noise=None, times=0)

    def refusal(self, budget: float | None, epsilon: float) -> str:
        """Why the federation may not spend up to `epsilon`; "" if it may."""
        if epsilon > MOST_EPSILON:  # no start could read the ledger that devices were told it of
            return (
                f"epsilon is {self.epsilon:.4g} after round {self.round}, and no round can tell more than "
                f"{MOST_EPSILON:g}; the federation ends here, and its model stays. If a helper has signed that so much "
                "is spent, as the log says, it is at fault"
            )
        if budget is None or epsilon <= budget:
            return ""
        return (
            f"the privacy budget is spent: epsilon is {self.epsilon:.4g} after round {self.round} and would be "
            f"{epsilon:.4g} of {budget:g} at most (delta {self.delta:g}); the federation ends here, and its model stays"
        )

    def to_text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def of_text(cls, text: str | bytes, root: str, delta: float) -> Ledger:
        """What `to_text` has written, for this root and delta; StoreError. A ledger that can't be read is never a new
        one: what was spent would be forgotten."""
        try:
            found = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise StoreError("the ledger of epsilon is damaged: put a backup in its place") from None
        if found.root != root:
            raise StoreError(f"the ledger of epsilon is of the root {found.root}, and this federation's is {root}")
        if found.delta != delta:
            raise StoreError(
                f"the ledger of epsilon counts at a delta of {found.delta:g}, and [privacy] delta is {delta:g}: set "
                "it back"
            )
        return found


@dataclass(frozen=True)
class SaveLedger:
    """Action: make this durable before carrying out what follows, which uses the noise that it pays for."""

    ledger: Ledger


def newest(stored: Ledger | None, ledger: Ledger) -> Ledger:
    """What a host writes: `ledger`; StoreError if that were less than what is stored."""
    if stored is not None and ledger.epsilon < stored.epsilon:
        raise StoreError(f"epsilon falls from {stored.epsilon:g} to {ledger.epsilon:g}: stopped, since it never may")
    if stored is not None and ledger.highest < stored.highest:
        raise StoreError(f"devices were told of epsilon {stored.highest:g}, not {ledger.highest:g}: stopped")
    return ledger
