"""Control messages: JSON, typed, bounded, readable with `mosquitto_sub -t 'edgefl/#' -v`.

    manifest    retained  aggregator -> devices   what the federation trains, and how
    round       retained  aggregator -> devices   the round that is open, or that all is done
    aggregator  retained  aggregator to itself    Claim: which one has the federation
    status      retained  device -> aggregator    presence; also the will
    inbox       -         aggregator -> device    Receipt or Missing

They can grow. A receiver ignores fields that it does not know. A field that has its default is left out, so defaults
never change. If a manifest or a round makes sense only to devices with some feature, it names the feature in
`requires`, which is read before anything else. Only the plan is strict: its version says what the core must know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from .. import codecs
from ..codecs.base import Codec
from ..codecs.stacked import Stacked
from ..core.mask import Mask
from ..core.plan import Plan
from ..errors import ModelError, ProtocolError
from ..settings import TrainSettings
from ..settings.sections import MAX_LATE_ROUNDS, MAX_SPAN, Count, Mode, Positive
from ..strategies.local import LocalRule
from .envelope import MAX_PART_BYTES, MIN_PART_BYTES

CONTROL_LIMIT = 8 * 1024
RETAINED_LIMIT = 60 * 1024  # Azure Event Grid keeps no retained message above 64 KB
MAX_SKELETON = 2**20  # bytes of the skeleton of a model's file
MAX_UNEARNED = 32  # names of devices in a round's message, apart from its cohort
UNEARNED_ROUNDS = 100  # for so many rounds a late update earns waiting
MAX_SIDES = 4  # vectors behind the params of a model
MAX_FRAMES = 24  # of about 40 bytes each, in every round's message to every device
# all that a manifest or a round may require of this version of EdgeFL
FEATURES = frozenset(("profile", "personal", "local", "side", "lr-decay"))

Slot = Annotated[int, Meta(ge=0, le=65535)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
Chain = Annotated[str, Meta(pattern="^([0-9a-f]{64})?\\Z")]
Run = Annotated[str, Meta(pattern="^([0-9a-f]{16})?\\Z")]  # "" where keys are off
Seconds = Annotated[int, Meta(ge=0, le=2**53)]
Reason = Annotated[str, Meta(max_length=500)]
Requires = Annotated[list[Annotated[str, Meta(pattern="^[a-z0-9._-]{1,32}\\Z")]], Meta(max_length=32)]


class Requirements(msgspec.Struct, frozen=True):
    """What a manifest or a round says before anything else in it may be read."""

    requires: Requires = []


class SkeletonInfo(msgspec.Struct, frozen=True):
    """The skeleton of the model's ONNX file (core/skeleton.py): its SHA-256 and its length. It lies in `SKELETON_SLOT`,
    in parts of `part_bytes`, for devices whose owners want the file; nothing else needs it."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=MAX_SKELETON)]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """What a federation trains. `run` is drawn once per aggregator state: round numbers count within it.

    `local_mode` is the strategy's: a device sends the delta of local SGD, or one gradient over all its examples.

    `downlink` is the codec of models: a lossless one writes each version whole, any other one the difference from a
    version at most `span` rounds earlier (coordinator/downlink.py).

    With `error_feedback`, a device adds what the codec dropped from its last update to the next one.

    `personal` are the indices of the plan's params that stay on each device: an update has the others alone
    (core/mask.py). ModelError for indices that the plan can't have.

    `local` is what devices do in training, where that is not plain local SGD (device/local); it requires "local".

    `sides` names the vectors, as long as the params, that lie behind them in each model, in this order; it requires
    "side".

    `holdout` is the share of its examples on which a device evaluates each model, and never trains (device/holdout.py).
    """

    federation: Annotated[str, Meta(pattern="^[a-z0-9-]{1,48}\\Z")]
    run: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    plan: Plan
    train: TrainSettings
    codec: Annotated[str, Meta(max_length=32)] = "raw32"
    codec_options: dict[str, int | float | str] = {}
    part_bytes: Annotated[int, Meta(ge=MIN_PART_BYTES, le=MAX_PART_BYTES)] = 64 * 1024 - 48
    error_feedback: bool = False

    downlink: Annotated[str, Meta(max_length=32)] = "raw32"
    downlink_options: dict[str, int | float | str] = {}
    span: Annotated[int, Meta(ge=1, le=MAX_SPAN)] = 1
    holdout: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    local_mode: Literal["sgd", "gradient"] = "sgd"
    requires: Requires = []
    skeleton: SkeletonInfo | None = None
    personal: Annotated[list[Annotated[int, Meta(ge=0, le=1023)]], Meta(max_length=1024)] = []
    local: LocalRule | None = None
    sides: Annotated[list[Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}\\Z")]], Meta(max_length=MAX_SIDES)] = []

    def __post_init__(self) -> None:
        if self.personal:
            _ = self.mask

    @cached_property
    def raw(self) -> bytes:
        """The bytes as they are published, or as they came: these may hold fields that this version does not know."""
        return encode(self)

    @property
    def id(self) -> str:
        """The name of this manifest in round messages."""
        return manifest_id(self.raw)

    @property
    def keeps_slots(self) -> bool:
        """Whether an update leaves something on its device (device/slots.py), which depends on its receipt."""
        return self.error_feedback or self.local is not None or bool(self.personal)

    @property
    def keeps_own(self) -> bool:
        """Whether such a slot is lost for good if the receipt is: a residual only costs what the codec dropped."""
        return self.local is not None or bool(self.personal)

    @cached_property
    def update_codec(self) -> Codec:
        """The codec of updates, for the tensors that are shared; UsageError if this installation lacks it."""
        return codecs.from_wire(self.codec, self.codec_options).for_tensors(self.mask.tensors)

    @cached_property
    def mask(self) -> Mask:
        """Which params an update has, and how many: everything that reads or adds one goes by it."""
        return Mask(self.plan, self.personal)

    @cached_property
    def model_codecs(self) -> tuple[Codec, Codec | None]:
        """The codecs of keyframes and of deltas, None if every version is a keyframe; UsageError as `update_codec`."""
        codec = codecs.from_wire(self.downlink, self.downlink_options).for_tensors(self.plan.params)
        if codec.lossless:
            return self._stacked(codec), None
        return self._stacked(codecs.from_wire("planes", {})), self._stacked(codec)

    def _stacked(self, codec: Codec) -> Codec:
        return Stacked(codec, 1 + len(self.sides)) if self.sides else codec

    @property
    def model_size(self) -> int:
        """The numbers of a model as it goes down: the params and the side vectors."""
        return (1 + len(self.sides)) * self.plan.num_params

    def unstack(self, model: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The params (P,) and the side vectors, (P,) by name, of a model as it went down."""
        params, *sides = np.split(model, 1 + len(self.sides)) if self.sides else [model]
        return params, dict(zip(self.sides, sides, strict=True))

    def check_codecs(self) -> None:
        """UsageError unless this installation has all codecs, and they accept their options."""
        _ = self.update_codec, self.model_codecs


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """One model version that lies on the broker, on the way to the newest.

    `digest` is the head of the SHA-256 of its params as devices decode them (the round has the whole SHA-256 of the
    newest). `keyframe` is the length of the payload with all params, `delta` that of the payload that leads here from
    the frame before it in the list; 0 if there is no such payload. Each has a slot (coordinator/downlink.py).
    """

    version: Count
    digest: Digest
    keyframe: Count
    delta: Count
    keyframe_slot: Slot = 0
    delta_slot: Slot = 0


