"""Profile: what a profile round has told of the devices' columns; as JSON, and as a table for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from .errors import StoreError

FILE = "profile.json"  # in the aggregator's state folder
EXACT = "devices", "values", "mean", "deviation", "from", "to"
NOISY = "devices", "mean", "its noise", "deviation", "from", "to"


class Bin(msgspec.Struct, array_like=True, frozen=True):
    """Values from `low` to `high` (None: open), on how many devices; with noise no counts, but the `share` of a
    device's values, in the mean of those that have any."""

    low: float | None
    high: float | None
    count: int
    devices: int
    share: float = 0.0


class ColumnProfile(msgspec.Struct, frozen=True):
    """Column number `column`, from 0. `low` and `high` are edges of the outermost bins that are shown, never values.
    `noise`: the standard deviation of what is added to the mean."""

    column: int
    devices: int
    count: int
    mean: float
    deviation: float
    low: float | None
    high: float | None
    bins: list[Bin]
    noise: float = 0.0


class LabelProfile(msgspec.Struct, array_like=True, frozen=True):
    """How many examples have this label, on how many devices; with noise no counts, but the mean `share` of a device's
    examples."""

    label: int
    count: int
    devices: int
    share: float = 0.0


class Profile(msgspec.Struct, frozen=True):
    """What `devices` have told together. Columns, bins and labels of fewer than `min_devices` are left out. `bounded`:
    no few devices could move means and deviations far (coordinator/profile/gathering.py). `version`: the model that has
    them as its scaling; None: no model has. `masked`: the aggregator has seen the sums of all devices, and none of one.
    `noise`: its standard deviation, in numbers of devices; 0: all is exact. With noise each device counts alike,
    whatever the number of its examples, and these and values are not told."""

    round: int
    devices: int
    examples: int
    min_devices: int
    bounded: bool
    columns: list[ColumnProfile]
    labels: list[LabelProfile]
    version: int | None = None
    masked: bool = False
    noise: float = 0.0

    def to_json(self) -> bytes:
        """As it is written into `FILE`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def read(cls, folder: Path) -> Profile | None:
        """The newest profile in an aggregator's state folder; None before the first one. StoreError."""
        path = folder / FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} can't be read ({error}): edgefl profile makes it anew") from None

    def table(self, columns: Sequence[str] = (), labels: Sequence[str] = ()) -> str:
        """In a few lines for each column; names of columns and labels stand in place of their numbers."""
        lines = [f"round {self.round}: {self.devices} devices{self._told}"]
        if self.version is not None:
            lines[0] += f"; version {self.version} of the model is scaled by this"
        head = "column", *(NOISY if self.noise else EXACT)
        lines += _aligned([head, *((_name(c.column, columns), *self._numbers(c)) for c in self.columns)])
        if not self.columns:
            lines.append(f"no column has values on {self.min_devices} devices or more")
        if self.labels:
            told = [(_name(each.label, labels), *self._of_label(each)) for each in self.labels]
            lines += ["", *_aligned([("label", "share") if self.noise else ("label", "devices", "examples"), *told])]
        few = f"left out: columns, ranges and labels of fewer than {self.min_devices} devices"
        lines.append(f"{few}, or that the noise may be all of" if self.noise else few)
        return "\n".join(lines)

    @property
    def _told(self) -> str:
        """Of how much, and how exactly."""
        if not self.noise:
            return f" with {self.examples} examples"
        return f", each counted alike, with noise of {self.noise:.3g} devices (standard deviation)"

    def _numbers(self, column: ColumnProfile) -> tuple[str, ...]:
        low, high = ("" if edge is None else f"{edge:.4g}" for edge in (column.low, column.high))
        mean, deviation = f"{column.mean:.6g}", f"{column.deviation:.6g}"
        if self.noise:
            return f"{column.devices}", mean, f"{column.noise:.2g}", deviation, low, high
        return f"{column.devices}", f"{column.count}", mean, deviation, low, high

    def _of_label(self, label: LabelProfile) -> tuple[str, ...]:
        return (f"{label.share:.3f}",) if self.noise else (f"{label.devices}", f"{label.count}")


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if number < len(names) else f"{number}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in rows]
