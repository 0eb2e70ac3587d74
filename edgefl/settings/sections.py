"""Every setting of a federation, declared once: its type, bounds, default and one sentence.

From a declaration come its key in TOML files, its `--set section.key=value`, its option of `edgefl simulate` with help,
its name in the Python API, its place in the manifest (or in the aggregator), and its row in docs/settings.md. To add a
setting, add a field here and use it. `Settings` in __init__.py holds the sections. A unit is part of a setting's name
(`deadline_s`, `part_bytes`), and a field called `name` is what its section's name stands for in the API and on the
command line: `codec="ecq"` sets `codec.name`.

Not here: what only a deployment needs (hosting/config.py, the agent's config.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..codecs import CODECS
from ..errors import UsageError
from ..strategies import STRATEGIES

MAX_LATE_ROUNDS = 100
MAX_SPAN = 1000
LEAST_LR = 1e-12  # that a decay leads to
INTERVAL_S = 60.0  # between two rounds of a deployment whose settings do not say

Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**32 - 1)]
OneOrMore = Annotated[int, Meta(ge=1)]
Real = Annotated[float, Meta(ge=0, le=1e6)]
AboveZero = Annotated[float, Meta(gt=0, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
Mode = Literal["train", "evaluate", "profile"]
Auto = Literal["auto"]
STRATEGY_NAMES, CODEC_NAMES = ", ".join(STRATEGIES), ", ".join(CODECS)  # annotations are compiled: no quotes in them


class TrainSettings(msgspec.Struct, frozen=True):
    """What a device does with the model of a round.

    The manifest contains all of these. A device ignores a setting that is newer than its own version.
    """

    epochs: Annotated[
        int, Meta(ge=1, le=10_000, description="Passes that a device makes over its examples in each round.")
    ] = 1
    batch_size: Annotated[
        Annotated[int, Meta(ge=1, le=2**24)] | Literal["all"],
        Meta(description='Examples in one step of the optimizer; "all" makes one batch of all examples.'),
    ] = 10
    lr: Annotated[AboveZero, Meta(description="Learning rate of the devices.")] = 0.1
    optimizer: Annotated[
        Literal["sgd", "nesterov", "adam"], Meta(description="Optimizer that a device trains with.")
    ] = "sgd"
    momentum: Annotated[
        float, Meta(ge=0, lt=1, description="Momentum of sgd and nesterov, beta1 of adam (0 stands for 0.9).")
    ] = 0.0
    weight_decay: Annotated[Real, Meta(description="Share of each weight that a step subtracts, times lr.")] = 0.0
    prox_mu: Annotated[Real, Meta(description="FedProx: strength of the pull towards the round's model.")] = 0.0
    clip_norm: Annotated[
        AboveZero | None,
        Meta(description="Largest norm of a batch's gradient; a longer one is scaled down.", examples=[1.0]),
    ] = None
    max_steps: Annotated[
        Positive | None, Meta(description="Most steps that a device takes in a round.", examples=[100])
    ] = None
    seed: Annotated[
        Count, Meta(description="Seed of the order of examples; in a simulation, of everything that is random.")
    ] = 0
    lr_decay: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Factor by which the learning rate falls from each round to the next: round r trains with lr "
            "times this to the power of r - 1.",
            examples=[0.998],
        ),
    ] = 1.0

    def lr_in(self, round: int) -> float:
        """The learning rate of round `round`, the first one being 1."""
        return self.lr if self.lr_decay == 1 else max(LEAST_LR, self.lr * self.lr_decay ** (round - 1))

    def in_round(self, round: int) -> TrainSettings:
        """These settings as they are in round `round`."""
        if self.lr_decay == 1:
            return self
        return msgspec.structs.replace(self, lr=self.lr_in(round), lr_decay=1.0)


class RoundSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices a round asks, and when it opens and closes."""

    mode: Annotated[
        Literal["sync", "async"],
        Meta(
            description='"sync": a round combines updates of its own model. "async": the aggregator commits a model '
            "after updates of `goal` devices, whichever round they belong to, and devices keep training (FedBuff)."
        ),
    ] = "sync"
    interval_s: Annotated[
        Annotated[float, Meta(ge=0, le=1e9)] | None,
        Meta(
            description="Least seconds from the opening of one round to the opening of the next; without it, "
            f"{INTERVAL_S:g} in a deployment and 0 in a simulation.",
            examples=[INTERVAL_S],
        ),
    ] = None
    window: Annotated[
        str | None,
        Meta(
            description="Daily hours in which rounds open, from HH:MM to before HH:MM, also across midnight; without "
            "it, all day.",
            examples=["01:00-05:00"],
        ),
    ] = None
    timezone: Annotated[
        str | None,
        Meta(
            description="Time zone of `window`, such as Europe/Berlin; without it, the machine's own.",
            examples=["Europe/Berlin"],
        ),
    ] = None
    only_new_data: Annotated[
        bool,
        Meta(
            description="Ask only devices whose data have changed since they last counted, and open a round when "
            "min_reports of them are there."
        ),
    ] = False
    deadline_s: Annotated[
        float,
        Meta(
            gt=0,
            le=1e9,
            description="Seconds after which a round with `min_reports` reports closes. With fewer, while devices that "
            "it needs are at work, it goes on, for up to eight times as long.",
        ),
    ] = 300.0
    min_reports: Annotated[
        OneOrMore,
        Meta(
            description="A round that has fewer reports at its last deadline is abandoned, and the model stays as it "
            "is."
        ),
    ] = 2
    goal: Annotated[
        OneOrMore | None,
        Meta(
            description="Number of reports at which a round closes; without it, a round closes when all devices "
            "that it waits for have reported.",
            examples=[10],
        ),
    ] = None
    fraction: Annotated[
        float, Meta(gt=0, le=1, description="Share of the present devices that a round asks, drawn anew each time.")
    ] = 1.0
    over_select: Annotated[
        Annotated[float, Meta(ge=1, le=1000)] | None,
        Meta(
            description="Ask this many times the goal and close at the goal; without `goal`, the goal is the fraction "
            "of the present devices.",
            examples=[1.3],
        ),
    ] = None
    selection: Annotated[
        str,
        Meta(
            description='Which devices a round asks, where it does not ask all: "uniform", each alike; '
            '"power-of-choice:d=N", those of N candidates with the highest loss; or "oort", by loss, size and speed.',
            examples=["power-of-choice:d=20"],
        ),
    ] = "uniform"
    cohort: Annotated[
        Literal["list", "draw"],
        Meta(
            description='"list": a round names the devices that it asks, unless they are too many. "draw": each device '
            "draws for itself from the round's seed."
        ),
    ] = "list"
    late: Annotated[
        Literal["drop", "fold"],
        Meta(
            description='What happens to an update after its round: "drop" it, or "fold" it into the open round with '
            "less weight. Asynchronous rounds always fold."
        ),
    ] = "drop"
    late_rounds: Annotated[
        int,
        Meta(ge=1, le=MAX_LATE_ROUNDS, description="Number of rounds after its own in which an update is folded in."),
    ] = 3
    updates_per_s: Annotated[
        AboveZero | None,
        Meta(
            description="Devices spread their reports so that at most this many arrive in a second; without it, as "
            "many as the aggregator was measured to handle.",
            examples=[100.0],
        ),
    ] = None
    expect: Annotated[
        int,
        Meta(
            ge=0,
            description="Number of devices in the fleet. The first round waits for all of them, for one deadline at "
            'most, and "auto" derives from it how often a device takes part. 0: unknown.',
        ),
    ] = 0
    rounds: Annotated[
        OneOrMore | None, Meta(description="Number of rounds to run; without it, rounds go on.", examples=[100])
    ] = None
    target_accuracy: Annotated[
        Share | None, Meta(description="Stop when the test set's accuracy reaches this.", examples=[0.97])
    ] = None
    evaluate_every: Annotated[
        Annotated[int, Meta(ge=2)] | None,
        Meta(
            description="One round in this many trains nothing and only evaluates the model on what the devices hold "
            "out (`evaluate.holdout`).",
            examples=[10],
        ),
    ] = None

    def mode_of(self, round: int) -> Mode:
        """What the round of this number does: its number alone decides, so a restart changes nothing."""
        return "evaluate" if self.evaluate_every and round % self.evaluate_every == 0 else "train"

    def check_evaluation(self, holdout: float) -> None:
        """UsageError if rounds should only evaluate and can't; devices hold out the share `holdout`."""
        if self.evaluate_every and not holdout:
            raise UsageError("evaluate_every needs examples that devices hold out: set evaluate.holdout above 0")
        if self.evaluate_every and self.mode == "async":
            raise UsageError("asynchronous rounds evaluate with every update: leave evaluate_every out")

    @property
    def late_window(self) -> int:
        """How many rounds after its own an update still counts."""
        return self.late_rounds if self.late == "fold" or self.mode == "async" else 0


class StrategySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How updates are combined into the next model."""

    name: Annotated[
        str,
        Meta(
            description=f"{STRATEGY_NAMES} or module:Class; options follow a colon.",
            examples=["fedsgd:lr=0.1"],
        ),
    ] = "fedavg"
    weights: Annotated[
        str,
        Meta(
            description='What an update counts: "examples", as many as the device has trained on; "uniform", every '
            'device alike; or "capped:N", its examples but at most N.',
            examples=["capped:500"],
        ),
    ] = "examples"
    spill_mb: Annotated[
        float,
        Meta(
            gt=0,
            le=1e6,
            description="Megabytes of disk for the updates of one round, if the strategy needs all of them at once.",
        ),
    ] = 1024.0


class CodecSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an update is written."""

    name: Annotated[
        str,
        Meta(
            description=f'"auto" follows how often a device takes part; else {CODEC_NAMES} or module:Class; options '
            "follow a colon.",
            examples=["ecq:step=1.5"],
        ),
    ] = "auto"
    error_feedback: Annotated[
        bool | Auto,
        Meta(description='Devices add what the codec lost of an update to the next one; "auto": as the codec needs.'),
    ] = "auto"
    part_bytes: Annotated[
        Annotated[int, Meta(ge=256, le=2**20)] | Auto,
        Meta(
            description='Most bytes of an update or model in one MQTT message; "auto": as [mqtt] profile says. '
            "A device on a slow link sends shorter parts."
        ),
    ] = "auto"


class DownlinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is written for the devices."""

    name: Annotated[
        str,
        Meta(
            description='"auto", or a codec and its options: raw32 and planes write each model whole, any other codec '
            "writes its difference from an earlier model.",
            examples=["ecq:step=8"],
        ),
    ] = "auto"
    span: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SPAN)] | Auto,
        Meta(
            description='Number of rounds whose differences start from the same model; "auto": 1 where a device takes '
            "part in most rounds, else about 1 / fraction."
        ),
    ] = "auto"


class EvaluateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the models are evaluated on."""

    test_data: Annotated[
        str | None,
        Meta(
            description="A test set at the aggregator: the test part of this data source evaluates each new model.",
            examples=["npz:/srv/test.npz"],
        ),
    ] = None
    holdout: Annotated[
        float,
        Meta(
            ge=0,
            le=0.9,
            description="Share of its examples that each device never trains on and evaluates each received model on.",
        ),
    ] = 0.0
