"""Fuzzes the decoders of every codec under the compiler's sanitizers: `make fuzz FUZZ_SECONDS=3600`.

Inputs are mutations of real payloads and of what has been found before, most of them with a right CRC. A finding is a
crash, a sanitizer's report, an exception other than CodecError, an accumulator that a refused payload has changed, or
one that differs from the decoded vector. Inputs that end in a new way (the error's text without its numbers) join the
corpus, a folder; a finding is written there as `finding-*`. corpus.zip keeps the short ones of an hour: every run
begins with them, and so does every test run.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgefl import _core, codecs
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.core.plan import Param
from edgefl.errors import CodecError

SIZES = {
    0: (),
    5: (Param("b", [5]),),
    300: (Param("w", [10, 28]), Param("b", [20])),
    3000: (Param("w", [50, 50]), Param("b", [50]), Param("v", [10, 40]), Param("mean", [50], False)),
    8120: (Param("w", [200, 40]), Param("k", [4, 30])),
    70_000: (Param("w", [69_990, 1]), Param("b", [10])),
}
LARGEST = 2.0**30  # of a decoded coordinate for which sums are compared


def kept() -> Iterator[tuple[str, int, bytes]]:
    """(codec, size, payload) of the corpus that is kept."""
    with zipfile.ZipFile(Path(__file__).with_name("corpus.zip")) as archive:
        for entry in archive.namelist():
            name, size, _ = entry.split("@")
            yield name, int(size), archive.read(entry)


class Target:
    """One codec on one model."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.codec = codecs.get(name).for_tensors(SIZES[size])

    def seeds(self) -> list[bytes]:
        rng = np.random.default_rng(self.size)
        wild = rng.standard_t(1.5, size=self.size).astype(np.float32)
        deltas = [wild, np.zeros(self.size, np.float32), np.where(rng.random(self.size) < 0.9, 0, wild), wild * 1e-40]
        payloads = [self.codec.encode(delta.astype(np.float32)) for delta in deltas]
        fine = codecs.get(self.name, **({"step": 3.0} if hasattr(self.codec, "step") else {}))
        return [*payloads, fine.for_tensors(SIZES[self.size]).encode(self.of_rows(wild))]

    def of_rows(self, wild: np.ndarray) -> np.ndarray:
        """(size,) float32 where runs of forty coordinates are alike: what has energies."""
        octaves = np.random.default_rng(1).integers(-8, 1, self.size // 40 + 1)
        return (np.clip(wild, -3, 3) * np.exp2(np.repeat(octaves, 40)[: self.size])).astype(np.float32)

    def run(self, payload: bytes) -> str:
        """How it ended; AssertionError or any other exception is a finding."""
        accumulator = Accumulator(self.size)
        try:
            self.codec.accumulate(payload, 3, accumulator)
        except CodecError as error:
            assert not accumulator.acc.any() and accumulator.count == accumulator.weight == 0
            how = re.sub(r"[0-9.e+-]+", "#", str(error))
        else:
            how = "counted"
        try:
            back = self.codec.decode(payload, self.size)
        except CodecError:
            assert how != "counted"
            return how
        assert back.shape == (self.size,) and np.isfinite(back).all()
        if how == "counted" and np.abs(back).max(initial=0) < LARGEST:
            assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * 3).all()
        return how


def mutate(rng: random.Random, payload: bytes, others: list[bytes]) -> bytes:
    """One to four changes; then, mostly, a right CRC in front."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(6)
        at = rng.randrange(len(data)) if data else 0
        if rng.random() < 0.5:
            at = min(at, rng.randrange(48))  # heads and tables are where decisions are made
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at] = rng.choice((0, 1, 127, 128, 254, 255, rng.randrange(256)))
        elif kind == 2:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 4:
            other = rng.choice(others)
            cut = rng.randrange(len(other) + 1)
            data[at:] = other[cut:]
        else:
            data[at : at + 4] = rng.randbytes(4)
    if rng.random() < 0.9 and len(data) >= 4:
        data[:4] = _core.crc32c(bytes(data[4:])).to_bytes(4, "little")
    return bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz/corpus"))
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    targets = [Target(name, size) for name in codecs.CODECS for size in SIZES]
    corpora = {t: t.seeds() for t in targets}
    for name, size, payload in kept():
        for target in targets:
            if (target.name, target.size) == (name, size):
                corpora[target].append(payload)
    ends: dict[Target, set[str]] = {t: {t.run(payload) for payload in corpora[t]} for t in targets}
    for path in sorted(options.corpus.glob("*.bin")):
        name, size, _ = path.stem.split("@")
        for target in targets:
            if (target.name, str(target.size)) == (name, size):
                corpora[target].append(path.read_bytes())
    counts: Counter[str] = Counter()
    until = time.monotonic() + options.seconds
    while time.monotonic() < until:
        target = rng.choice(targets)
        payload = mutate(rng, rng.choice(corpora[target]), corpora[target])
        name = f"{target.name}@{target.size}@{hashlib.sha256(payload).hexdigest()[:12]}"
        (options.corpus / "last").write_bytes(name.encode() + b"\n" + payload)  # what a crash was about
        try:
            how = target.run(payload)
        except BaseException:
            (options.corpus / f"finding-{name}").write_bytes(payload)
            raise
        counts["counted" if how == "counted" else "refused"] += 1
        if how not in ends[target]:
            ends[target].add(how)
            corpora[target].append(payload)
            (options.corpus / f"{name}.bin").write_bytes(payload)
    (options.corpus / "last").unlink()
    print(f"{sum(counts.values())} inputs in {options.seconds:.0f} s, {dict(counts)}, no finding; seed {options.seed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
