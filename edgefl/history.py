"""History: all rounds of a run, their sums, and what was run, as `--json` writes it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from . import __version__
from .auto import Choice, apply
from .core.params import params_sha256
from .errors import StoreError, UsageError, path_of
from .history_costs import Cost, costs
from .history_figures import Axis, draw
from .history_record import DETAIL, MOVED, RoundRecord
from .history_text import total
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Final(msgspec.Struct, frozen=True):
    """The sums of a run, the last model's scores, and the newest scores that devices have reported."""

    rounds: int
    committed: int
    accuracy: float | None
    loss: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    model_sha256: str
    float32_bytes: int = 0
    evaluated: int = 0
    device_accuracy: float | None = None
    device_loss: float | None = None
    elapsed_s: float = 0.0  # of a simulation, as in its records
    joules: tuple[float, float] | None = None
    personal_accuracy: float | None = None
    personal_loss: float | None = None

    @classmethod
    def start(cls, params: np.ndarray) -> Final:
        """Of a run that has led to these params; no round is added yet."""
        return cls(0, 0, None, None, 0, 0, 0, params_sha256(params))

    def after(self, record: RoundRecord) -> Final:
        """With one more round, the newest."""
        final = msgspec.structs.replace(
            self,
            rounds=self.rounds + 1,
            committed=self.committed + (record.state == "committed"),
            evaluated=self.evaluated + (record.state == "evaluated"),
            bytes_up=self.bytes_up + record.bytes_up,
            bytes_down=self.bytes_down + record.bytes_down,
            seconds=self.seconds + record.seconds,
            float32_bytes=self.float32_bytes + record.float32_bytes,
            elapsed_s=record.elapsed_s,
        )
        if record.joules is not None:
            low, high = self.joules or (0.0, 0.0)
            final = msgspec.structs.replace(final, joules=(low + record.joules[0], high + record.joules[1]))
        if record.state in MOVED:
            final = msgspec.structs.replace(final, accuracy=record.accuracy, loss=record.loss)
        if record.device_examples:
            told = {"device_accuracy": record.device_accuracy, "device_loss": record.device_loss}
            final = msgspec.structs.replace(final, **told)
        if record.personal:
            told = {"personal_accuracy": record.personal_accuracy, "personal_loss": record.personal_loss}
            final = msgspec.structs.replace(final, **told)
        return final


class Run(msgspec.Struct, frozen=True):
    """What was run: the settings with every "auto" resolved, the seed, and the versions it ran with.

    `auto` says what was chosen for "auto" and why; empty if nothing was. `fleet` has the options of a simulation.
    """

    settings: Settings
    seed: int
    versions: dict[str, str]
    auto: str = ""
    fleet: dict[str, Any] = {}

    @classmethod
    def of(cls, settings: Settings, choice: Choice | None, fleet: dict[str, Any] | None = None) -> Run:
        """The record of a run that starts now, by these settings; `choice` stands for every "auto" in them."""
        auto = "" if choice is None else choice.explain(settings)
        settings = settings if choice is None else apply(settings, choice)
        sections = {name: getattr(settings, name) for name in Settings.__struct_fields__}
        versions = {"edgefl": __version__, "python": platform.python_version(), "numpy": np.__version__}
        return cls(Settings(**sections), settings.train.seed, versions, auto, fleet or {})

    @classmethod
    def read(cls, path: Path) -> Run | None:
        """The record in this file, if there is one; StoreError if it can't be read."""
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} is damaged ({error}): the next start of the aggregator writes it again") from None


class History:
    """All rounds of a run, the params they led to, and what was run."""

    def __init__(self, params: np.ndarray, rounds: list[RoundRecord] | None = None, run: Run | None = None) -> None:
        self.params = params
        self.rounds = rounds or []
        self.run = run

    @property
    def final(self) -> Final:
        final = Final.start(self.params)
        for record in self.rounds:
            final = final.after(record)
        return final

    def rounds_to(self, accuracy: float) -> int | None:
        """The first round at which the test accuracy was at least `accuracy`, or None."""
        cost = self.cost_to(accuracy)
        return None if cost is None else cost.round

    def cost_to(self, accuracy: float) -> Cost | None:
        """What it took until the test accuracy was first at least `accuracy`: rounds, bytes, time and, in a simulation
        with a world, energy; None if it never was."""
        if isinstance(accuracy, bool) or not isinstance(accuracy, int | float | np.floating):
            raise UsageError(f"accuracy is {accuracy!r}: give a number from 0 to 1")
        found = zip(self.rounds, costs(self.rounds), strict=True)
        return next((cost for r, cost in found if r.has_new_model and (r.accuracy or 0.0) >= accuracy), None)

    def __repr__(self) -> str:
        return f"<History: {total(self.final)}>"

    def to_pandas(self) -> DataFrame:
        """A row for each round, by its number, with every number of its record; UsageError where pandas is missing.

        Lists stay in `rounds`: the devices, their traffic and times, the cohort, and the devices that were missed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise UsageError("a table of a history needs pandas: pip install pandas") from None
        columns = [name for name in RoundRecord.__struct_fields__ if name not in DETAIL]
        rows = [[getattr(record, name) for name in columns] for record in self.rounds]
        return DataFrame(rows, columns=columns).set_index("round")

    def plot(self, path: str | Path | None = None, title: str = "", *, against: Axis = "rounds") -> Figure:
        """Accuracy against rounds, with the devices that reported, or against megabytes, hours or joules; also written
        to `path`. UsageError where matplotlib is missing."""
        where = None if path is None else path_of(path)
        figure = draw(self.rounds, title, against)
        if where is not None:
            try:
                figure.savefig(where, dpi=120)
            except (OSError, ValueError) as error:  # a folder that is missing, an ending that matplotlib can't write
                raise UsageError(f"can't draw {where}: {error}") from None
        return figure

    def to_json(self) -> bytes:
        """`{"run": {...}, "rounds": [...], "final": {...}}`, a line for each round."""
        return b"".join(json_pieces(self.run, self.rounds, self.params))


def json_pieces(run: Run | None, records: Iterable[RoundRecord], params: np.ndarray) -> Iterator[bytes]:
    """What `History.to_json` returns, in pieces: one record is in memory at a time."""
    final, gap = Final.start(params), b""
    yield b'{"run": %b,\n"rounds": [\n' % msgspec.json.encode(run)
    for record in records:
        final = final.after(record)
        yield gap + msgspec.json.encode(record)
        gap = b",\n"
    yield b'\n],\n"final": %b}' % msgspec.json.encode(final)
