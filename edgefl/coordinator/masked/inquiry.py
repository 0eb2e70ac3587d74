"""Inquiry: what helpers know of rounds and epsilon, before the first round with noise. No I/O.

A database that was restored from a backup, or is new, knows of less epsilon than devices were told. They refuse a round
that tells less, so no sum would ever be asked for, and no helper could say more. So each helper is asked beforehand, by
an ask that shows no device. Its answer opens nothing. It is asked as long as helpers may lead (leads.py), once in each
process and epoch: in an epoch in which a sum was opened, nobody knows more than we do.

No round opens before all helpers have answered, since none of its sums could be opened without them. Part of
RoundCoordinator.
"""

from __future__ import annotations

from ...errors import ProtocolError
from ...machine import Publish
from ...masking.exchange import Answer, Ask
from ...protocol.terms import Party, Terms
from ...protocol.topics import Topics
from ..signing import Open
from .answered import Answered
from .asking import Asking

FIRST_S = 1.0  # a helper that starts beside us is asked again so soon, and then after twice the time


class Inquiry(Asking):
    """`began_at`: when helpers were asked first; they could not hear before."""

    def __init__(self, terms: Terms, topics: Topics, *, hash: int, patience_s: float, now: float) -> None:
        super().__init__(terms, Ask(terms.text, 0, ()).set_digest, topics, hash=hash, patience_s=patience_s)
        self.began_at, self.closes_at = now, now + patience_s
        self._pause_s = FIRST_S / 2

    @property
    def silence(self) -> str:
        """What no round opens before, for log and viewers."""
        names = ", ".join(self.silent)
        return f"no round opens before helper {names} has said what it knows of epsilon: is it running, and connected?"

    @property
    def pause_s(self) -> float:
        return min(super().pause_s, self._pause_s)

    def ask_all(self, signing: Open, attempt: int, answered: Answered, part_bytes: int, now: float) -> list[Publish]:
        """Ask the helpers that have not answered; they have as much time again as for a sum."""
        if now >= self.closes_at:
            self.closes_at = now + self.patience_s
        self._pause_s *= 2
        return self.ask(signing, Ask(self.terms.text, attempt, ()), answered, part_bytes, now)

    def _keep(self, party: Party, answer: Answer) -> None:
        """Whatever the reason is, a helper signs what it knows."""
        if answer.set_digest != self.set_digest or not answer.reason:
            raise ProtocolError(f"helper {party.name} answers what it is not asked now: dropped", "round")
        self._note(party, answer)
        self._answers[party.name] = answer
