"""Writes the golden payloads. Run by hand, once for a new codec; every file there must always decode to the same bits.

    python tests/golden/write.py CASE...

A payload that exists is not written again: a format that changes gets a new wire id or form.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgefl import codecs
from edgefl.codecs.base import Codec
from edgefl.core.plan import Param

FOLDER = Path(__file__).parent
SIZE = 3001
RMS = 2.0**-12  # of the delta without its outlier
TENSORS = (Param("w", [50, 59]), Param("b", [51]))  # SIZE of them
TIMES = 10
LONGER = (Param("w", [50 * TIMES, 59]), Param("b", [51]))
WITH_ENERGIES = {  # at steps where they pay for a model so small
    "ecq-energies": codecs.get("ecq").for_tensors(TENSORS),
    "ecq-sparse-energies": codecs.get("ecq-sparse", step=2.0).for_tensors(TENSORS),
    "ecq-live": codecs.get("ecq", step=2.0).for_tensors(TENSORS).with_forms(["live"]),
}
LONG = {"ecq-live-16-lanes": codecs.get("ecq", step=2.0).for_tensors(LONGER).with_forms(["live"])}
ON_GRIDS = codecs.get("grid").for_tensors(TENSORS)
CASES = (*codecs.CODECS, *WITH_ENERGIES, *LONG)


def delta() -> np.ndarray:
    """(SIZE,) float32: heavy tails, exact zeros, one coordinate that no symbol expresses.

    It is a file because NumPy's float32 powers differ in their last bit between processors.
    """
    return np.fromfile(FOLDER / "delta.input", "<f4").astype(np.float32)


def rows() -> np.ndarray:
    """(SIZE,) float32: the same, where rows of w differ by powers of two, and a few are dead."""
    values = delta() * np.float32(16)
    scale = np.float32(2) ** (np.arange(50) % 7 - 5) * (np.arange(50) % 3 > 0)
    values[: 50 * 59] *= np.repeat(scale.astype(np.float32), 59)
    return values


def case(name: str) -> tuple[Codec, np.ndarray]:
    """The codec and the delta of one of CASES."""
    if name in WITH_ENERGIES:
        return WITH_ENERGIES[name], rows()
    if name in LONG:
        return LONG[name], np.concatenate([np.tile(rows()[:-51], TIMES), rows()[-51:]])
    if name == "grid":
        return ON_GRIDS, ON_GRIDS.rounded(np.clip(rows(), -(2.0**-6), 2.0**-6).astype(np.float32))
    return codecs.get(name), delta()


def main(names: list[str]) -> None:
    """One payload and its decoded float32 bytes a case."""
    for name in names:
        path = FOLDER / f"{name}.payload"
        if path.exists():
            sys.exit(f"{path} exists: golden payloads are never written again")
        codec, values = case(name)
        payload = codec.encode(values, rms=RMS)
        path.write_bytes(payload)
        (FOLDER / f"{name}.decoded").write_bytes(codec.decode(payload, len(values)).astype("<f4").tobytes())


if __name__ == "__main__":
    main(sys.argv[1:])
