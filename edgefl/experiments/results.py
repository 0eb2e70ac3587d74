"""Results: what one run was measured to be, round by round, and the file that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..errors import StoreError
from ..history import Run
from ..history_costs import costs
from ..history_record import RoundRecord
from .cases import Case

COSTS = ("rounds", "megabytes", "hours", "joules")
UNITS = {"rounds": "rounds", "megabytes": "MB", "hours": "h", "joules": "J"}
Column = list[float | None]
Scores = Mapping[str, float | None]


class Curve(msgspec.Struct, frozen=True):
    """One value a round in each column, costs summed up from the start. None: not measured.

    `megabytes` are sent and received by all devices; `hours` are virtual; `joules` are those of all devices, where a
    file says what they spend, in the middle of the range from `joules_low` to `joules_high`. `accuracy` and `loss` are
    the test set's, `held_accuracy` and `held_loss` those of all devices' held-out examples, `worst_accuracy` and
    `worst_loss` the mean over the tenth of the devices where the model is worst.
    """

    rounds: Column = []
    megabytes: Column = []
    hours: Column = []
    joules: Column = []
    joules_low: Column = []
    joules_high: Column = []
    accuracy: Column = []
    loss: Column = []
    held_accuracy: Column = []
    held_loss: Column = []
    worst_accuracy: Column = []
    worst_loss: Column = []

    def column(self, name: str) -> np.ndarray:
        """(R,) float64, NaN where nothing was measured."""
        return np.array([np.nan if value is None else value for value in getattr(self, name)], np.float64)

    @classmethod
    def of(cls, records: Sequence[RoundRecord], held: Mapping[int, Scores]) -> Curve:
        """The curve of a run; `held` has by round what the held-out examples say."""
        curve = cls()
        for record, cost in zip(records, costs(records), strict=True):
            low, high = cost.joules or (None, None)
            row: dict[str, float | None] = {name: cost.on(name) for name in COSTS}
            row |= {"joules_low": low, "joules_high": high, **held.get(record.round, {})}
            if record.has_new_model:
                row |= {"accuracy": record.accuracy, "loss": record.loss}
            for name in cls.__struct_fields__:
                getattr(curve, name).append(row.get(name))
        return curve


class Result(msgspec.Struct, frozen=True):
    """A finished run. `took_s` is real time."""

    case: Case
    run: Run
    curve: Curve
    model_sha256: str
    took_s: float

    def to_json(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"


def read(path: Path) -> Result | None:
    """The result in a file; None if there is none. StoreError if it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is no result of a run ({error}): remove it, and it is run again") from None


def quality(curves: Iterable[Curve], *, by_devices: bool = False) -> str:
    """The column that is compared: accuracy or loss of the test set. Where there is none, or devices are the judges,
    that of the held-out examples."""
    curves = list(curves)
    held, test = ("held_accuracy", "held_loss"), ("accuracy", "loss")
    for name in (*held, *test) if by_devices else (*test, *held):
        if any(value is not None for curve in curves for value in getattr(curve, name)):
            return name
    return "accuracy"


def at_end(curve: Curve, name: str, last: int) -> float:
    """Mean over the last `last` rounds with a value; NaN if there are none."""
    values = curve.column(name)
    values = values[np.isfinite(values)][-last:]
    return float(values.mean()) if len(values) else float("nan")


def under(curve: Curve, name: str, cost: str, budget: float, last: int) -> float:
    """As `at_end`, of the rounds that the budget pays for; NaN if it pays for none, or the cost is not measured."""
    spent, values = curve.column(cost), curve.column(name)
    values = values[(spent <= budget * (1 + 1e-9)) & np.isfinite(values)][-last:]
    return float(values.mean()) if len(values) else float("nan")


def cost_to(curve: Curve, name: str, target: float, cost: str) -> float:
    """What was spent until the first round that reached `target`; NaN if none did. A loss is reached from above."""
    values = curve.column(name)
    with np.errstate(invalid="ignore"):
        reached = values <= target if name.endswith("loss") else values >= target
    return float(curve.column(cost)[int(reached.argmax())]) if reached.any() else float("nan")


def total(curve: Curve, cost: str) -> float:
    """What the whole run has spent; NaN if it is not measured."""
    return float(curve.column(cost)[-1]) if curve.rounds else float("nan")
