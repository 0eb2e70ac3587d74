"""Whether steps and codecs are as fast as they were: ratios to NumPy in one run, held against those of earlier commits.

    python benchmarks/gate.py [--file FILE] [--cpu N] [--repeats N] [--accept]

A step's ratio is its GFLOP/s by those of NumPy's sgemm, a codec's its rate by that of a copy; both are timed in turns
on one pinned core. Ratios that are more than a tenth below the median of the last ten commits on this kind of
processor are measured twice more, since other programs take time as well; one that is low all three times ends the
run with exit code 1. Else the ratios are appended to FILE, to be committed. --accept keeps them although some fell.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent / "lib"))

import kept_ratios
import numpy as np
import peers
import subjects
from models import MODELS
from steps import step_mflop

from edgefl import _core, codecs, load
from edgefl.core.accumulator import Accumulator

FILE = Path(__file__).with_name("gate.jsonl")
CODECS = ("raw32", "planes", "ecq", "ecq-sparse")
SIDE = 512  # of the product that a step is held against
COORDINATES = 1 << 20
BLOCK_S = 0.05  # a turn lasts about so long
TRIES = 3

Job = Callable[[], object]


def step_ratio(name: str, repeats: int) -> float:
    """GFLOP/s of a model's step by those of sgemm."""
    subject = subjects.find(name)
    model, (x, y) = load(subject.file, loss=subject.loss), subject.data()
    steps = peers.edgefl(model, x, y, subject.batch)
    count = max(2, int(BLOCK_S / (steps(4) / 4)))
    a, b = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)
    work = step_mflop(model.plan, subject.batch) * 1e6 * count
    (beside,) = in_turns([lambda: steps(count)], lambda: a @ b, repeats)
    return work / (2 * SIDE**3) * beside


def codec_ratios(name: str, repeats: int) -> tuple[float, float]:
    """Rates of encoding, and of decoding and adding, by that of a copy."""
    delta = np.random.default_rng(0).standard_normal(COORDINATES).astype(np.float32)
    codec, target, sums = codecs.get(name), np.empty_like(delta), Accumulator(COORDINATES)
    payload = codec.encode(delta)
    jobs = [lambda: codec.encode(delta), lambda: codec.accumulate(payload, 1, sums)]
    encode, add = in_turns(jobs, lambda: np.copyto(target, delta), repeats)
    return encode, add


def in_turns(jobs: list[Job], yardstick: Job, repeats: int) -> list[float]:
    """For each job the median of: the yardstick's seconds of CPU by the job's, both of one turn."""
    ratios: list[list[float]] = [[] for _ in jobs]
    for turn in range(repeats + 1):
        for job, found in zip(jobs, ratios, strict=True):
            ratio = seconds(yardstick) / seconds(job)
            if turn:  # the first warms caches
                found.append(ratio)
    return [statistics.median(found) for found in ratios]


def seconds(job: Job) -> float:
    started = time.thread_time()
    job()
    return time.thread_time() - started


def measure(names: list[str], repeats: int) -> dict[str, float]:
    """The ratios by name: "step NAME", "encode NAME", "add NAME"."""
    found: dict[str, float] = {}
    for name in MODELS:
        if f"step {name}" in names:
            found[f"step {name}"] = step_ratio(name, repeats)
    for name in CODECS:
        if {f"encode {name}", f"add {name}"} & set(names):
            found[f"encode {name}"], found[f"add {name}"] = codec_ratios(name, repeats)
    return {name: round(ratio, 4) for name, ratio in found.items()}


def all_names() -> list[str]:
    return [*(f"step {name}" for name in MODELS), *(f"{does} {name}" for name in CODECS for does in ("encode", "add"))]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--accept", action="store_true", help="keep what was measured although it fell")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    usual = kept_ratios.medians(kept_ratios.read(options.file), processor(), _core.isa())
    ratios = measure(all_names(), options.repeats)
    for _ in range(TRIES - 1):
        if not (low := kept_ratios.fallen(ratios, usual)):
            break
        again = measure(low, options.repeats)
        ratios |= {name: max(ratio, ratios[name]) for name, ratio in again.items()}
    low = kept_ratios.fallen(ratios, usual)
    for name, ratio in ratios.items():
        before = f"  {ratio / usual[name]:6.2f} of the usual {usual[name]:.3f}" if name in usual else "  new"
        print(f"{name:24} {ratio:8.3f}{before}{'  FELL' if name in low else ''}")
    if low and not options.accept:
        print(f"{len(low)} fell by more than a tenth: mend them, or run again with --accept and say why in the commit")
        return 1
    kept_ratios.keep(options.file, kept_ratios.Measured(commit(), processor(), _core.isa(), ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
