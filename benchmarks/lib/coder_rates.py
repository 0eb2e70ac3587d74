"""The parts of codecs.py about bytes: of Gaussian coordinates beside theory, and of real updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from coders import RATES, STEPS, Coder, lossless, make, nmse, of_codec, pcodec_of, zstd_of
from real_updates import RealUpdate

from edgefl import codecs
from edgefl.core.plan import Param

Row = dict[str, Any]
WANTED = 0.1  # NMSE of real updates
TARGETS = {2: 0.0895, 3: 0.0224, 4: 0.0057}  # NMSE of ecq, by bits


def at_whole_bits(delta: np.ndarray) -> list[Row]:
    """NMSE at 1 to 4 real bits a coordinate, and how many bits that is above the Gaussian limit."""
    rows = []
    for bits in (1, 2, 3, 4):
        rows.append(measure(of_codec("ecq", codecs.get("ecq", bits=bits)), delta))
        rows[-1]["target"] = TARGETS.get(bits)
    for bits in (2, 3, 4):
        coder = of_codec("qsgd", make("qsgd", bits=bits))
        rows.append(measure(coder, delta))
    rows += [measure(coder, delta) for step in (0.55, 1.2) for coder in (pcodec_of(step), zstd_of(step))]
    return rows + [measure(coder, delta) for coder in lossless()]


def curves(delta: np.ndarray, tensors: Sequence[Param] = ()) -> dict[str, list[Row]]:
    """Each codec at its RATES."""
    found = {
        name: [measure(of_codec(name, _told(name, options, tensors)), delta) for options in settings]
        for name, settings in RATES.items()
    }
    for library in (pcodec_of, zstd_of):
        rows = [measure(library(step), delta) for step in STEPS["ecq"]]
        found[rows[0]["coder"]] = rows
    return found


def _told(name: str, options: dict[str, Any], tensors: Sequence[Param]) -> codecs.Codec:
    codec = make(name, **options)
    return codec.for_tensors(tensors) if tensors else codec


def measure(coder: Coder, delta: np.ndarray) -> Row:
    payload = coder.encode(delta)
    return _row(coder.name, delta, payload, coder.decode(payload, delta.size))


def _row(name: str, delta: np.ndarray, payload: bytes, back: np.ndarray) -> Row:
    bits, error = 8 * len(payload) / delta.size, nmse(delta, back)
    gap = bits + 0.5 * math.log2(error) if error > 0 else math.nan
    return {"coder": name, "bytes": len(payload), "bits": bits, "nmse": error, "gap": gap}


def real_rows(updates: Iterable[RealUpdate]) -> list[Row]:
    """Bits a coordinate at an NMSE of WANTED; ecq also without energies, and at its default."""
    return [
        {"model": u.model, "partition": u.partition, "stage": u.stage, "params": u.delta.size}
        | _bits_of(u.delta, u.tensors)
        for u in updates
    ]


def _bits_of(delta: np.ndarray, tensors: Sequence[Param]) -> Row:
    row = {name: _bits_at(lambda step, name=name: _told(name, {"step": step}, tensors), delta) for name in STEPS}
    row["ecq, no energies"] = _bits_at(lambda step: codecs.get("ecq", step=step, exact="none"), delta)
    row["topk"] = _bits_at(lambda share: make("topk", fraction=1 / share), delta, 1.0, 1000.0)
    levels = [measure(of_codec("qsgd", make("qsgd", **options)), delta) for options in RATES["qsgd"]]
    row["qsgd"] = min((level["bits"] for level in levels if level["nmse"] <= WANTED), default=math.nan)
    row["int8 + pcodec"] = _bits_at(pcodec_of, delta)
    row["int8 + zstandard"] = _bits_at(zstd_of, delta)
    for name in ("ecq", "ecq-sparse"):
        row[f"default {name}"] = measure(of_codec(name, _told(name, {}, tensors)), delta)["bits"]
    return row


def _bits_at(at: Any, delta: np.ndarray, low: float = 0.05, high: float = 20.0) -> float:
    """Bits a coordinate at the coarsest setting whose NMSE is WANTED, by bisection; NaN if none is as good."""
    best = math.nan
    for _ in range(12):
        middle = math.sqrt(low * high)
        made = at(middle)
        found = measure(made if isinstance(made, Coder) else of_codec(made.name, made), delta)
        if found["nmse"] <= WANTED:
            low, best = middle, found["bits"]
        else:
            high = middle
    return best
