"""The round, retained: which one is open, whom it asks, and which model it starts from. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..digests import sha256
from ..settings.rounds import MAX_LATE_ROUNDS
from ..settings.sections import Count, Mode, Positive
from .features import Requires
from .messages import Run, Sha256

MAX_UNEARNED = 32  # names of devices in a round's message, apart from its cohort
UNEARNED_ROUNDS = 100  # for so many rounds a late update earns waiting
MAX_FRAMES = 24  # of about 40 bytes each, in every round's message to every device
MAX_TERMS = 4096  # bytes of a masked round's terms
MAX_CERTIFICATE = 2048  # of a helper

Slot = Annotated[int, Meta(ge=0, le=65535)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
Chain = Annotated[str, Meta(pattern="^([0-9a-f]{64})?\\Z")]
Seconds = Annotated[int, Meta(ge=0, le=2**53)]


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """One model version that lies on the broker, on the way to the newest.

    `digest` is the head of the SHA-256 of its params as devices decode them (the round has the whole SHA-256 of the
    newest). `keyframe` is the length of the payload with all params, `delta` that of the payload that leads here from
    the frame before it in the list; 0 if there is no such payload. Each has a slot (coordinator/model/downlink.py).
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
        digest = sha256(f"{self.seed}\n{round}\n{device}".encode()).digest()
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
    `unearned`: present devices that rounds do not wait for (coordinator/devices/standing.py). Each of them finishes
    what it has begun for an earlier round, and reports it: that earns waiting again, whether or not the update still
    counts.

    `accuracy`: of `version` on the aggregator's test set, for the metadata of devices' files; None: not told.
    `terms`: of a masked round, which requires "masked": a JSON text (terms.py). "": each update is read by itself.
    `helpers`: what the root says of the helpers in them, sealed (trust/helper_certificate.py).

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
    terms: Annotated[str, Meta(max_length=MAX_TERMS)] = ""
    helpers: Annotated[list[Annotated[str, Meta(max_length=MAX_CERTIFICATE)]], Meta(max_length=4)] = []

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
        mine, others = (self.round, self.version, self.mode), (other.round, other.version, other.mode)
        return mine == others and self.terms == other.terms


msgspec.json.Decoder(Round)  # described at import: see messages.py
