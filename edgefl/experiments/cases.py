"""Case: one simulation as plain values. All that decides the bits of a run is in it; its hash names the run's file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from .. import data as sources
from ..data import digest
from ..errors import UsageError
from ..onnx.specs import is_spec
from ..settings import Settings
from ..settings.schema import settings_of
from ..simulation.options import FleetOptions

KEY = 12  # hex digits of a case's hash
SLUG = 100
NO_BITS = ("workers", "threads", "resume_mb", "engine")  # of the fleet
Judge = Literal["model", "devices"]


class Case(msgspec.Struct, frozen=True, omit_defaults=True):
    """`settings` and `fleet` are what differs from the defaults, by key: a default never changes, so a case keeps its
    hash when settings are added. `judge`: what devices hold out judges the "model" of one round in `held_every`, or the
    "devices" report what it says of the models that they use."""

    model: str
    data: str
    settings: dict[str, Any]
    fleet: dict[str, Any]
    held_every: int = 1
    judge: Judge = "model"
    loss: str | None = None
    freeze: list[str] = []
    also_train: list[str] = []
    tie: list[str] = []
    untie: list[str] = []
    dims: dict[str, int] = {}
    constants: dict[str, float] = {}
    world: str = ""  # the file that says what devices are like
    contents: dict[str, str] = {}  # SHA-256 of each of these files, and of the examples of each SPEC

    @property
    def key(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:KEY]

    @property
    def seed(self) -> int:
        return int(self.settings.get("train.seed", 0))

    def to_settings(self) -> Settings:
        """All settings of the run."""
        return Settings().replace(**self.settings)


def changed(struct: msgspec.Struct) -> dict[str, Any]:
    """What differs from the defaults of the struct's own type, by key."""
    defaults = {setting.key: setting.default for setting in settings_of(type(struct))}
    now = {setting.key: setting.default for setting in settings_of(struct)}
    return {key: value for key, value in now.items() if value != defaults[key]}


def plain(settings: Settings) -> Settings:
    """The sections of settings alone, without what a struct of more than settings has."""
    return Settings(**{name: getattr(settings, name) for name in Settings.__struct_fields__})


def fleet_of(options: FleetOptions) -> dict[str, Any]:
    """What a case keeps of the fleet: what decides the bits of a run."""
    return {key: value for key, value in changed(options).items() if key not in NO_BITS}


def contents_of(model: str, world: str) -> dict[str, str]:
    """SHA-256, hex, of the files among these, by path. UsageError if one can't be read."""
    found = {}
    for path in filter(None, ("" if is_spec(model) else model, world)):
        try:
            found[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            what = "an ONNX file or mlp:SIZES as model" if path == model else "a TOML file as devices_file"
            raise UsageError(f"can't read {path}: {error.strerror}: name {what}") from None
    return found


def examples_of(experiment: Settings, data: str) -> dict[str, str]:
    """SHA-256, hex, of the examples that `data` names, and of those of the test set that the settings name."""
    seed, test = experiment.train.seed, experiment.evaluate.test_data
    found = {data: digest.sha256(sources.load(data, seed=seed))}
    return found if test is None else found | {test: digest.sha256(sources.load(test))}


def file_name(label: Mapping[str, object], case: Case) -> str:
    """Of a run's result: readable, and told apart by the hash."""
    words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", str(value)).strip("_") for value in label.values() if value != "")
    return f"{words[:SLUG]}-{case.key}.json"
