"""Masked rounds: what they cost a device, a helper and the aggregator, and what they cost in accuracy.

    python benchmarks/masked.py cost [--params P] [--cpu N] [--json FILE]
    python benchmarks/masked.py curves [--data SPEC] [--models 2nn cnn] [--partitions iid shards:2] [--epochs 1 5]
                                       [--settings NAME ...] [--rounds N ...] [--seeds N ...] [--runs FOLDER]
                                       [--figure PNG] [--json FILE]

`cost` is on one core, medians; the memory is measured in processes of their own, on Linux. `curves` trains McMahan's
2NN or CNN on MNIST, 100 devices of 600 examples, ten a round, batch 10, lr 0.1, in a plain loop: deltas become
integers, are added modulo 2^m and become a mean as in a masked round. The masks are left out, since they cancel to the
bit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent / "lib"))

import masked_curves
import numpy as np

from edgefl.masking import masks, ring, sealed, update, vector
from edgefl.masking.propose import propose
from edgefl.protocol.terms import Party, Terms
from edgefl.trust.ed25519 import SigningKey, to_text, verify

TURNS = 41
MEMORY_TURNS = 5
SHARES = {"all": 1.0, "1/8": 0.125}
TARGETS = {"device all": "at most 10 ms", "helper all": "at most 5 ms", "agent MB all": "at most 3 MB"}
DEVICE, HELPER = SigningKey(b"d" * 32), SigningKey(b"h" * 32)
PUBLIC, PRIVATE = sealed.new_box_key(b"b" * 32)


def terms(params: int, share: float, transform: str = "subset") -> Terms:
    fields = propose(params, 4.0, 100, share=share, transform=transform)
    party = Party("north", 1, to_text(PUBLIC), to_text(HELPER.public))
    made = Terms(
        "plant", "0" * 16, 3, 2, "ab" * 32, "cd" * 8, seed=7, least=20, helpers=(party,), **fields
    )  # fmt: skip
    return Terms.read(made.text)


def median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def times(params: int) -> dict[str, float]:
    """Milliseconds for one device's update."""
    delta = np.random.default_rng(0).standard_normal(params).astype(np.float32) * np.float32(4.0 / params**0.5)
    rng, found = np.random.default_rng(1), {}
    for name, share in SHARES.items():
        for transform in ("subset", "hadamard"):
            own = terms(params, share, transform)
            label = name if transform == "subset" else f"{name}, hadamard"
            q = vector.quantize(delta, 1, own, rng.bytes).q
            blob = update.mask(q.copy(), own, "dev-1", DEVICE)
            sent, acc = update.read(blob, own), np.zeros(own.length, np.uint32)
            found[f"device {label}: integers"] = median_ms(lambda own=own: vector.quantize(delta, 1, own, rng.bytes))
            found[f"device {label}: mask, pack, seal"] = median_ms(
                lambda own=own, q=q: update.mask(q.copy(), own, "dev-1", DEVICE)
            )
            found[f"device {label}"] = median_ms(
                lambda own=own: update.mask(vector.quantize(delta, 1, own, rng.bytes).q, own, "dev-1", DEVICE)
            )
            found[f"mean {label}"] = median_ms(lambda own=own, q=q: vector.mean(q.astype(np.int64), own))
            if transform == "subset":
                found[f"helper {label}"] = median_ms(lambda own=own, sent=sent, acc=acc: opened(own, sent, acc))
                found[f"aggregator {label}"] = median_ms(lambda own=own, blob=blob, acc=acc: added(own, blob, acc))
                found[f"bytes {label}"] = len(blob)
    return found


def opened(own: Terms, sent: update.MaskedUpdate, acc: ring.Ring) -> None:
    """A helper's work for one device of a set."""
    said = sealed.statement_of(own.digest, sent.packed_sha256, sent.boxes_sha256)
    assert verify(DEVICE.public, said, sent.signature)
    seed = sealed.open_sealed(sent.boxes[0], own.digest, "dev-1", PUBLIC, PRIVATE)
    masks.add(acc, seed, own.digest, "north", "dev-1")


def added(own: Terms, blob: bytes, acc: ring.Ring) -> None:
    """The aggregator's for one update."""
    found = update.read(blob, own)
    assert found.is_signed(DEVICE.public)
    ring.add(acc, found.packed, own.bits)


# ---- memory

_START = """
import sys, numpy as np
sys.path[:0] = ["device_agent", "benchmarks"]
import edgefl_agent.agent
from edgefl.trust.ed25519 import SigningKey, verify
key = SigningKey(b"s" * 32)
assert verify(key.public, b"m", key.sign(b"m"))
params = {params}
delta = np.full(params, 0.001, np.float32)
"""
_USE = """
import os
from edgefl.masking import update, vector
from edgefl.protocol.terms import Terms
own = Terms.read({text!r})
for turn in range(3):
    blob = update.mask(vector.quantize(delta, 1, own, os.urandom).q, own, "dev-1", key)
"""
_TELL = """
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(lines["VmRSS"].split()[0]), int(lines["VmHWM"].split()[0]))
"""


def memory(params: int) -> dict[str, float]:
    """MB that are resident after three masked updates beyond what an agent with keys has, and at their highest."""
    from unit import REPOSITORY, unit_environment

    environment = os.environ | unit_environment("device_agent/edgefl-agent.service") | {"PYTHONPATH": str(REPOSITORY)}

    def resident(code: str) -> list[tuple[int, int]]:
        ran = [
            subprocess.run(
                [sys.executable, "-c", code],
                cwd=REPOSITORY,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            for _ in range(MEMORY_TURNS)
        ]
        return [(int(now), int(most)) for now, most in ran]

    found, start = {}, _START.format(params=params)
    base = resident(start + _TELL)
    for name, share in SHARES.items():
        own = terms(params, share)
        after = resident(start + _USE.format(text=own.text) + _TELL)
        for label, at in (("", 0), (", peak", 1)):
            middle = [statistics.median(each[at] for each in turns) for turns in (after, base)]
            found[f"agent MB {name}{label}"] = (middle[0] - middle[1]) / 1024
    return found


def cost(options: argparse.Namespace) -> dict[str, Any]:
    os.sched_setaffinity(0, {options.cpu})
    figures = {**times(options.params), **memory(options.params)}
    for name, value in figures.items():
        print(f"{name:40} {value:10.3f}   {TARGETS.get(name, '')}")
    print(
        f"a helper opens {1e3 / figures['helper all']:.0f} devices a second, {1e3 / figures['helper 1/8']:.0f} at 1/8"
    )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    figures = commands.add_parser("cost", allow_abbrev=False)
    figures.add_argument("--params", type=int, default=199_210)
    figures.add_argument("--cpu", type=int, default=0)
    masked_curves.add_options(commands.add_parser("curves", allow_abbrev=False))
    for command in commands.choices.values():
        command.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = cost(options) if options.command == "cost" else masked_curves.run(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
