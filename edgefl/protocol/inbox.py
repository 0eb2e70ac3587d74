"""What the aggregator tells one device in its inbox, Receipt, Missing or Judge, and what a canary answers. No I/O."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..settings.sections import Count, Positive
from .messages import Reason, Run, Sha256
from .round import Round


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


class Judge(msgspec.Struct, frozen=True, tag_field="kind", tag="judge"):
    """The aggregator asks a canary for its verdict on a model that no round has named: that of `round`, which is the
    open one with another version (coordinator/model/jury.py)."""

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

for _kind in (Inbox, Verdict):  # described at import: see messages.py
    msgspec.json.Decoder(_kind)
