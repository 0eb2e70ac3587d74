"""Settings: everything that can be chosen about a federation, declared once in a section.

    settings = Settings.load("aggregator.toml")             # or Settings(train=TrainSettings(lr=0.05))
    settings = settings.replace(lr=0.05, codec="ecq:step=2") # by name, or {"train.lr": 0.05}

sections.py, rounds.py, defences.py, features.py, personal.py, sparse.py and privacy.py have the sections, and
core/adapters.py one. schema.py says what a struct
declares and which values it allows, files.py reads TOML and `--set`, render.py writes sample files and the reference
page, spec.py reads `name:option=value`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import field

from ..core.adapters import AdapterSettings
from . import files, schema
from .defences import AdmissionSettings, GateSettings
from .features import FeatureSettings
from .personal import PersonalSettings
from .privacy import PrivacySettings
from .rounds import RoundSettings
from .sections import CodecSettings, DownlinkSettings, EvaluateSettings, Mode, StrategySettings, TrainSettings
from .sparse import SparseSettings

__all__ = [
    "AdapterSettings",
    "AdmissionSettings",
    "CodecSettings",
    "DownlinkSettings",
    "EvaluateSettings",
    "FeatureSettings",
    "GateSettings",
    "Mode",
    "PersonalSettings",
    "PrivacySettings",
    "RoundSettings",
    "Settings",
    "SparseSettings",
    "StrategySettings",
    "TrainSettings",
]
S = TypeVar("S", bound="Settings")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All sections. The struct itself checks nothing: `load`, `replace` and `checked` do, with UsageError."""

    rounds: RoundSettings = field(default_factory=RoundSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    strategy: StrategySettings = field(default_factory=StrategySettings)
    codec: CodecSettings = field(default_factory=CodecSettings)
    downlink: DownlinkSettings = field(default_factory=DownlinkSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    personal: PersonalSettings = field(default_factory=PersonalSettings)
    adapters: AdapterSettings = field(default_factory=AdapterSettings)
    sparse: SparseSettings = field(default_factory=SparseSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)

    @staticmethod
    def load(path: str | Path) -> Settings:
        """The sections of the TOML file at `path`. UsageError names every mistake.

        A file that names a `federation` is an aggregator's: its other keys and tables are left to the aggregator.
        """
        return files.load(path, Settings, only=lambda table: "federation" in table)

    def replace(self: S, **changes: Any) -> S:
        """These settings with some changed: `lr=0.05`, `codec="ecq"`, `**{"train.lr": 0.05}` or a whole section.

        UsageError for a name that no setting has and for a value that its setting does not allow.
        """
        return schema.replace(self, changes)

    def checked(self: S) -> S:
        """The same settings; UsageError if one holds a value that it does not allow."""
        return schema.checked(self)
