"""RoundIntake: the updates of one round as their parts come in, within a budget of memory. No I/O.

One assembler a device; its bounds come from the plan and the codec. Part of RoundCoordinator.
"""

from __future__ import annotations

from .codecs import Codec
from .errors import ProtocolError
from .protocol.envelope import Envelope, Kind
from .protocol.messages import UpdateHeader
from .protocol.parts import Assembler

QUIET_S = 5.0  # a device whose parts stop coming for so long is asked for the rest
BUDGET_BYTES = 256 * 2**20  # of updates that are not whole yet


class RoundIntake:
    """Parts in, whole updates out."""

    def __init__(self, codec: Codec, num_params: int, federation_hash: int, round: int, version: int) -> None:
        self._codec = codec
        self._max_total = UpdateHeader.SIZE + codec.bound(num_params)
        self._federation = federation_hash
        self._round = round
        self._version = version
        self._partial: dict[str, Assembler] = {}
        self._ask_at: dict[str, float] = {}
        self._buffered = 0

    @property
    def buffered(self) -> int:
        """Bytes of updates that are not whole yet."""
        return self._buffered

    @property
    def wake_at(self) -> float | None:
        """When the next device will have been quiet for too long."""
        return min(self._ask_at.values(), default=None)

    def add(self, device: str, envelope: Envelope, now: float) -> bytes | None:
        """The whole update once its last part is in; ProtocolError if the part is not of this round."""
        if envelope.codec != self._codec.wire_id:
            raise ProtocolError(
                f"update in codec number {envelope.codec}, the manifest says {self._codec.name}: dropped"
            )
        assembler = self._partial.get(device)
        if assembler is None:
            assembler = Assembler(
                kind=Kind.UPDATE, federation=self._federation, round=self._round, version=self._version,
                max_total=self._max_total,
            )  # fmt: skip
        before = assembler.buffered
        whole = assembler.add(envelope)
        self._partial[device] = assembler
        self._buffered += assembler.buffered - before
        self._ask_at[device] = now + QUIET_S
        if not whole:
            self._keep_budget(device)
            return None
        self.forget(device)
        blob = assembler.blob()
        if blob is None:
            raise ProtocolError("the update's SHA-256 is not what its parts say: dropped")
        return blob

    def _keep_budget(self, device: str) -> None:
        """Drop who began last, so that who began first can finish; one update may always be under way."""
        while self._buffered > BUDGET_BYTES and len(self._partial) > 1:
            newest = next(reversed(self._partial))
            self.forget(newest)
            if newest == device:
                raise ProtocolError("too many updates under way at once: dropped, the device will send it again")

    def forget(self, device: str) -> None:
        """Drop what has come from `device`."""
        assembler = self._partial.pop(device, None)
        self._ask_at.pop(device, None)
        if assembler is not None:
            self._buffered -= assembler.buffered

    def clear(self) -> None:
        """Drop all that has come."""
        for device in list(self._partial):
            self.forget(device)

    def quiet(self, now: float) -> list[tuple[str, list[int]]]:
        """(device, missing parts) of each that has been quiet for too long; asked at most every QUIET_S."""
        due = [device for device, at in self._ask_at.items() if now >= at]
        for device in due:
            self._ask_at[device] = now + QUIET_S
        return [(device, self._partial[device].missing()) for device in due]
