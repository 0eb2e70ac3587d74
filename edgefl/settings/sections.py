"""Every setting of a federation, declared once: its type, bounds, default and one sentence.

From a declaration come its key in TOML files, its `--set section.key=value`, its option of `edgefl simulate` with help,
its name in the Python API, its place in the manifest (or in the aggregator), and its row in docs/settings.md. To add a
setting, add a field and use it, here or in one of the files like this one: rounds.py, defences.py, features.py,
personal.py. `Settings` in __init__.py holds the sections. A unit is part of a setting's name
(`deadline_s`, `part_bytes`), and a field called `name` is what its section's name stands for in the API and on the
command line: `codec="ecq"` sets `codec.name`.

Not here: what only a deployment needs (hosting/config.py, the agent's config.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..codecs import CODECS
from ..strategies import STRATEGIES

MAX_SPAN = 1000
LEAST_LR = 1e-12  # that a decay leads to

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
            "writes its difference from an earlier model; grid rounds models to few digits.",
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
    frozen: Annotated[
        Literal["once", "always"],
        Meta(
            description='"once": what no training changes, such as frozen weights, goes to each device once, which '
            'keeps it on disk; "always": in each whole model, for devices that do not know the other way.'
        ),
    ] = "once"


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
