"""Admission: what may be read, and what may be added. No I/O. Part of RoundCoordinator.

In this order, and before anything is added:

    admit   the device is enrolled, not in quarantine and not muted; rate; bytes
    (parts) size, round and replay, CRC (protocol/parts.py, reception.py)
    judge   signature, header, the examples that the device may claim, exact length, finite, influence

A refused message has a code (protocol/refusals.py), is counted in the record of its round, and costs its device: signed
updates lead to a quarantine, all others to a mute (quarantine.py, noise.py). Without keys nothing is signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from itertools import islice

import msgspec

from ...codecs import Codec
from ...errors import CodecError, ProtocolError
from ...machine import WallClock
from ...protocol.refusals import EVIDENT, FROM_A_DEVICE
from ...protocol.topics import UpdateTopic
from ...protocol.update_header import UpdateHeader
from ...settings import AdmissionSettings, Mode
from ...strategies import Update
from ...strategies.usual import believed
from ...strategies.waiting_room import Waiting, WaitingRoom
from ..devices.quarantine import Quarantine, Suspect
from ..events import Action, SaveSuspects
from ..signing import Open
from .credits import header_for
from .influence import Bound, Influence, Reach, TooMuch, Weigh, all_examples, as_long, norm_of
from .noise import MUTE_S, Noise
from .refused import MOST, Refused


class Judged(msgspec.Struct, frozen=True):
    """An update that may be added. The `header` claims as many examples as its weight; `update` is None in a round that
    only evaluates. `claim`: n and ‖Δ‖, where influence is bounded, and how many `times` the bound that is. `waits`: for
    the round's own bound."""

    header: UpdateHeader
    update: Update | None = None
    claim: tuple[int, float] | None = None
    waits: bool = False
    times: float = 0.0

    @property
    def examples(self) -> int:
        """As many as the device claimed."""
        return self.header.num_examples if self.update is None else self.update.examples


