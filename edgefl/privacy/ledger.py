"""The ledger: what a federation has spent, (epsilon, delta) by round, over all its runs. No I/O.

A ledger belongs to the public key of the federation's root, not to a run: another run with the same devices spends on.
It is a value. `spend` gives the next one, which its host makes durable (`SaveLedger`) before the noise is used, so a
crash may count a round that nobody has seen, and never misses one. Epsilon never falls.

A restored backup can't know that it is one. Helpers and devices keep the highest (epsilon, round) that they have seen,
and sign or refuse accordingly; `hear` takes the highest of theirs over.

Rounds in a row under one noise are a *stretch*: what they cost together is known exactly, by their number alone.
Another noise, another run, or a ledger that was behind begins a new one; `before` is what was spent until then, and the
accountant adds the two (accountant.after), so a stretch that ends costs no more than its own rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import StoreError
from . import accountant
from .accountant import Mechanism

Spent = Annotated[float, Meta(ge=0, le=1e12)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the federation of this `root`, a fingerprint, has spent: `epsilon` at `delta`, after `round` of `run`.

    `purpose` names what that round's noise is for: the digest of its terms and its counted set. The stretch is of
    `noise`, began with the round `first`, and has `noisy` rounds that were not abandoned before.
    """

    root: Annotated[str, Meta(pattern=r"^[0-9a-f]{16,64}\Z")]
    delta: Annotated[float, Meta(gt=0, lt=1)]
    epsilon: Spent = 0.0
    run: str = ""
    round: Count = 0
    purpose: str = ""
    before: Spent = 0.0
    noise: Mechanism | None = None
    first: Count = 0
    noisy: Count = 0

    def after(self, noise: Mechanism, run: str, round: int) -> float:
        """Epsilon once this round of this run is over; StoreError for a round before the newest."""
        if run == self.run and round == self.round and self.noisy:
            return self.epsilon  # it is paid for: it is opened again
        return self.spend(noise, run, round, "").epsilon

    def spend(self, noise: Mechanism, run: str, round: int, purpose: str) -> Ledger:
        """The ledger with this round in it; it must be durable before the noise is used.

        A round for the same purpose again costs nothing: it has the same noise. Another purpose is a StoreError.
        """
        if run == self.run and round == self.round and purpose == self.purpose and self.noisy:
            return self
        if run == self.run and round <= self.round:
            raise StoreError(
                f"round {self.round} was paid for, so noise is never added to round {round} again: skip it"
            )
        begins = run != self.run or noise != self.noise or not self.noisy
        before = self.epsilon if begins else self.before
        first, noisy = (round, 1) if begins else (self.first, self.noisy + 1)
        rho = noise.rho(round - first + 1, noisy)
        epsilon = max(self.epsilon, accountant.after(before, rho, self.delta))
        return msgspec.structs.replace(
            self, epsilon=epsilon, run=run, round=round, purpose=purpose, before=before, noise=noise, first=first,
            noisy=noisy,
        )  # fmt: skip

    def hear(self, epsilon: float, run: str, round: int) -> Ledger:
        """The ledger once a helper or a device has signed that so much was spent in that round."""
        same = run == self.run
        if epsilon <= self.epsilon and not (same and round > self.round):
            return self
        epsilon, round = max(epsilon, self.epsilon), max(round, self.round if same else 0)
        return Ledger(self.root, self.delta, epsilon, run, round, before=epsilon)

    def refusal(self, budget: float | None, epsilon: float) -> str:
        """Why the federation may not spend up to `epsilon`; "" if it may."""
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
    return ledger
