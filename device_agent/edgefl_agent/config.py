"""What `agent.toml` may say. `edgefl-agent --print-config` writes a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field, structs

from edgefl.device.owner.budget import Limits
from edgefl.device.owner.policy_config import PolicyConfig
from edgefl.hosting import sensors
from edgefl.settings.hours import Hours
from edgefl.transports.settings import MqttConfig
from edgefl.trust.settings import KeysConfig

from .governor import MB, Wanted, share
from .ledger import LEDGER_MONTHS
from .model_config import ModelConfig
from .record_config import RecordConfig

# What the agent may change while it runs (edgefl/hosting/reload.py); all else stands in what it has opened, or said.
LIVE = frozenset(
    {
        "pause_file",
        *(
            f"limits.{name}"
            for name in (
                "cpu_percent", "mains_only", "max_celsius", "pause_when_throttled", "unmetered_only",
                "min_free_disk_mb", "min_free_memory_mb", "pause_command",
            )
        ),
    }
)  # fmt: skip


class DataConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is trained on."""

    source: Annotated[
        str,
        Meta(
            description="The examples, which never leave this device: csv:FILE?target=COL, npz:FILE, "
            "sqlite:FILE?query=...&target=COL, folder:DIR?..., ring:FILE?..., module:callable or a plug-in's; "
            "docs/data.md has all of them. Read again when it has changed.",
            examples=["csv:/var/lib/edgefl/data.csv?target=weight"],
        ),
    ]


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What this device is willing to do."""

    max_model_mb: Annotated[
        Annotated[float, Meta(gt=0, le=4096)] | None,
        Meta(
            description="Refuse a model with more megabytes of params; else a sixteenth of the memory, at most 64.",
            examples=[16.0],
        ),
    ] = None
    max_arena_mb: Annotated[
        Annotated[float, Meta(gt=0, le=65536)] | None,
        Meta(
            description="Memory to train in, in megabytes; else a quarter of the machine's, at most 256. "
            "A model that needs more computes activations again, then takes smaller batches, and else is refused.",
            examples=[64.0],
        ),
    ] = None
    cpu_percent: Annotated[
        int, Meta(ge=1, le=100, description="Training computes for this share of the time, and rests else.")
    ] = 100
    threads: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Threads that training computes with, each for the share cpu_percent of the time. What the "
            "device learns is the same, to the last bit, whatever their number.",
        ),
    ] = 1
    nice: Annotated[int, Meta(ge=0, le=19, description="Scheduling priority of training: 19 yields to all else.")] = 10
    max_mb_per_day: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | None,
        Meta(description="Megabytes of MQTT packets a day, both ways; they are spent evenly.", examples=[20.0]),
    ] = None
    max_mb_per_month: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | None,
        Meta(description="Megabytes a calendar month; each day gets its share of what is left.", examples=[300.0]),
    ] = None
    hours: Annotated[
        str | None,
        Meta(
            description="Take part in rounds from HH:MM to before HH:MM only, in local time.", examples=["22:00-06:00"]
        ),
    ] = None

    mains_only: Annotated[bool, Meta(description="Pause while the machine runs on its battery.")] = False
    max_celsius: Annotated[
        Annotated[float, Meta(gt=0, le=150)] | None,
        Meta(
            description="Pause while a thermal zone is hotter, and until all are 5 degrees cooler than that.",
            examples=[75.0],
        ),
    ] = None
    pause_when_throttled: Annotated[
        bool, Meta(description="Pause while a Raspberry Pi is throttled, or has too little voltage.")
    ] = False
    unmetered_only: Annotated[
        bool, Meta(description="Pause while NetworkManager takes the link for a metered one, or guesses so.")
    ] = False
    min_free_disk_mb: Annotated[
        Annotated[float, Meta(ge=0, le=1e9)] | None,
        Meta(
            description="Pause while fewer megabytes are free on the disk of state_dir; else a twentieth of the disk, "
            "at most 256.",
            examples=[100.0],
        ),
    ] = None
    min_free_memory_mb: Annotated[
        Annotated[float, Meta(ge=0, le=1e9)] | None,
        Meta(
            description="Pause while fewer megabytes of memory are available; else a sixteenth of the memory, at most "
            "256.",
            examples=[50.0],
        ),
    ] = None
    pause_command: Annotated[
        list[str],
        Meta(
            description="A program and its arguments, run about every 5 seconds without a shell. Exit code 0 goes on; "
            "any other one, or none within 10 seconds, pauses, and the first line of its output is the reason, which "
            "the operator sees.",
            examples=[["/usr/local/bin/may-train"]],
        ),
    ] = []

    def model_bytes(self) -> int:
        """The largest model that is accepted."""
        return _bytes(self.max_model_mb, 1 / 16, 64)

    def arena_bytes(self) -> int:
        """The most memory that a model may take to train, beside its params."""
        return _bytes(self.max_arena_mb, 1 / 4, 256)

    def governor(self, state_dir: str) -> Wanted:
        """The limits that pause the device."""
        return Wanted(
            Path(state_dir), self.mains_only, self.max_celsius, self.pause_when_throttled, self.unmetered_only,
            self.min_free_disk_mb, self.min_free_memory_mb, tuple(self.pause_command),
        )  # fmt: skip

    def budget(self) -> Limits:
        """The limits of bytes and hours; UsageError."""
        day, month = (None if mb is None else int(mb * 1e6) for mb in (self.max_mb_per_day, self.max_mb_per_month))
        return Limits(day, month, None if self.hours is None else Hours.parse("limits.hours", self.hours))


def _bytes(mb: float | None, part: float, most_mb: float) -> int:
    return int(share(sensors.memory(), part, most_mb) if mb is None else mb * MB)


class PluginsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Code of others that this device may run."""

    codecs: Annotated[
        list[str],
        Meta(
            description="Codecs of your own that a manifest may name, as module:Class. Installed ones need no line.",
            examples=[["my_package.codecs:Tiny"]],
        ),
    ] = []


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """agent.toml"""

    federation: Annotated[
        str, Meta(description="Name of the federation, as in aggregator.toml.", examples=["my-fleet"])
    ]
    device_id: Annotated[
        str,
        Meta(
            description="This device: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', unique in the fleet.",
            examples=["pi-kitchen"],
        ),
    ]
    mqtt: Annotated[MqttConfig, Meta(description="Where updates go.")]
    data: Annotated[DataConfig, Meta(description="What is trained on.")]
    state_dir: Annotated[
        str,
        Meta(
            description="Folder of what must survive a power cut (agent.db); a relative path begins where the program "
            "is started."
        ),
    ] = "/var/lib/edgefl"
    ledger_months: Annotated[
        int,
        Meta(ge=1, le=1200, description="Months for which the ledger keeps what left the device: edgefl-agent sent."),
    ] = LEDGER_MONTHS
    pause_file: Annotated[
        str | None,
        Meta(
            description="While this file exists nothing is trained: the owner's off switch.",
            examples=["/run/edgefl/pause"],
        ),
    ] = None
    keys: Annotated[KeysConfig, Meta(description="Who may sign.")] = field(default_factory=KeysConfig)
    limits: Annotated[LimitsConfig, Meta(description="What this device is willing to do.")] = field(
        default_factory=LimitsConfig
    )
    policy: Annotated[PolicyConfig, Meta(description="What a federation may train here.")] = field(
        default_factory=PolicyConfig
    )
    record: Annotated[RecordConfig, Meta(description="What `edgefl-agent record` keeps of sensors' messages.")] = field(
        default_factory=RecordConfig
    )
    model: Annotated[ModelConfig, Meta(description="The trained model as files for this device's own programs.")] = (
        field(default_factory=ModelConfig)
    )
    plugins: Annotated[
        PluginsConfig, Meta(description="Code of others that this device may run. A message never adds to it.")
    ] = field(default_factory=PluginsConfig)

    def located(self, folder: Path) -> AgentConfig:
        """The same, of a file in `folder`: there [keys] begins, and in [keys] are the TLS files that [mqtt] lacks."""
        keys = self.keys.located(folder)
        return structs.replace(self, keys=keys, mqtt=self.mqtt.with_keys(keys, "device"))
