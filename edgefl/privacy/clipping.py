"""Adaptive clipping: the clip of the next round, from what this one tells. Pure functions. No I/O.

Which clip is right depends on the updates, and no party of a masked round sees one. So each device votes: was its
update no longer than the clip? The sum of the votes, with its noise, moves the clip toward the quantile that is wanted
(Andrew, Thakkar, McMahan, Ramaswamy 2021, arXiv:1905.03871, Algorithm 1):

    clip <- clip exp(-rate (within - quantile))

What devices can do is bounded: `within` is in [0, 1], so a round moves the clip by a factor of e^rate at most, and the
clip stays between `least` and `most`, whatever is voted. Noise is in units of the clip, so epsilon does not depend on
it: the votes are in the norm that is accounted (masking/propose.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import StoreError

RATE = 0.2
SPAN = 100.0  # the clip stays within a factor of this of the first


class ClipState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where an adaptive clip is: the `clip` of the next round, and the share of updates that was `within` the last one
    of which that is known. A commit makes it durable: of the records only the newest are read at a start, and not each
    of them has a clip."""

    clip: Annotated[float, Meta(gt=0, le=1e12)]
    within: Annotated[float, Meta(ge=0, le=1)] | None = None

    def to_text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def of_text(cls, text: bytes) -> ClipState:
        """What `to_text` has written, bit for bit; StoreError."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise StoreError("the adaptive clip is damaged: put a backup in its place") from None


@dataclass(frozen=True)
class Clipping:
    """`first`: the clip of the first round. `quantile` of updates shall be no longer than the clip; None: it is fixed.
    `most`: the largest clip, where that is less than SPAN times the first."""

    first: float
    quantile: float | None = None
    rate: float = RATE
    most: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest clip of any round."""
        if self.quantile is None:
            return self.first, self.first
        largest = self.first * SPAN
        return self.first / SPAN, largest if self.most is None else min(self.most, largest)

    def after(self, clip: float, within: float | None) -> float:
        """The clip that follows this one, of which so large a share of updates was `within`; None: nobody knows."""
        least, most = self.bounds
        if self.quantile is not None and within is not None:
            clip *= math.exp(-self.rate * (min(1.0, max(0.0, within)) - self.quantile))
        return min(most, max(least, clip))
