"""The part of codecs.py about time: millions of coordinates a second of CPU, in turns, beside memcpy."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from coders import BASELINES, _rounded, lossless, make, pcodec_of, zstd_of
from real_updates import RealUpdate

from edgefl import codecs
from edgefl.core.accumulator import Accumulator
from edgefl.core.plan import Param

TARGETS = {
    (name + rate, does): wanted
    for name, does, wanted in (("ecq", "encode", 300), ("ecq", "accumulate", 600))
    for rate in ("", ", 2 bits")
}
REAL = {"encode": 200, "accumulate": 500}  # of ecq on real updates, in either form; 1,000 for the form "live"
Job = Callable[[], object]


def real_speeds(updates: dict[str, RealUpdate], repeats: int) -> list[dict[str, Any]]:
    """Mcoord/s of ecq and ecq-sparse on real updates by name, and on Gaussian coordinates of their model: in a burst,
    as when a round's updates arrive, and `cold`, with other work before each one."""
    jobs: dict[tuple[str, str], Job] = {}
    for name, update in {**updates, "Gaussian": _gaussian(next(iter(updates.values())))}.items():
        for codec in ("ecq", "ecq-sparse"):
            made = codecs.get(codec).for_tensors(update.tensors)
            _add(jobs, f"{codec}, {name}", made, update.delta)
            if made.FORMS:
                _add(jobs, f"{codec} live, {name}", made.with_forms(made.FORMS), update.delta)
    size = next(iter(updates.values())).delta.size
    cold = _interleaved(jobs, repeats)
    return [
        {"coder": job[0], "does": job[1], "mcoord_s": size / seconds / 1e6, "cold": size / cold[job] / 1e6,
         "target": _wanted(*job)}
        for job, seconds in _interleaved(jobs, repeats, burst=10).items()
    ]  # fmt: skip


def _gaussian(like: RealUpdate) -> RealUpdate:
    delta = np.random.default_rng(0).standard_normal(like.delta.size).astype(np.float32)
    return replace(like, delta=delta)


def _wanted(coder: str, does: str) -> int | None:
    if not coder.endswith("E=5") or coder.startswith("ecq-sparse"):
        return None
    return 1000 if "live" in coder and does == "accumulate" else REAL[does]


def speeds(delta: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Mcoord/s of every codec's encode and fused decode-accumulate, and of what else one would do."""
    target = np.empty_like(delta)
    jobs: dict[tuple[str, str], Job] = {("memcpy", "float32"): lambda: np.copyto(target, delta)}
    for name in (*codecs.CODECS, *BASELINES):
        _add(jobs, name, make(name), delta)
    _add(jobs, "ecq, 2 bits", codecs.get("ecq", step=1.17), delta)
    side = math.isqrt(delta.size)
    for name in ("ecq", "ecq-sparse"):
        codec = codecs.get(name).for_tensors([Param("w", [side, side])])
        _add(jobs, f"{name}, energies", codec, structured(side))
    for coder in (*lossless(), pcodec_of(1.2), zstd_of(1.2)):
        if coder.name != "planes":
            payload = coder.encode(delta)
            jobs[coder.name, "encode"] = lambda coder=coder: coder.encode(delta)
            jobs[coder.name, "decode"] = lambda coder=coder, payload=payload: coder.decode(payload, delta.size)
    sums, rounded = np.zeros(delta.size, np.int64), _rounded(delta, 1.2)
    jobs["int8, NumPy", "encode"] = lambda: _rounded(delta, 1.2)
    jobs["int8, NumPy", "accumulate"] = lambda: np.add(sums, rounded * np.int64(12345), out=sums)
    times = _interleaved(jobs, repeats)
    copy = delta.size / times["memcpy", "float32"] / 1e6
    return [
        {"coder": coder, "does": does, "mcoord_s": rate, "of_memcpy": rate / copy, "target": TARGETS.get((coder, does))}
        for (coder, does), seconds in times.items()
        for rate in (delta.size / seconds / 1e6,)
    ]


def _add(jobs: dict[tuple[str, str], Job], name: str, codec: codecs.Codec, delta: np.ndarray) -> None:
    payload, accumulator = codec.encode(delta), Accumulator(delta.size)
    jobs[name, "encode"] = lambda: codec.encode(delta)
    jobs[name, "accumulate"] = lambda: codec.accumulate(payload, 1, accumulator)


def structured(side: int) -> np.ndarray:
    """(side * side,) float32 with rows and columns an octave apart and some dead, as real updates have them."""
    rng = np.random.default_rng(0)
    rows = np.exp2(rng.normal(size=(side, 1))) * (rng.random((side, 1)) < 0.7)
    columns = np.exp2(rng.normal(size=(1, side)))
    return (rng.normal(size=(side, side)) * rows * columns).astype(np.float32).ravel()


def _interleaved(jobs: dict[tuple[str, str], Job], repeats: int, burst: int = 1) -> dict[tuple[str, str], float]:
    """Median seconds of CPU of each, in turns: what other processes take of the core does not count."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
    for turn in range(repeats + 1):
        for key, job in jobs.items():
            start = time.thread_time()
            for _ in range(burst):
                job()
            if turn:  # the first warms caches and allocators
                times[key].append((time.thread_time() - start) / burst)
    return {key: statistics.median(values) for key, values in times.items()}
