"""Spending: what the noise of a round costs, by this helper's own ledger. A pure function of terms and ledger.

The epsilon in a round's terms is the aggregator's word. The helper knows the noise, since it adds it, and the norm and
the separation, since devices sign them with the terms; so it computes epsilon itself, and opens nothing for less. What
other helpers add, and rounds that this one was never asked for, it can't know: there the highest word counts.
"""

from __future__ import annotations

from ..errors import StoreError, UsageError
from ..privacy.accountant import Mechanism
from ..privacy.ledger import Ledger
from ..protocol.terms import Terms
from .refusal import Refusal


def pay(ledger: Ledger | None, terms: Terms, root: str, set_digest: bytes) -> Ledger | None:
    """The ledger with this round in it, which has to be durable before the answer leaves; Refusal. `ledger` None: there
    was never noise. `root`: the fingerprint of the federation's."""
    if terms.noise.kind == "none":
        return ledger
    known = Ledger(root, terms.delta) if ledger is None else ledger
    if known.root != root:
        raise Refusal("ledger", f"it is of the root {known.root}, and ours is {root}: begin in an empty state_dir")
    if known.delta != terms.delta:
        raise Refusal("ledger", f"it counts at a delta of {known.delta:g}, and the terms at {terms.delta:g}")
    if terms.run == known.run and terms.round <= known.round:
        raise Refusal("old", f"round {terms.round}; noise was added to round {known.round}")
    try:
        purpose = terms.digest.hex() + set_digest.hex()
        paid = known.spend(Mechanism.of(terms.noise, terms.norm2), terms.run, terms.round, purpose)
    except UsageError as error:
        raise Refusal("noise", str(error)) from None
    try:
        return paid.told(terms.epsilon)
    except StoreError as error:
        raise Refusal("epsilon", f"{error} once round {terms.round} is over, by this helper's ledger") from None
