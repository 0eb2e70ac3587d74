"""What a federation trains and how, from names and numbers to the objects that do it.

Shared by the aggregator (from its configuration) and the simulator (from its arguments).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import codecs, strategies
from .core.plan import Plan
from .errors import UsageError
from .protocol.messages import Manifest
from .protocol.parts import DEFAULT_PART_BYTES
from .settings import RoundConfig, TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Local training, strategy and codecs, by name or as objects. UsageError for what does not exist or does not fit.

    `error_feedback` None leaves it to the codec. `downlink` is the codec of models, `span` how many versions share an
    anchor (downlink.py), `holdout` the share of its examples that a device only evaluates on.
    """

    train: TrainConfig
    strategy: str | strategies.Strategy = "fedavg"
    strategy_options: dict[str, Any] = field(default_factory=dict)
    codec: str | codecs.Codec = "raw32"
    codec_options: dict[str, Any] = field(default_factory=dict)
    part_bytes: int = DEFAULT_PART_BYTES
    error_feedback: bool | None = None
    downlink: str | codecs.Codec = "raw32"
    downlink_options: dict[str, Any] = field(default_factory=dict)
    span: int = 1
    holdout: float = 0.0

    def make_strategy(self) -> strategies.Strategy:
        """The strategy; options that were left open have their values from the training settings."""
        return self._agree()[0]

    def _agree(self) -> tuple[strategies.Strategy, TrainConfig]:
        """The strategy, and the training settings that it makes of ours."""
        strategy = strategies.get(self.strategy, **self.strategy_options)
        return strategy, train_config(**msgspec.structs.asdict(self.train) | dict(strategy.defaults(self.train)))

    def make_manifest(self, federation: str, run: str, plan: Plan) -> Manifest:
        """The manifest of one run; its numbers are checked against the bounds that devices will check."""
        _, train = self._agree()
        feedback = self.error_feedback
        if feedback is None:
            feedback = codecs.get(self.codec, **self.codec_options).feedback
        codec, codec_options = codecs.for_manifest(self.codec, self.codec_options)
        downlink, downlink_options = codecs.for_manifest(self.downlink, self.downlink_options)
        manifest = Manifest(
            federation, run, plan, train,
            codec, codec_options, self.part_bytes, feedback, downlink, downlink_options, self.span, self.holdout,
        )  # fmt: skip
        try:
            checked = msgspec.convert(msgspec.to_builtins(manifest), Manifest)
        except msgspec.ValidationError as error:
            raise UsageError(f"the training settings are out of bounds: {error}") from None
        checked.make_codec()
        checked.make_downlink()
        return checked


def train_config(**settings: Any) -> TrainConfig:
    """TrainConfig of `settings`, checked; UsageError names the one that is off."""
    try:
        return msgspec.convert(settings, TrainConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"training settings: {error}") from None


def round_config(**settings: Any) -> RoundConfig:
    """RoundConfig of `settings`, checked; UsageError names the one that is off."""
    try:
        return msgspec.convert(settings, RoundConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"round settings: {error}") from None