class Draw(msgspec.Struct, frozen=True):
    """A cohort without a list: a device is asked if its own draw, from the round's seed, is below `probability`."""

    seed: Annotated[int, Meta(ge=0, le=2**53)]
    probability: Annotated[float, Meta(gt=0, le=1)]

    def asks(self, round: int, device: str) -> bool:
        """The head of the SHA-256 of seed, round and device, a number below 2^64, against the probability."""
        digest = hashlib.sha256(f"{self.seed}\n{round}\n{device}".encode()).digest()
        return int.from_bytes(digest[:8], "little") < self.probability * 2**64


def is_asked(cohort: Collection[str] | Draw | None, round: int, device: str) -> bool:
    """Whether `round` asks `device`: the rule that both sides apply. A round without a cohort asks every device."""
    if isinstance(cohort, Draw):
        return cohort.asks(round, device)
    return cohort is None or device in cohort


class Round(msgspec.Struct, frozen=True, omit_defaults=True):
    """The open round; state "waiting": the next one, which does not open for some time; or state "done".

    `attempt` rises with every start of an aggregator (coordinator/fence.py).
    `frames` lead to `version`, whose params have `model_sha256`.
    `deadline_s` counts from the moment of opening, on the aggregator's clock.
    `cohort` lists the devices that are asked, or has each device draw; None asks all.
    `late_rounds`: an update still counts, with less weight, for so many rounds after its own.
    `mode` "evaluate": devices evaluate the model on what they hold out, train nothing, and send no delta.
    `mode` "profile": devices tell of the columns of their data (statistics.py), and need no model.
    `spread_s`: each device begins to report at a random moment within so many seconds.
    `unasked`: a device sends so many parts of its update; the aggregator requests the others.
    `back_s`: a device with nothing to report that loses its connection reconnects at a random moment within so many
    seconds; a device that gave the round up is ready again at such a moment after the round.
    `only_new_data`: a device takes part only if its data have changed since they last counted.
    `unearned`: present devices that rounds do not wait for (coordinator/standing.py). Each of them finishes what it has
    begun for an earlier round, and reports it: that earns waiting again, whether or not the update still counts.

    `accuracy`: of `version` on the aggregator's test set, for the metadata of devices' files; None: not told.

    Where keys are on, a round names its `run`, when it was `issued` and when it `expires` (seconds after the start of
    1970, UTC; 0: never), and the hash `chain` of all versions up to its own, beside that of the version before,
    `previous` (coordinator/signing.py).
    """

    manifest: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    state: Literal["open", "waiting", "done"]
    round: Count
    attempt: Positive
    version: Count
    model_sha256: Sha256
    frames: Annotated[list[Frame], Meta(min_length=1, max_length=MAX_FRAMES)]
    deadline_s: Annotated[float, Meta(gt=0, le=1e9)]
    cohort: list[str] | Draw | None = None
    late_rounds: Annotated[int, Meta(ge=0, le=MAX_LATE_ROUNDS)] = 0
    mode: Mode = "train"
    spread_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    unasked: Annotated[int, Meta(ge=1, le=65535)] = 65535
    back_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    requires: Requires = []
    only_new_data: bool = False
    unearned: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=MAX_UNEARNED)] = []
    run: Run = ""
    previous: Chain = ""
    chain: Chain = ""
    issued: Seconds = 0
    expires: Seconds = 0
    accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None

    def asks(self, device: str) -> bool:
        return self.state == "open" and is_asked(self.cohort, self.round, device)

    @property
    def needs_model(self) -> bool:
        """Whether a device has to fetch the round's model for what it does."""
        return self.mode != "profile"

    def is_late_for(self, device: str, number: int, mode: Mode) -> bool:
        """Whether an update that the device made in round `number`, which is over, is of use in this round."""
        age = self.round - number
        folds = mode == "train" and age <= self.late_rounds
        return self.state != "done" and age > 0 and (folds or (device in self.unearned and age <= UNEARNED_ROUNDS))

    @property
    def order(self) -> tuple[int, int, bool]:
        """Of two announcements the one with the lower order is older. A round is waited for before it opens."""
        return self.attempt, self.round, self.state != "waiting"

    def same_work(self, other: Round) -> bool:
        """Whether what was done for `other` serves this one too: it may be another attempt."""
        return (self.round, self.version, self.mode) == (other.round, other.version, other.mode)


