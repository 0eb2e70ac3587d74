"""Consent: whether a device takes part in a masked round, or in one that is not masked. No I/O. Part of DeviceSession.

The owner decides how little the aggregator may learn (policy.py): with `masked`, nothing but sums. A round that asks
for more is refused, whoever has signed it. Without keys no round is masked.
"""

from __future__ import annotations

from ...errors import ProtocolError
from ...protocol.manifest import Manifest
from ...protocol.round import Round
from ...protocol.trouble import Trouble
from ...protocol.update_header import HIDING
from ..events import Action, SaveSeen
from ..trust import Lost, Open, Rests
from .policy import Policy

NOT_MASKED = "the round is not masked: the aggregator would see what this device alone has learned"


def _by_owner(why: str) -> Trouble:
    return Trouble("policy", f"refused by this device's owner: {why}")


class Consent:
    """A device learns from the first round that opens whether rounds are masked. Only after a plain one its status may
    tell numbers, since its updates tell them anyway."""

    def __init__(self, policy: Policy, trust: Open) -> None:
        self.policy, self._trust = policy, trust
        self._masked, self._plain = policy.masked or trust.has_masked, False
        self._judged: tuple[object, Trouble | None] | None = None  # all that terms are judged by, and what was said

    @property
    def hides(self) -> bool:
        """Whether the device's status holds no number that its examples decide."""
        return self._masked or (self._trust.may_mask and not self._plain)

    def hear(self, round: Round) -> None:
        """A round is announced, to this device or to others. One that profiles comes before masked ones, too."""
        self._masked = self._masked or bool(round.terms)
        self._plain = self._plain or (round.state == "open" and round.mode == "train" and not round.terms)

    def refuses(self, round: Round, manifest: Manifest, now: float) -> Trouble | None:
        """Why the device takes no part in the round; None if it may."""
        if round.state != "open":
            return None
        if not round.terms:
            return _by_owner(f"{NOT_MASKED} ([policy] masked)") if self.policy.masked else None
        case = manifest.id, round, self._trust.last_masked  # terms alone say nothing of other work
        if self._judged is None or self._judged[0] != case:
            self._judged = case, self._judge(round, manifest, now)
        return self._judged[1]

    def _judge(self, round: Round, manifest: Manifest, now: float) -> Trouble | None:
        try:
            from ..masked import terms_of  # here: no other round needs it and what it imports

            terms = terms_of(round, manifest)
            why = self.policy.of_terms(terms)
            if not why:  # what is refused is not remembered: its epsilon is never spent
                self._trust.check_terms(terms, round, now)
        except ProtocolError as error:
            code = {Rests: "rests", Lost: "policy"}.get(type(error), "signer")
            return Trouble(code, str(error).removesuffix(": refused"))
        return _by_owner(why) if why else None

    def keeps(self, blob: bytes) -> bool:
        """Whether a saved update may still leave: the owner may want masks since it was made."""
        return not self.policy.masked or blob[1] in HIDING

    def news(self) -> list[Action]:
        """What has to be stored of what was seen."""
        seen = self._trust.news()
        return [] if seen is None else [SaveSeen(seen)]
