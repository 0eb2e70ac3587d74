"""What `aggregator.toml` may say: the settings, and what only a deployment needs.

Here, not beside the aggregator, because `edgefl simulate --config` runs the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, field, structs

from ..protocol.topics import AGGREGATOR_USER
from ..settings import Settings
from ..settings.reading import AlsoTrain, Constants, Freeze, Tie, Untie
from ..transports.settings import MqttConfig
from ..trust.settings import KeysConfig
from .dashboard import DashboardConfig
from .home_assistant import HomeAssistantConfig


class AggregatorConfig(Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """aggregator.toml"""

    federation: Annotated[str, Meta(description="Name of the federation: a-z, 0-9 and '-'.", examples=["my-fleet"])]
    model: Annotated[
        str,
        Meta(
            description="The ONNX file to train; a relative path begins where the program is started.",
            examples=["/srv/edgefl/start.onnx"],
        ),
    ]
    mqtt: Annotated[MqttConfig, Meta(description="Where devices are.")]
    keys: Annotated[KeysConfig, Meta(description="Who may sign.")] = field(default_factory=KeysConfig)
    dashboard: Annotated[DashboardConfig, Meta(description="A page for operators, /api and /metrics.")] = field(
        default_factory=DashboardConfig
    )
    home_assistant: Annotated[HomeAssistantConfig, Meta(description="The fleet in Home Assistant.")] = field(
        default_factory=HomeAssistantConfig
    )
    loss: Annotated[
        str | None,
        Meta(
            description="cross_entropy, bce, mse, l1, huber, hinge or focal; without it, inferred from the file. To "
            "train several outputs at once, OUTPUT=NAME[:WEIGHT] for each, with commas.",
            examples=["mse"],
        ),
    ] = None
    freeze: Freeze = field(default_factory=list)
    also_train: AlsoTrain = field(default_factory=list)
    tie: Tie = field(default_factory=list)
    untie: Untie = field(default_factory=list)
    dims: Annotated[
        dict[str, int], Meta(description="Sizes of axes that the file leaves open, beside the samples'.")
    ] = field(default_factory=dict)
    constants: Constants = field(default_factory=dict)
    state_dir: Annotated[
        str,
        Meta(
            description="Folder of everything that survives a stop: aggregator.db, model.onnx, history.jsonl, "
            "run.json; a relative path begins where the program is started."
        ),
    ] = "/var/lib/edgefl-aggregator"
    history_mb: Annotated[
        float,
        Meta(
            ge=16,
            le=1e6,
            description="Megabytes of history.jsonl and its older parts. When they are full, the oldest rounds keep "
            "their sums only, without each device; when those fill a quarter, the oldest of them go.",
        ),
    ] = 1000.0
    keep_models: Annotated[
        int,
        Meta(
            ge=3,
            le=10_000,
            description="Number of the newest models that aggregator.db keeps beside tagged ones (`edgefl versions`).",
        ),
    ] = 10
    models_mb: Annotated[
        float,
        Meta(
            gt=0,
            le=1e6,
            description="Megabytes that these models may take; the newest three are kept, however large they are.",
        ),
    ] = 256.0
    journal: Annotated[
        str | None,
        Meta(
            description="Keep every accepted update in this file, for edgefl_broker.replay; without it, an update is "
            "kept until its round is committed.",
            examples=["/var/lib/edgefl-aggregator/journal.db"],
        ),
    ] = None

    def located(self, folder: Path) -> AggregatorConfig:
        """The same, of a file in `folder`: there [keys] begins, and in [keys] are the TLS files that [mqtt] lacks."""
        keys = self.keys.located(folder)
        mqtt = self.mqtt.with_keys(keys, AGGREGATOR_USER)
        if self.home_assistant.enabled:
            self.home_assistant.broker(mqtt)
        return structs.replace(self, keys=keys, mqtt=mqtt)
