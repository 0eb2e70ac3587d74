"""UpdateHeader.from_bytes: what it accepts is what it writes, but for what a longer header has at its end."""

from __future__ import annotations

import math

from msgspec.structs import replace

from edgefl.protocol.update_header import HIDING, MASKED_PROFILE, PROFILE, PersonalScores, UpdateHeader

LONGEST = 512


def seeds() -> list[bytes]:
    trained = UpdateHeader(100, 10, 0.5, 1234, 5678)
    scored = UpdateHeader(0, 0, 0.0, 10, 99, 20, 0.25, 0.75)
    both = UpdateHeader(2**24, 2**32 - 1, -1e30, 0, 2**64 - 1, 3, 0.5, None)
    longer = bytearray(trained.to_bytes() + bytes(24) + b"delta")
    longer[2] = UpdateHeader.SIZE + 24
    profile = UpdateHeader(100, 0, 0.0, 0, 99, is_profile=True)
    found = trained.to_bytes() + b"delta", scored.to_bytes(), both.to_bytes() + b"x", profile.to_bytes() + b"sums"
    own = UpdateHeader(100, 10, 0.5, 1234, 5678, 20, 0.25, 0.75, personal=PersonalScores(True, 0.125, 0.875))
    masked = [UpdateHeader.masked(profile=profile).to_bytes() for profile in (False, True)]
    later = bytearray(masked[0] + bytes(24) + b"vector")
    later[2] = UpdateHeader.SIZE + 24
    sealed = *(header + b"vector" for header in masked), bytes(later)
    return [*found, bytes(longer), own.to_bytes() + b"delta", *sealed]


def run(data: bytes) -> None:
    header = UpdateHeader.from_bytes(data)
    assert math.isfinite(header.loss) and header.num_examples <= UpdateHeader.MAX_EXAMPLES
    alone, kind = header.size == len(data), header.kind
    assert kind == data[1] and header.is_masked == (kind in HIDING)
    mode = "profile" if kind in (PROFILE, MASKED_PROFILE) else "evaluate" if alone else "train"
    assert header.mode == mode == UpdateHeader.mode_of(data)
    assert (header.num_examples == 0) == (alone or header.is_masked) and not (alone and header.is_masked)
    if header.is_masked:  # nothing of the device, beside what it can't hide: how many bytes there are
        assert replace(header, size=UpdateHeader.SIZE) == UpdateHeader.masked(profile=header.is_profile)
    again, size = header.to_bytes(), UpdateHeader.SIZE + PersonalScores.SIZE * (header.personal is not None)
    if header.size == size and again != data[:size]:  # another NaN means None too
        assert None in (header.eval_loss, header.eval_accuracy) or header.personal is not None
        again += data[size:]
        assert UpdateHeader.from_bytes(again) == header
