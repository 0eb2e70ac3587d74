"""History: what happened in each round, as the aggregator stores it and as `--json` writes it."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from . import __version__
from .auto import Choice, apply
from .core.params import params_sha256
from .errors import StoreError, UsageError, path_of
from .history_costs import Cost, costs
from .history_figures import Axis, draw
from .history_text import total
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

State = Literal["committed", "abandoned", "evaluated", "refused", "rollback"]
MOVED = ("committed", "rollback")  # states whose version is a new one
SPENT = ("committed", "refused")  # states in which updates count for good


def without_name(text: str, device: str) -> str:
    """The text without the name of this device, where it stands by itself."""
    return re.sub(rf"(?<![A-Za-z0-9._-]){re.escape(device)}(?![A-Za-z0-9._-])", "a device that was removed", text)


NOTHING = msgspec.Raw(b"{}")  # left out, if it is this very object


class RoundRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One round that is over. Bytes are MQTT payload bytes; `seconds` run from opening to commit. As JSON, fields that
    have their default are left out.

    `bytes_up` counts every part of an update that arrived for the round. `bytes_down` counts what the reporting devices
    say they have received since their last report: manifest, rounds, model, receipts. `float32_bytes` is the size of an
    uncompressed model for each device that reported; a round that only evaluates has 0.

    `devices` reported an update of this round; `folded` lists late updates of earlier rounds as (device, round).
    `reported` counts both. `rejected` counts updates refused as invalid, `deferred` those that had to wait until the
    aggregator had room.

    `accuracy` and `loss` are the new model's on the test set, if there is one. `device_accuracy` and `device_loss` are
    means over the `device_examples` examples that `devices` hold out, for the model that the round began with. A round
    that only evaluates has the state "evaluated" and the version that it found.

    `personal` of the devices that evaluated have a model of their own (docs/personal.md), of which `own` keep it, since
    it is better on their examples than the received one. `personal_accuracy` and `personal_loss` are those of the
    models that they keep, on the same examples as `device_accuracy`.

    A round whose model the gate refuses (coordinator/gate.py) has the state "refused" and the version that it found;
    its scores are those of the refused model. In a "rollback" the operator has had the model of version `restored`
    committed again, as a new version; a round that was open then ended with it.

    `why` says why a round was abandoned or refused: of an abandoned one, what became of the devices that it asked, at
    most a dozen by name.

    `closed_at` is when the round ended, in seconds after the start of 1970, UTC; 0 if the aggregator's clock could not
    be trusted. It is virtual in a simulation.

    `budgets` has the devices whose owners' byte budgets mattered at the round's end: the bytes that the update could
    take, 0 for a device that sat the round out.

    `missed` says of each device that was asked and has not counted why it did not, or why the round did not wait for it
    (coordinator/standing.py); devices that a round closed without, at its goal, are left out. `deadlines`: how many
    deadlines the round lasted, rounded up.

    `chain` is the hash of all model versions up to `version`, and `previous` that of the version before, where keys are
    on (coordinator/signing.py).
    `refused` counts the messages that were refused since the round before was over, by device and code
    (protocol/refusals.py). `barred` has the devices that were in quarantine or muted at the round's end, and why.
    `profile`: devices told statistics of their columns (coordinator/profile_rounds.py). If the model got them as its
    scaling, the state is "committed", else "evaluated".
    `lowered` has the devices whose update counted with a lower weight, and that weight (coordinator/influence.py).

    Only a simulation knows the last two: `elapsed_s`, virtual seconds from the start of the run to the round's end, and
    `joules`, what all devices have spent on the federation since the round before was over, as a range; None if nobody
    has said what they spend (simulation/world.py).
    """

    round: int
    state: State
    version: int
    reported: int
    devices: list[str]
    num_examples: int
    train_loss: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    accuracy: float | None = None
    loss: float | None = None
    float32_bytes: int = 0
    device_examples: int = 0
    device_accuracy: float | None = None
    device_loss: float | None = None
    rejected: int = 0
    deferred: int = 0
    by_device: msgspec.Raw = msgspec.field(name="traffic", default=msgspec.Raw(b"{}"))
    folded: list[tuple[str, int]] = []
    cohort: msgspec.Raw = msgspec.Raw(b"null")  # as the round announced it
    why: str = ""
    closed_at: int = 0
    budgets: dict[str, int] = {}
    attempt: int = 0  # the aggregator's start that closed the round (fence.py); 0 in records that are older
    missed: dict[str, str] = {}
    by_time: msgspec.Raw = msgspec.field(name="times", default=msgspec.Raw(b"{}"))
    deadlines: int = 1
    restored: int | None = None
    previous: str = ""
    chain: str = ""
    refused: dict[str, dict[str, int]] = {}
    barred: dict[str, str] = {}
    lowered: dict[str, int] = {}
    by_influence: msgspec.Raw = msgspec.field(name="influence", default=msgspec.Raw(b"{}"))
    profile: bool = False
    elapsed_s: float = 0.0
    joules: tuple[float, float] | None = None
    personal: int = 0
    own: int = 0
    personal_accuracy: float | None = None
    personal_loss: float | None = None
    by_loss: msgspec.Raw = msgspec.field(name="losses", default=NOTHING)

    @property
    def base(self) -> int:
        """The version that the round began with."""
        return self.version - self.has_new_model

    @property
    def has_new_model(self) -> bool:
        """Whether the version is a new one."""
        return self.state in MOVED

    @property
    def traffic(self) -> dict[str, tuple[int, int]]:
        """Device -> (bytes up, bytes down), for every device that sent a part; the sums are the round's.

        A record holds this as JSON, in a tenth of the memory: fleets are large and histories long.
        """
        return msgspec.json.decode(self.by_device, type=dict[str, tuple[int, int]])

    @property
    def times(self) -> dict[str, float]:
        """Device -> seconds from the opening of a round to the arrival of the device's whole valid update of it, for
        every such update that arrived in this round; held as JSON, like `traffic`."""
        return msgspec.json.decode(self.by_time, type=dict[str, float])

    @property
    def influence(self) -> dict[str, tuple[int, float]]:
        """Device -> (examples, norm of the delta) of the newest update that counted, or was refused for these two; held
        as JSON, like `traffic`. Empty where influence is not bounded."""
        return msgspec.json.decode(self.by_influence, type=dict[str, tuple[int, float]])

    @property
    def losses(self) -> dict[str, tuple[int, float]]:
        """Device -> (examples, training loss) of the newest update that counted; held as JSON, like `traffic`. Empty
        where `rounds.selection` does not choose by them."""
        return msgspec.json.decode(self.by_loss, type=dict[str, tuple[int, float]])

    def without_detail(self) -> RoundRecord:
        """The record without what it has of each device: the sums of a round that is long over."""
        return msgspec.structs.replace(self, **DETAIL)

    def without_device(self, device: str) -> RoundRecord:
        """The record without the name of one device, which counts in its sums all the same."""
        found: dict[str, Any] = {"why": without_name(self.why, device)}
        for name in DETAIL:
            value = getattr(self, name)
            raw = isinstance(value, msgspec.Raw)
            value = msgspec.json.decode(value) if raw else value
            if isinstance(value, dict) and name != "cohort":
                value = {key: told for key, told in value.items() if key != device}
            elif isinstance(value, list):
                value = [one for one in value if (one if isinstance(one, str) else one[0]) != device]
            found[name] = msgspec.Raw(msgspec.json.encode(value)) if raw else value
        return msgspec.structs.replace(self, **found)


# What a record has of each device, and its value where that was dropped.
DETAIL: dict[str, Any] = {
    "devices": [], "folded": [], "by_device": msgspec.Raw(b"{}"), "cohort": msgspec.Raw(b"null"), "missed": {},
    "by_time": msgspec.Raw(b"{}"), "budgets": {}, "refused": {}, "barred": {}, "lowered": {},
    "by_influence": msgspec.Raw(b"{}"), "by_loss": NOTHING,
}  # fmt: skip


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
