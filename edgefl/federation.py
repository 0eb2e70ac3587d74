"""What a federation trains and how: from settings to the objects that do it, for the aggregator and the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from . import auto, codecs, masked_fit, masks
from .codecs import Codec, for_manifest
from .codecs import get as get_codec
from .core.plan import Plan
from .errors import UsageError
from .protocol.manifest import Base, Manifest
from .protocol.parts import DEFAULT_PART_BYTES
from .settings import Settings, TrainSettings
from .settings.spec import join, split
from .strategies import Strategy, fit
from .strategies import get as get_strategy
from .strategies.composed import Composed
from .strategies.weights import EXAMPLES, Weights


@dataclass(frozen=True)
class Objects:
    """A strategy and codecs that are given as objects or classes; what is None goes by its name in the settings."""

    strategy: Strategy | type[Strategy] | None = None
    codec: Codec | type[Codec] | None = None
    downlink: Codec | type[Codec] | None = None

    @classmethod
    def out_of(cls, values: dict[str, Any]) -> Objects:
        """The objects among `values`, in which a text takes the place of each. UsageError for an unfit object."""
        found: dict[str, Any] = {}
        for name, base in (("strategy", Strategy), ("codec", Codec), ("downlink", Codec)):
            value = values.get(name, "")
            if not isinstance(value, str | msgspec.Struct):  # nor a section of the settings
                made = get_strategy(value) if base is Strategy else get_codec(value)
                found[name] = value if base is Codec else made
                values[name] = join(made.name, made.options)
        return cls(**found)


def make_strategy(settings: Settings, objects: Objects | None = None) -> Strategy:
    """The strategy; options that were left open have their values from the training settings. UsageError."""
    return _agree(settings, objects)[0]


def make_manifest(
    settings: Settings, federation: str, run: str, plan: Plan, *, objects: Objects | None = None
) -> Manifest:
    """The manifest of one run, its values checked as devices will check them. Nothing may be "auto" (auto.py) but
    error feedback, which is the codec's to say. UsageError."""
    settings, span, feedback = settings.checked(), settings.downlink.span, settings.codec.error_feedback
    part_bytes = settings.codec.part_bytes
    if span == "auto" or auto.wanted(settings):
        raise UsageError('a manifest has no "auto": resolve codec.name, downlink.name and downlink.span first')
    objects = objects or Objects()
    codec, codec_options = _codec(objects.codec, settings.codec.name)
    downlink, downlink_options = _codec(objects.downlink, settings.downlink.name)
    strategy, train, mode = _agree(settings, objects)
    personal = masks.of_settings(settings, strategy, plan)
    masks.check(settings, personal)
    base = masks.base_params(settings, strategy, plan, personal)
    manifest = Manifest(
        federation, run, plan, train, codec, codec_options,
        DEFAULT_PART_BYTES if part_bytes == "auto" else part_bytes, feedback is True,
        downlink, downlink_options, span, settings.evaluate.holdout, mode,
        requires=_requires(strategy, train, personal, base), personal=personal, local=strategy.local,
        sides=list(strategy.sides), sent_sides=list(strategy.sent_sides),
        by_step=settings.strategy.weights if strategy.by_step else "", base=Base(base) if base else None,
    )  # fmt: skip
    if feedback == "auto":
        codec_of, without = manifest.update_codec, strategy.fit.without
        wanted = codec_of.feedback or ("unfed" in without and not codec_of.lossless)
        wanted = wanted and "feedback" not in without
        manifest = msgspec.structs.replace(manifest, error_feedback=wanted)
    manifest = msgspec.structs.replace(manifest, forms=codecs.from_wire(codec, codec_options).FORMS)
    try:
        checked = msgspec.convert(msgspec.to_builtins(manifest), Manifest)
    except msgspec.ValidationError as error:
        raise UsageError(f"no manifest can be made of the settings: {error}") from None
    checked.check_codecs()
    return checked


def _requires(strategy: Strategy, train: TrainSettings, personal: list[int], base: list[int]) -> list[str]:
    """The features that a device must know."""
    asked = {
        "personal": bool(personal), "local": strategy.local is not None, "side": bool(strategy.sides),
        "sent-side": bool(strategy.sent_sides), "lr-decay": train.lr_decay != 1, "base": bool(base),
    }  # fmt: skip
    return [feature for feature, wanted in asked.items() if wanted]


def _set_weights(strategy: Strategy, weights: Weights) -> None:
    if isinstance(strategy, Composed):
        strategy.weights = weights
    elif weights != EXAMPLES:
        raise UsageError(f'strategy {strategy.name!r} has weights of its own: set strategy.weights = "examples"')


def _codec(given: Codec | type[Codec] | None, spec: str) -> tuple[str, dict[str, Any]]:
    """A codec's name and options in the manifest."""
    if given is not None:
        return for_manifest(given, {})
    name, options = split(spec)
    return for_manifest(name, options)


def _agree(settings: Settings, objects: Objects | None) -> tuple[Strategy, TrainSettings, Any]:
    """The strategy, the training settings that it makes of ours, and what devices compute for it. UsageError if the
    strategy and the settings do not go together."""
    name, options = split(settings.strategy.name)
    given = objects.strategy if objects else None
    strategy = get_strategy(name, **options) if given is None else get_strategy(given)
    wanted = dict(strategy.defaults(settings.train))
    mode = wanted.pop("local_mode", "sgd")
    settings = settings.replace(**{f"train.{key}": value for key, value in wanted.items()})
    _set_weights(strategy, Weights.of(settings.strategy.weights))
    fit.check(strategy, settings)
    masked_fit.check(settings, strategy)
    return strategy, settings.train, mode