class Admission:
    """`bound` is that of the open round, and `room` has the updates that wait for it. `pending` has the devices that
    are barred from now on, and why: neither asked, waited for nor heard. `weigh` and `reach`: the strategy's.
    `masked`: rounds that train are. `longest`: an update's bytes, where they may be more than the codec's."""

    def __init__(
        self, settings: AdmissionSettings, codec: Codec, num_params: int, *, clock: WallClock,
        signing: Open, suspects: Mapping[str, Suspect] | None = None, room: WaitingRoom | None = None,
        weigh: Weigh = all_examples, reach: Reach = as_long, masked: bool = False, longest: int = 0,
    ) -> None:  # fmt: skip
        self._signing = signing
        self.influence = Influence(
            settings.factor(signing.signed), settings.first_influence, signing.max_examples, weigh, reach
        )  # fmt: skip
        self.quarantine = Quarantine(settings.refusals, settings.quarantine_h * 3600, suspects)
        self.noise = Noise(UpdateHeader.MAX_SIZE + max(longest, codec.bound(num_params)))
        self.refused = Refused()
        self.room = WaitingRoom() if room is None else room
        self.bound: Bound | None = None
        self.round = 0  # the open one, or the next
        self.pending: list[tuple[str, str]] = []
        self._told: dict[str, str] | None = None  # `barred`, until it changes
        self._codec, self._num_params, self._max_examples = codec, num_params, settings.max_examples
        self._clock, self._masked = clock, masked

    def open(self, round: int) -> None:
        """The round opens: its bound is fixed now."""
        self.round = round
        self.bound = self.influence.open(round)
        self.room.clear()

    # Before a message is read

    def admits(self, device: str, size: int, now: float, *, is_status: bool) -> bool:
        """Whether a message of `size` bytes may be read; if not, it is dropped without a word. ProtocolError if its
        device is not enrolled. Statuses of a device in quarantine are read, so that it may be back later."""
        if device in self.noise.muted:
            code = "muted"
        elif not self._signing.is_enrolled(device):
            raise ProtocolError("the device is not enrolled, or is revoked: dropped", "unknown")
        elif why := self.noise.hear(device, size, now, self.round):
            self._mute(device, why, now)
            code = "rate"
        elif self.quarantine.why(device) and not is_status:
            code = "quarantine"
        else:
            return True
        self.refused.add(device, code)
        return False

    # Before an update is added

    def check(self, mode: Mode, device: str, blob: bytes) -> UpdateHeader:
        """The header of an update of a round of this mode; ProtocolError if it is refused."""
        header = header_for(mode, blob, masked=self._masked)
        most = self._signing.max_examples(device) or self._max_examples
        if max(header.num_examples, header.num_eval) > most:
            claim = max(header.num_examples, header.num_eval)
            raise ProtocolError(f"update claims {claim} examples, at most {most} are allowed: rejected", "examples")
        return header

    def judge(self, mode: Mode, device: str, blob: bytes, staleness: int) -> Judged:
        """An update that may be added to the open round; ProtocolError or CodecError if it is refused."""
        header = self.check(mode, device, blob)
        if mode != "train":
            return Judged(header)
        update = self._update(header, device, blob, staleness)
        if self.influence.factor is None:
            return Judged(header, update)
        update = replace(update, decoded=update.delta(self._num_params))
        claim = header.num_examples, norm_of(update.delta(self._num_params))
        if self.bound is None:
            return Judged(header, update, claim, waits=True)
        return self._weighed(Judged(header, update, claim), self.bound)

    def keep(self, where: UpdateTopic, judged: Judged, blob: bytes) -> None:
        """The update waits until its round closes; ProtocolError if there is no room."""
        assert judged.update is not None and judged.claim is not None
        loss = judged.update.told_loss or 0.0
        self.room.add(Waiting(where.device, where.round, judged.update.staleness, *judged.claim, loss, blob))

    def settled(self) -> Iterator[tuple[Waiting, Judged | ProtocolError]]:
        """The updates that wait, by device and round: what becomes of them by the round's own bound."""
        bound = self.influence.of(self.room.claims)
        if bound is None:
            return
        usual_loss = self.room.usual_loss
        for waiting in self.room:
            header = UpdateHeader.from_bytes(waiting.blob)
            update = self._update(header, waiting.device, waiting.blob, waiting.staleness)
            update = replace(update, start_loss=believed(waiting.loss, usual_loss))
            try:
                yield waiting, self._weighed(Judged(header, update, (waiting.num_examples, waiting.norm)), bound)
            except ProtocolError as error:
                yield waiting, error
        self.room.clear()

    def _update(self, header: UpdateHeader, device: str, blob: bytes, staleness: int) -> Update:
        """What the strategy is told of an update that trains."""
        payload = memoryview(blob)[header.size :]
        return Update(
            device, header.num_examples, self._codec, payload, staleness, steps=header.steps, loss=header.loss,
            start_loss=header.eval_loss,
        )  # fmt: skip

    def _weighed(self, judged: Judged, bound: Bound) -> Judged:
        """The update with the weight that `bound` leaves; ProtocolError if it is refused."""
        assert judged.update is not None and judged.claim is not None
        examples, allowed, times = self.influence.weigh(judged.claim, judged.update.device, bound)
        header = msgspec.structs.replace(judged.header, num_examples=examples)
        update = replace(judged.update, num_examples=examples, claimed=judged.claim[0], allowed=allowed)
        return Judged(header, update, judged.claim, times=times)

    # After a refusal

    def blame(self, device: str, error: Exception, now: float, *, round: int | None = None) -> None:
        """A message was refused: as a whole update of `round`, or before."""
        if isinstance(error, TooMuch) and not error.proven:
            return
        code = error.code if isinstance(error, ProtocolError | CodecError) else ""
        if self._signing.signed and round is not None and code in FROM_A_DEVICE:
            unix_s = self._clock.at(now)
            if self.quarantine.refuse(device, round, code, newest=self.round, unix_s=unix_s):
                self._told = None
                self.pending.append((device, f"in quarantine {self.quarantine.why(device)}"))
        elif code in EVIDENT and (why := self.noise.refuse(device, now, self.round)):
            self._mute(device, why, now)

    def bar(self, device: str, code: str, now: float) -> None:
        """What the device has signed is of no use to a whole round: it is in quarantine at once."""
        if self.quarantine.bar(device, code, newest=self.round, unix_s=self._clock.at(now)):
            self._told = None
            self.pending.append((device, f"in quarantine {self.quarantine.why(device)}"))

    def _mute(self, device: str, why: str, now: float) -> None:
        self._told = None
        self.noise.mute(device, why, now)
        self.pending.append((device, f"muted for {MUTE_S / 60:.0f} minutes: {why}"))

    @property
    def barred(self) -> dict[str, str]:
        """The devices that are in quarantine or muted, and why; at most a thousand."""
        if self._told is not None:
            return self._told
        told = {device: f"muted: {why}" for device, (_, why) in self.noise.muted.items()}
        told |= {device: f"in quarantine {why}" for device, why in self.quarantine.inside.items()}
        self._told = dict(islice(sorted(told.items()), MOST))
        return self._told

    def over(self, now: float) -> list[str]:
        """The devices that are not barred any more."""
        ended = [*self.noise.over(now), *self.quarantine.over(self._clock.at(now))]
        self._told = None if ended else self._told
        return [device for device in ended if not self.is_barred(device)]

    def is_barred(self, device: str) -> bool:
        return device in self.noise.muted or bool(self.quarantine.why(device))

    def release(self, device: str) -> bool:
        """Whether the device was barred; it is not any more."""
        self._told = None
        return (self.noise.muted.pop(device, None) is not None) | self.quarantine.release(device)

    def forget(self, device: str) -> None:
        """Nothing is known of the device any more."""
        self.release(device)
        self.influence.forget(device)
        self.refused.forget(device)

    def suspects(self) -> list[Action]:
        """What is to be made durable, if it has changed."""
        changed, self.quarantine.changed = self.quarantine.changed, False
        return [SaveSuspects(copy(self.quarantine.suspects))] if changed else []