PRESENT = ("ready", "training")


class Status(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A device's presence: ready, training, paused, trouble, disconnected or lost. A device in a state that this side
    does not know is not present. `boot` rises with every connection, so that a late will can't end a new session.

    "paused" is the owner's wish, "trouble" the device's own; `reason` says more, and `code` is one of trouble.CODES.
    `max_bytes` is what the owner's byte budget allows the update of the round that it trains for; 0: no limit.
    `fresh`: its data have changed since they last counted, as far as it knows; told where rounds ask for new data only.
    `agent` is the version of its software, and `celsius` what its processor's sensor last said; both are only shown.
    """

    state: Annotated[str, Meta(max_length=32)]
    boot: Annotated[int, Meta(ge=0, le=2**53)]
    num_examples: Count = 0
    reason: Reason = ""
    code: Annotated[str, Meta(max_length=16)] = ""
    max_bytes: Count = 0
    fresh: bool = True
    agent: Annotated[str, Meta(max_length=32)] = ""
    celsius: Annotated[int, Meta(ge=-100, le=300)] | None = None

    @property
    def present(self) -> bool:
        return self.state in PRESENT


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="receipt"):
    """The aggregator's word on one update: "counted" in this attempt of the round, or "rejected" for a reason.

    `folded`: the later round that a late update went into, or was too late for; 0: its own round, which is open.
    `version`: the model that the refused update started from; None: any. A round may be opened again with another one.
    `run`: the manifest's, where keys are on.
    """

    round: Count
    attempt: Positive
    outcome: Literal["counted", "rejected"]
    reason: Reason = ""
    folded: Count = 0
    version: Count | None = None
    run: Run = ""


class Missing(msgspec.Struct, frozen=True, tag_field="kind", tag="missing"):
    """Parts of the round's update that the aggregator lacks."""

    round: Count
    parts: Annotated[list[Annotated[int, Meta(ge=0, le=65534)]], Meta(max_length=512)]


class Claim(msgspec.Struct, frozen=True):
    """Which aggregator has the federation (coordinator/fence.py). `run` and `attempt` are the manifest's and the
    round's; each process draws an `instance`, and `connection` counts its connections.
    """

    run: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    attempt: Positive
    instance: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    connection: Count
    state: Literal["asking", "holding", "released"]


class Judge(msgspec.Struct, frozen=True, tag_field="kind", tag="judge"):
    """The aggregator asks a canary for its verdict on a model that no round has named: that of `round`, which is the
    open one with another version (coordinator/jury.py)."""

    round: Round


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a canary's held-out examples say of the model with the SHA-256 `model`; no loss: it is not finite, or the
    device holds nothing out. It comes on the topic of the device's update, sealed by the device where keys are on."""

    attempt: Positive
    model: Sha256
    loss: float | None = None
    accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None
    run: Run = ""


Inbox = Receipt | Missing | Judge
T = TypeVar("T")


def encode(message: msgspec.Struct) -> bytes:
    """The JSON bytes of one control message."""
    return msgspec.json.encode(message)


def decode(kind: type[T], payload: bytes, limit: int = CONTROL_LIMIT) -> T:
    """Parse and bound one control message; ProtocolError says what is wrong with it."""
    if len(payload) > limit:
        raise ProtocolError(f"control message of {len(payload)} bytes, at most {limit}: dropped")
    try:
        message = msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, ModelError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"malformed control message ({str(error)[:200]!r}): dropped") from None
    if isinstance(message, Manifest):
        message.__dict__["raw"] = bytes(payload)
    return message


def manifest_id(raw: bytes) -> str:
    """The head of the SHA-256 of a manifest's bytes, as they are published."""
    return hashlib.sha256(raw).hexdigest()[:16]


def unknown_features(payload: bytes) -> list[str]:
    """The features that a manifest or a round requires and this version lacks; ProtocolError if they can't be read."""
    found = decode(Requirements, payload, RETAINED_LIMIT).requires
    return [feature for feature in found if feature not in FEATURES]


# msgspec completes its description of a type when the type is first used. If a second thread uses the type meanwhile (a
# process may run several agents), it reads an incomplete description, and the process dies of a segmentation fault. So
# all types are used once at import.
for _kind in (Requirements, Manifest, Round, Status, Inbox, Claim, Verdict):
    msgspec.json.Decoder(_kind)
