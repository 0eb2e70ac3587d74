"""What `aggregator.toml` may say. `edgefl-aggregator --print-config` writes a sample."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import asdict

from edgefl.codecs import CODECS
from edgefl.federation import Recipe, train_config
from edgefl.settings import MAX_LATE_ROUNDS, RoundConfig
from edgefl.transports.settings import MqttConfig

Option = int | float | str


class RoundsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[rounds]"""

    mode: Annotated[
        Literal["sync", "async"],
        Meta(description="async: a model for each goal updates, whatever round they are of; devices train on and on."),
    ] = "sync"
    deadline_s: Annotated[
        float, Meta(gt=0, le=1e9, description="A round ends after so many seconds at the latest.")
    ] = 300.0
    min_reports: Annotated[
        int,
        Meta(ge=1, description="With fewer reports at the deadline a round is abandoned, the model stays as it is."),
    ] = 2
    goal: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="End a round at so many reports; without it, when all who were asked have.",
                examples=[10],
            ),
        ]
        | None
    ) = None
    fraction: Annotated[
        float, Meta(gt=0, le=1, description="Share of the present devices that each round asks, drawn anew.")
    ] = 1.0
    over_select: (
        Annotated[
            float,
            Meta(
                ge=1,
                description="Ask so many times the goal, close at the goal; without goal, that is the fraction.",
                examples=[1.3],
            ),
        ]
        | None
    ) = None
    cohort: Annotated[
        Literal["list", "draw"],
        Meta(
            description="list: a round names the devices it asks; draw, or where they are too many: each device draws."
        ),
    ] = "list"
    late: Annotated[
        Literal["drop", "fold"],
        Meta(
            description="An update after its round: drop, or fold it into the open one with less weight (async: fold)."
        ),
    ] = "drop"
    late_rounds: Annotated[
        int, Meta(ge=1, le=MAX_LATE_ROUNDS, description="Rounds after its own in which an update is folded in.")
    ] = 3
    updates_per_s: (
        Annotated[
            float,
            Meta(
                gt=0,
                description="Devices spread their reports so that no more come in a second; without it, as measured.",
                examples=[100.0],
            ),
        ]
        | None
    ) = None
    expect: Annotated[
        int, Meta(ge=0, description="The first round waits for so many devices, at most one deadline long.")
    ] = 0
    rounds: (
        Annotated[int, Meta(ge=1, description="End after so many rounds; without it, go on.", examples=[100])] | None
    ) = None
    target_accuracy: (
        Annotated[float, Meta(ge=0, le=1, description="End at this accuracy on [evaluate]'s data.", examples=[0.97])]
        | None
    ) = None


class LocalConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[train]"""

    epochs: Annotated[int, Meta(description="Passes over its own data that a device makes in a round.")] = 1
    batch_size: Annotated[int, Meta(ge=0, description="Examples in a step of SGD; 0: all of them in one.")] = 10
    lr: Annotated[float, Meta(description="Learning rate.")] = 0.1
    optimizer: Annotated[
        Literal["sgd", "nesterov", "adam"], Meta(description="The local optimizer: sgd, nesterov or adam.")
    ] = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    prox_mu: Annotated[float, Meta(description="FedProx's pull towards the global model.")] = 0.0
    clip_norm: Annotated[float | None, Meta(description="Largest norm of a batch's gradient.", examples=[1.0])] = None
    max_steps: Annotated[int | None, Meta(description="Most steps in a round.", examples=[100])] = None
    seed: int = 0


class StrategyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[strategy]"""

    name: Annotated[str, Meta(description="How updates are combined: fedavg, fedavgm or fedsgd.")] = "fedavg"
    options: dict[str, Option] = {}
    spill_mb: Annotated[
        float,
        Meta(gt=0, le=1e6, description="Megabytes of disk for the updates of a round, if the strategy needs them all."),
    ] = 1024.0


class CodecConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[codec]"""

    name: Annotated[str, Meta(description=f"How updates are written: {', '.join(CODECS)}.")] = "raw32"
    options: dict[str, Option] = {}
    error_feedback: Annotated[
        bool | None,
        Meta(
            description="Devices add what the codec took from an update to the next; without it, as the codec needs.",
            examples=[True],
        ),
    ] = None
    part_bytes: Annotated[
        int, Meta(ge=256, le=2**20, description="Bytes of a tensor in one MQTT message: what every broker takes.")
    ] = Recipe.part_bytes


class DownlinkConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[downlink]"""

    codec: Annotated[
        str,
        Meta(
            description="How models are written: raw32, planes: whole; other codecs: as differences from earlier ones."
        ),
    ] = "raw32"
    options: dict[str, Option] = {}
    span: Annotated[
        int,
        Meta(ge=1, le=1000, description="Rounds whose differences start from one model: 1 where every device is asked "
             "in every round, else about 1 / fraction."),
    ] = 1  # fmt: skip


class EvaluateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """[evaluate]"""

    data: Annotated[
        str | None,
        Meta(
            description="A test set for the model of each round; its test part is used.", examples=["npz:/srv/test.npz"]
        ),
    ] = None
    devices: Annotated[
        bool, Meta(description="Devices hold examples out, and tell how each model that they receive does on those.")
    ] = False
    holdout: Annotated[
        float, Meta(gt=0, le=0.9, description="The share that they hold out: chosen once for ever, never trained on.")
    ] = 0.2
    every: Annotated[int, Meta(ge=2, description="One round in so many only evaluates.", examples=[10])] | None = None


class AggregatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """aggregator.toml"""

    federation: Annotated[str, Meta(description="Name of the federation: a-z, 0-9 and '-'.", examples=["my-fleet"])]
    model: Annotated[str, Meta(description="The ONNX file to train.", examples=["/srv/edgefl/start.onnx"])]
    mqtt: Annotated[MqttConfig, Meta(description="Where devices are.")]
    loss: Annotated[
        str | None,
        Meta(
            description="cross_entropy, bce, mse, l1, huber, hinge or focal; without it, inferred from the file.",
            examples=["mse"],
        ),
    ] = None
    freeze: Annotated[
        list[str], Meta(description="Initializers that are not trained: by name, glob, or the start of a name.")
    ] = []
    dims: Annotated[
        dict[str, int], Meta(description="Sizes of axes that the file leaves open, beside the samples'.")
    ] = {}
    state_dir: Annotated[
        str, Meta(description="Folder of all that survives a stop: aggregator.db, model.onnx, history.jsonl.")
    ] = "/var/lib/edgefl-aggregator"
    journal: (
        Annotated[
            str,
            Meta(
                description="Keep every accepted update in this file, for edgefl_broker.replay: without it none "
                "outlives its round.",
                examples=["/var/lib/edgefl-aggregator/journal.db"],
            ),
        ]
        | None
    ) = None
    rounds: Annotated[RoundsConfig, Meta(description="When a round opens and closes.")] = field(
        default_factory=RoundsConfig
    )
    train: Annotated[LocalConfig, Meta(description="What a device does with the model.")] = field(
        default_factory=LocalConfig
    )
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    downlink: DownlinkConfig = field(default_factory=DownlinkConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def round_config(self) -> RoundConfig:
        return RoundConfig(**asdict(self.rounds), evaluate_every=self.evaluate.every)

    def recipe(self) -> Recipe:
        """Raises UsageError for numbers out of bounds."""
        train = asdict(self.train)
        train["batch_size"] = train["batch_size"] or None
        return Recipe(
            train_config(**train), self.strategy.name, self.strategy.options, self.codec.name, self.codec.options,
            self.codec.part_bytes, self.codec.error_feedback, self.downlink.codec, self.downlink.options,
            self.downlink.span, self.evaluate.holdout if self.evaluate.devices else 0.0,
        )  # fmt: skip
