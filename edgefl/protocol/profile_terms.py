"""ProfileTerms: what a device tells in a masked round of mode "profile", in the place of a delta. No I/O.

All devices send the same coordinates, so there is one for every bin and label that may occur. Without noise they are
counts, which add up exactly; W is the width of a column's part:

    examples | labels: count of each | labels: 1 where there are any
    for each column   values | 1 if any | sum, digits | sum of squares, digits | bins: count | bins: 1 where any

Sum and sum of squares are those of statistics.py, of up to 100 and 200 bits and those of the count. A digit of 2^b
stands for each b bits, with the sign of the number, and b is the largest for which 2^b - 1 is within the reach. So what
is opened are the very sums that devices would tell in the clear. `bins` of the histogram are in an octave: 4 as there,
or fewer where a column's 513 would take too much; 0 leaves them out.

Noise would drown the higher digits, and needs a bound on what one device can change. So where there is noise, columns
have `ranges`, and a device tells of itself alike whatever the number of its examples. A value x counts as u, -1 to 1 in
its range, and as one of the ends beyond it:

    share of its examples with each label
    for each column   1 if there are values | mean of u | mean of u squared | share of its values in each of `bins`

Each is in units of 1 / reach, and the squares of all add up to `most2` at most.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .statistics import BINS, MOST_LABELS, SQUARE_BITS, SUM_BITS, VALUE_BITS

OCTAVE = 4  # bins of the finest histogram in an octave
MOST_COLUMNS = 4096
ROOM = 2**16  # coordinates, if a coarser histogram makes them fit
IN_RANGE = 16  # bins of equal width in a range
MOMENTS = 3  # numbers of a column with a range beside its bins

Edge = Annotated[float, Meta(ge=-(2.0**VALUE_BITS), le=2.0**VALUE_BITS)]


class ProfileTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The coordinates of a profile of so many columns and labels; labels from `labels` on are left out. `ranges`: low
    and high of each column, or one pair for all; none: counts."""

    columns: Annotated[int, Meta(ge=0, le=MOST_COLUMNS)]
    labels: Annotated[int, Meta(ge=0, le=MOST_LABELS)] = 0
    bins: Annotated[int, Meta(ge=0, le=IN_RANGE)] = 0
    ranges: Annotated[tuple[tuple[Edge, Edge], ...], Meta(max_length=MOST_COLUMNS)] = ()

    @classmethod
    def fitting(cls, columns: int, labels: int, reach: int) -> ProfileTerms:
        """With the finest histogram that there is room for."""
        found = (cls(columns, labels, bins) for bins in (OCTAVE, 2, 1))
        return next((one for one in found if one.length(reach) <= ROOM), cls(columns, labels))

    @property
    def sides(self) -> int:
        """The bins of a column on either side of the one about 0."""
        return BINS * self.bins // OCTAVE

    @property
    def keys(self) -> int:
        """All bins of a column."""
        return 2 * self.sides + 1 if self.bins else 0

    @property
    def head(self) -> int:
        """The coordinates before those of columns."""
        return 1 + 2 * self.labels

    def width(self, reach: int) -> int:
        """W."""
        return 2 + sum(digits(reach)) + 2 * self.keys

    def length(self, reach: int) -> int:
        """d, the coordinates of all."""
        if self.ranges:
            return self.labels + self.columns * (MOMENTS + self.bins)
        return self.head + self.columns * self.width(reach)

    def fault(self) -> str:
        """Why they can't be; "" if they can."""
        if not self.ranges:
            return "" if self.bins in (0, 1, 2, OCTAVE) else f"{self.bins} bins in an octave"
        if len(self.ranges) not in (1, self.columns):
            return f"{len(self.ranges)} ranges for {self.columns} columns"
        return "a range that is empty" if any(low >= high for low, high in self.ranges) else ""

    # ---- with ranges

    @property
    def most2(self) -> int:
        """The largest sum of squares of one device's numbers, in units of 1."""
        return (self.labels > 0) + self.columns * (MOMENTS + (self.bins > 0))

    def range_of(self, column: int) -> tuple[float, float]:
        """Low and high of a column."""
        return self.ranges[column if len(self.ranges) > 1 else 0]


def digit_bits(reach: int) -> int:
    """b."""
    return (reach + 1).bit_length() - 1


def digits(reach: int) -> tuple[int, int]:
    """How many digits a sum and a sum of squares have, of at most `reach` values."""
    bits = digit_bits(reach)
    counted = reach.bit_length()
    most = VALUE_BITS + SUM_BITS + counted, 2 * VALUE_BITS + SQUARE_BITS + counted
    return -(-most[0] // bits), -(-most[1] // bits)
