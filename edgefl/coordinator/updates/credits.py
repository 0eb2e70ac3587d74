"""Credits: late updates that no round counts, received for what they prove: their device does report. No I/O.

A device that rounds do not wait for is named in their messages. It finishes what it has begun, and reports it however
late that is. Its whole valid update earns waiting again (standing.py), and goes into no model. So a device that was
away or hung comes back even where rounds are short, and the late policy drops what comes late.

An update is checked as it would have been in time, against its own round: federation, model version, codec, header and
payload. Few are received at once, since they are worth less than those that count. Part of RoundCoordinator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...codecs import Codec
from ...errors import ProtocolError
from ...protocol.envelope import Envelope
from ...protocol.round import UNEARNED_ROUNDS
from ...protocol.update_header import UpdateHeader
from ...settings import Mode
from .intake import RoundIntake

AT_ONCE = 4  # updates under way; other devices repeat theirs
STALLED_S = 30.0  # a device whose parts stop arriving for this long makes way


@dataclass(frozen=True)
class Past:
    """A round that is over. `opened_at` is None if another process opened it."""

    version: int
    mode: Mode
    opened_at: float | None


class Credits:
    """The rounds of which a late update is of use, and the updates that are arriving."""

    def __init__(
        self, codec: Codec, num_params: int, make_intake: Callable[[int, int], RoundIntake], *, masked: bool = False
    ) -> None:
        self._masked = masked
        self._codec, self._num_params, self._make_intake = codec, num_params, make_intake
        self._past: dict[int, Past] = {}
        self._intakes: dict[int, RoundIntake] = {}
        self._arriving: dict[str, tuple[int, float]] = {}  # round, and when the last part came

    def close(self, round: int, past: Past) -> None:
        """The round is over."""
        self._past[round] = past
        for old in [number for number in self._past if number <= round - UNEARNED_ROUNDS]:
            del self._past[old]

    def seconds(self, round: int, now: float) -> float | None:
        """The time since that round opened, if it is known."""
        past = self._past.get(round)
        return None if past is None or past.opened_at is None else now - past.opened_at

    def knows(self, round: int, version: int) -> bool:
        """Whether devices trained from `version` in that round; it may have been opened again with another model."""
        past = self._past.get(round)
        return past is not None and past.version == version

    def add(self, device: str, envelope: Envelope, now: float) -> bytes | None:
        """The whole update once its last part has arrived; ProtocolError if the part is not of its round."""
        number = envelope.round
        if not self._admit(device, number, now):
            return None
        intake = self._intakes.get(number) or self._make_intake(number, self._past[number].version)
        blob = intake.add(device, envelope, now)
        if blob is None:
            self._intakes[number] = intake
            self._arriving[device] = number, now
        else:
            self.drop(device)
        return blob

    def _admit(self, device: str, number: int, now: float) -> bool:
        """Whether there is room for the device's update of this round."""
        if device in self._arriving and self._arriving[device][0] != number:
            self.drop(device)
        if device not in self._arriving and len(self._arriving) >= AT_ONCE:
            oldest = min(self._arriving, key=lambda name: self._arriving[name][1])
            if now - self._arriving[oldest][1] < STALLED_S:
                return False
            self.drop(oldest)
        return True

    def drop(self, device: str) -> None:
        """Drop what has arrived of the device's update."""
        if device in self._arriving:
            number, _ = self._arriving.pop(device)
            self._intakes[number].drop(device)
            if not self._intakes[number].under_way:
                del self._intakes[number]

    def drop_all(self) -> None:
        """Drop all that has arrived."""
        for device in list(self._arriving):
            self.drop(device)

    def past(self, number: int) -> Past:
        """What that round was, which must be known."""
        return self._past[number]

    def check(self, number: int, blob: bytes) -> UpdateHeader:
        """The header of a valid update of the round; else ProtocolError or CodecError."""
        mode = self._past[number].mode
        header = header_for(mode, blob, masked=self._masked)
        if mode == "train" and not header.is_masked:
            self._codec.decode(memoryview(blob)[header.size :], self._num_params)
        return header

    def partial(self) -> dict[int, RoundIntake]:
        """The intakes with updates under way, by round."""
        return self._intakes


def header_for(mode: Mode, blob: bytes, *, masked: bool = False) -> UpdateHeader:
    """The header of an update of a round of this mode; ProtocolError if the update is of another one. `masked`: all
    rounds are, but for those that only evaluate."""
    header = UpdateHeader.from_bytes(blob)
    if header.is_masked != (masked and mode != "evaluate"):
        what, where = ("a", "is not") if header.is_masked else ("no", "is")
        raise ProtocolError(f"{what} masked update in a round that {where} masked: rejected", "header")
    if header.mode != mode:
        raise ProtocolError(f"the round is to {mode}, the update comes of one to {header.mode}: rejected", "header")
    return header
