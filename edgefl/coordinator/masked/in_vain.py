"""InVain: rounds with noise whose sums helpers do not open, one after the other. No I/O. Part of RoundCoordinator.

A round is paid for before helpers are asked, since one may open its sum and its answer be lost. So a helper that
refuses every sum, say because it lacks the newest roster, would spend a whole budget in a minute, and no model would
come of it. Only an operator can mend that. So the second round in vain is followed by a pause, and each one after it by
a pause of twice the length. A pause ends early if the operator changes what helpers judge by: our roster, a helper's
keys, or the epoch of our certificate. It also ends with a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.terms import Party

LONGEST_S = 3600.0


class InVain:
    """`until`: when the pause ends before which no round with noise opens; None outside a pause. `pause_s`: how long
    the last pause is. `rounds` in a row were in vain, the last one because of `why`."""

    def __init__(self) -> None:
        self.until: float | None = None
        self.pause_s = 0.0  # that began last
        self.rounds, self.why = 0, ""
        self._helpers: Sequence[Party] = ()

    def add(self, helpers: Sequence[Party], why: str, patience_s: float, now: float) -> None:
        """One more. `patience_s`: how long a helper may take for an answer, and the first pause."""
        self.rounds, self.why, self._helpers = self.rounds + 1, why, helpers
        if self.rounds > 1:
            self.pause_s = min(LONGEST_S, patience_s * 2.0 ** min(self.rounds - 2, 32))
            self.until = now + self.pause_s

    def over(self) -> None:
        """A sum was opened, or an operator has changed something."""
        self.until, self.pause_s, self.rounds, self.why = None, 0.0, 0, ""

    def waits(self, helpers: Sequence[Party], now: float) -> bool:
        """Whether the next round, whose sum these helpers are to open, still has to wait. Other keys end the pause."""
        if self.until is not None and list(helpers) != list(self._helpers):
            self.over()
        if self.until is not None and now >= self.until:
            self.until = None
        return self.until is not None

    @property
    def advice(self) -> list[str]:
        """What an operator can do."""
        if self.until is None:
            return []
        return [
            f"the sums of {self.rounds} rounds in a row were not opened, and each has cost its epsilon, so the next "
            f"round waits: {self.why}. Once that is mended start the aggregator again, and it opens at once"
        ]
