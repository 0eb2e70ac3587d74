"""Announcer: what the aggregator keeps retained on the MQTT broker: manifest, model and round. No I/O.

Part of RoundCoordinator, which decides when. If a broker has lost its memory, `everything` restores it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Literal

import msgspec
import numpy as np

from ...errors import UsageError
from ...machine import Publish, Subscribe
from ...protocol.envelope import federation_hash
from ...protocol.manifest import MAX_SKELETON, Manifest, SkeletonInfo
from ...protocol.messages import RETAINED_LIMIT, encode
from ...protocol.parts import fitting_part_bytes
from ...protocol.round import Round
from ...protocol.terms import FEATURE
from ...protocol.topics import BASE_SLOT, ROOT, SKELETON_SLOT, Topics
from ...settings import RoundSettings
from ..events import Action
from ..updates.pace import Pacing
from ..updates.tally import Tally
from .base_payload import longest_base, with_base
from .downlink import Downlink, Payload
from .retained_model import RetainedModel

RoundState = Literal["open", "waiting", "done"]


class Announcer:
    """`manifest` is as devices know it: its parts are no longer than the broker accepts. `sides` returns the
    vectors that `manifest.sides` names, as they are with the version that is being made."""

    def __init__(
        self, manifest: Manifest, params: np.ndarray, version: int, *, attempt: int = 1, root: str = ROOT,
        sides: Callable[[], Sequence[np.ndarray]] = tuple,
    ) -> None:  # fmt: skip
        manifest, self._base = with_base(manifest, params)
        if len(manifest.raw) > RETAINED_LIMIT:
            raise UsageError(f"the plan makes a manifest above {RETAINED_LIMIT} bytes: use a smaller model")
        self.topics = Topics(manifest.federation, root)
        self.hash = federation_hash(manifest.federation, manifest.run, manifest.plan.hash)
        self._sides = sides
        self.downlink = Downlink(manifest, self._whole(params), version, attempt)
        self._retained = RetainedModel(self.topics, manifest, self.hash)
        self._swept = False
        # Of a candidate on the broker: its params; those with the side vectors, and its version
        self._proposed: tuple[np.ndarray, tuple[np.ndarray, int]] | None = None
        self._ahead = self.downlink  # with the candidate, if there is one
        self._carried: list[Payload] | None = None  # what is retained beside versions; None: the host does not say
        self.fit(manifest, None)

    def carry(self, skeleton: bytes) -> None:
        """Retain the skeleton of the model's file beside the model; b"" retains none. Before the first connection."""
        info = SkeletonInfo(sha256(skeleton).hexdigest(), len(skeleton)) if skeleton else None
        self._carried = [Payload(SKELETON_SLOT, 0, 0, skeleton)] if skeleton else []
        self.fit(msgspec.structs.replace(self.manifest, skeleton=info), None)

    def fit(self, manifest: Manifest, max_packet_bytes: int | None) -> None:
        """Announce this manifest, with parts that the broker accepts; devices compute from it how many there are."""
        longest = max(self.downlink.longest, *(len(payload.blob) for payload in self._base), 0)
        part_bytes = fitting_part_bytes(manifest.part_bytes, longest, max_packet_bytes)
        self.manifest = msgspec.structs.replace(manifest, part_bytes=part_bytes)
        self.manifest_id = self.manifest.id
        self._retained.split_at(part_bytes)

    def _whole(self, params: np.ndarray) -> np.ndarray:
        """The params, with the strategy's side vectors as they are now behind them."""
        sides = self._sides()
        return np.concatenate((params, *sides)) if sides else params

    @property
    def shown_sides(self) -> dict[str, np.ndarray]:
        """The side vectors as devices decode them."""
        return self.manifest.unstack(self.downlink.shown)[1]

    def subscribe(self, *, answers: bool = False) -> list[Action]:
        """Subscribe to updates and statuses, and to the `answers` of helpers."""
        updates = (self.topics.any_update, self.topics.any_answer) if answers else (self.topics.any_update,)
        return [Subscribe(updates), self.subscribe_statuses()]

    def subscribe_statuses(self) -> Subscribe:
        """The broker sends all retained ones again."""
        return Subscribe((self.topics.any_status,), qos=0)

    def everything(self, attempt: int) -> list[Action]:
        """Manifest and model, for a broker that has just been connected to; the round follows if one is open."""
        self.downlink.move(attempt)
        if self._proposed is not None:
            self._ahead = self.downlink.ahead(*self._proposed[1])
        return [self.publish_manifest(), *self._retained.put(self._payloads, again=True)]

    @property
    def _payloads(self) -> list[Payload]:
        """All that lies on the broker: the base, what rounds name, what a candidate adds, and what is carried beside
        versions."""
        named = self.downlink.payloads
        slots = {payload.slot for payload in named}
        ahead = (payload for payload in self._ahead.payloads if payload.slot not in slots)
        return [*self._base, *named, *ahead, *(self._carried or [])]

    def propose(self, params: np.ndarray, version: int) -> list[Action]:
        """Put a candidate for the next version on the broker. No round names it: only canaries are told of it."""
        whole = self._whole(params)
        self._proposed, self._ahead = (params, (whole, version)), self.downlink.ahead(whole, version)
        return self._retained.put(self._payloads)

    def withdraw(self) -> list[Action]:
        """The candidate was refused."""
        self._proposed, self._ahead = None, self.downlink
        return self._retained.keep(self._payloads)

    def to_judge(self, round: Round, *, candidate: bool) -> Round:
        """What a canary is asked to judge, as a round that only evaluates: the newest model, or the candidate."""
        shown = self._ahead if candidate else self.downlink
        return msgspec.structs.replace(
            round, version=shown.frames[-1].version, model_sha256=shown.sha256, frames=shown.frames, mode="evaluate",
            cohort=None, unearned=[], state="open",
        )  # fmt: skip

    def publish_manifest(self) -> Publish:
        """Devices answer it with their status."""
        return Publish(self.topics.manifest, self.manifest.raw, retain=True)

    def publish_round(self, message: Round) -> Publish:
        """Every device that is connected gets it at once."""
        return Publish(self.topics.round, encode(message), retain=True)

    def round(
        self, tally: Tally | None, state: RoundState, *, round: int, version: int, attempt: int,
        config: RoundSettings, unearned: Sequence[str] = (),
    ) -> Round:  # fmt: skip
        """The round of `tally`, or without one the round that comes next, or that all rounds are done."""
        mode, pacing = (tally.mode, tally.pacing) if tally else ("train", Pacing())
        masked = tally.masked if tally else None
        return Round(
            manifest=self.manifest_id,
            state=state,
            round=round,
            attempt=attempt,
            version=version,
            model_sha256=self.downlink.sha256,
            frames=self.downlink.frames,
            deadline_s=tally.opening.deadline_s if tally else config.deadline_s,
            cohort=tally.cohort.message if tally else None,
            late_rounds=config.late_window if mode == "train" else 0,
            mode=mode,
            requires=["profile"] * (mode == "profile") + [FEATURE] * (masked is not None),
            terms=masked.terms.text if masked else "",
            helpers=masked.certificates if masked else [],
            only_new_data=config.only_new_data,
            spread_s=pacing.spread_s,
            unasked=pacing.unasked,
            back_s=pacing.back_s,
            unearned=list(tally.opening.unearned if tally else unearned),
        )

    def advance(self, params: np.ndarray, version: int) -> tuple[list[Action], list[Action]]:
        """The next version: what puts it on the broker, and what clears superfluous payloads.

        The caller announces the next round in between, if it opens one: a device that still fetches a cleared payload
        begins again with that round.
        """
        if self._proposed is not None and self._proposed[0] is params:
            self.downlink = self._ahead  # canaries have judged these very bits
        else:
            self.downlink.advance(self._whole(params), version)
        self._proposed, self._ahead = None, self.downlink
        added = self._retained.put(self.downlink.payloads)
        return added, self._retained.keep(self._payloads)

    def sweep(self) -> list[Action]:
        """Clear what no round needs from a broker that has just been connected to: on the first connection also what an
        aggregator before this one may have left."""
        self._retained.reconnected()
        if not self._swept:
            self._swept = True
            self._retained.sweep(self.downlink.longest)
            if longest := longest_base(self.manifest):
                self._retained.sweep_slot(BASE_SLOT, longest)
            if self._carried is not None:
                self._retained.sweep_slot(SKELETON_SLOT, MAX_SKELETON)
        return self._retained.keep(self._payloads)

    def on_sent(self, token: int, ok: bool) -> list[Action]:
        """The broker has acknowledged or refused a batch of clears: the next ones."""
        return self._retained.on_sent(token, ok)
