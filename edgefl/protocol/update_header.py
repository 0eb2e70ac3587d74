"""UpdateHeader: the fixed part of an update, before its encoded delta. Not here: what becomes of its numbers."""

from __future__ import annotations

import math
import struct

import msgspec
from msgspec.structs import replace

from ..errors import ProtocolError
from ..settings import Mode

PROFILE, WITH_PERSONAL, MASKED, MASKED_PROFILE = 1, 2, 3, 4  # kinds
HIDING = (MASKED, MASKED_PROFILE)


class PersonalScores(msgspec.Struct, frozen=True, gc=False):
    """Of the model that a device keeps, its `own` or the received one, on the examples of `eval_loss`."""

    own: bool
    loss: float
    accuracy: float | None = None

    _LAYOUT = struct.Struct("<B3xff")
    SIZE = _LAYOUT.size

    def to_bytes(self) -> bytes:
        return self._LAYOUT.pack(self.own, self.loss, math.nan if self.accuracy is None else self.accuracy)

    @classmethod
    def from_bytes(cls, data: bytes) -> PersonalScores:
        """ProtocolError for scores that can't be."""
        own, loss, accuracy = cls._LAYOUT.unpack(data)
        if own > 1 or not math.isfinite(loss) or not (math.isnan(accuracy) or 0 <= accuracy <= 1):
            raise ProtocolError("update's header has personal scores that can't be: rejected", "header")
        return cls(own == 1, loss, None if math.isnan(accuracy) else accuracy)


class UpdateHeader(msgspec.Struct, frozen=True, gc=False):
    """The header of an update, little-endian; NaN means None.

        layout u8 | kind u8 | size u16 | num_examples u32 | steps u32 | loss f32 | train_ms u32
        | num_eval u32 | bytes_down u64 | eval_loss f32 | eval_accuracy f32

    `size` is the length of the header. It may grow: a longer header is accepted, and what this version does not know at
    its end is ignored. Where keys are on, 64 bytes after these hold the device's signature (signed_update.py).

    `kind` is 0, or 1 in a round of mode "profile": column statistics follow instead of a delta (statistics.py). It is 2
    where the last 12 bytes of the header are the scores of the device's own model (PersonalScores). It is 3 in a masked
    round: all its numbers are 0 or None, and a masked vector follows (masking/update.py); and 4 in a masked round of
    mode "profile".
    `num_examples` is n_k, 0 in a round that only evaluates: nothing follows then. `loss` is the mean training loss,
    `train_ms` the time that training took on the device, `bytes_down` the payload bytes that the device received since
    its last update that was counted (or since it started). `eval_loss` and `eval_accuracy` are those of the model as
    the device received it, on the `num_eval` examples that it holds out; some losses have no accuracy.
    """

    num_examples: int
    steps: int
    loss: float
    train_ms: int
    bytes_down: int
    num_eval: int = 0
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    size: int = 40
    is_profile: bool = False
    personal: PersonalScores | None = None
    is_masked: bool = False

    _LAYOUT = struct.Struct("<BBHIIfIIQff")
    LAYOUT = 2
    SIZE = _LAYOUT.size  # of the header that this version writes
    MAX_SIZE = 256
    MAX_EXAMPLES = 2**24

    @property
    def mode(self) -> Mode:
        """The mode of the round that it reports to."""
        if self.is_profile:
            return "profile"
        return "train" if self.num_examples or self.is_masked else "evaluate"

    @property
    def kind(self) -> int:
        """The number in the second byte."""
        if self.is_masked:
            return MASKED_PROFILE if self.is_profile else MASKED
        return PROFILE if self.is_profile else WITH_PERSONAL if self.personal is not None else 0

    @classmethod
    def masked(cls, *, profile: bool = False) -> UpdateHeader:
        """The header of every masked update of such a round: it tells nothing of its device."""
        return cls(0, 0, 0.0, 0, 0, is_profile=profile, is_masked=True)

    def to_bytes(self) -> bytes:
        """The header as this version writes it."""
        scores = (math.nan if score is None else score for score in (self.eval_loss, self.eval_accuracy))
        told = b"" if self.personal is None else self.personal.to_bytes()
        head = self._LAYOUT.pack(
            self.LAYOUT, self.kind, self.SIZE + len(told), self.num_examples, self.steps, self.loss, self.train_ms,
            self.num_eval, self.bytes_down, *scores,
        )  # fmt: skip
        return head + told

    @staticmethod
    def mode_of(blob: bytes) -> Mode:
        """The mode of the round that the update `blob` reports to; its header is not checked."""
        if blob[1] in (PROFILE, MASKED_PROFILE):
            return "profile"
        return "evaluate" if UpdateHeader.size_of(blob) == len(blob) else "train"

    @staticmethod
    def size_of(blob: bytes) -> int:
        """The length that the header of `blob` claims."""
        return int.from_bytes(blob[2:4], "little")

    @classmethod
    def from_bytes(cls, blob: bytes) -> UpdateHeader:
        """The header of `blob`; ProtocolError if a number in it is absurd."""
        if len(blob) < cls.SIZE:
            raise ProtocolError(f"update of {len(blob)} bytes has no header: dropped", "header")
        (layout, kind, size, num_examples, steps, loss, train_ms, num_eval, bytes_down, *scores) = (
            cls._LAYOUT.unpack_from(blob)
        )
        if layout != cls.LAYOUT or kind > MASKED_PROFILE:
            raise ProtocolError(f"update whose header is not of layout {cls.LAYOUT}: update the older side", "header")
        least = cls.SIZE + PersonalScores.SIZE * (kind == WITH_PERSONAL)
        if not least <= size <= min(len(blob), cls.MAX_SIZE):
            raise ProtocolError(f"update of {len(blob)} bytes with a header of {size}: rejected", "header")
        if max(num_examples, num_eval) > cls.MAX_EXAMPLES:
            claim = max(num_examples, num_eval)
            raise ProtocolError(
                f"update claims {claim} examples, at most {cls.MAX_EXAMPLES} are believed: rejected", "examples"
            )
        if (num_examples == 0 and kind not in HIDING) != (len(blob) == size):
            raise ProtocolError(f"update of {len(blob)} bytes from {num_examples} examples: rejected", "header")
        if not math.isfinite(loss):
            raise ProtocolError("update's header has a training loss that is not finite: rejected", "finite")
        eval_loss, eval_accuracy = (None if math.isnan(score) else score for score in scores)
        told = bytes(blob[size - PersonalScores.SIZE : size]) if kind == WITH_PERSONAL else None
        header = cls(
            num_examples, steps, loss, train_ms, bytes_down, num_eval, eval_loss, eval_accuracy, size,
            is_profile=kind in (PROFILE, MASKED_PROFILE), is_masked=kind in HIDING,
            personal=None if told is None else PersonalScores.from_bytes(told),
        )  # fmt: skip
        if header.is_masked and replace(header, size=cls.SIZE) != cls.masked(profile=header.is_profile):
            raise ProtocolError("update's header tells what a masked update must not: rejected", "header")
        if not header._evaluation_is_sound():
            raise ProtocolError("update's header has an evaluation that can't be: rejected", "header")
        return header

    def _evaluation_is_sound(self) -> bool:
        if self.num_eval == 0:
            return self.eval_loss is None and self.eval_accuracy is None and self.personal is None
        right = self.eval_accuracy is None or 0 <= self.eval_accuracy <= 1
        return right and self.eval_loss is not None and math.isfinite(self.eval_loss)
