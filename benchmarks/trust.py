"""What keys cost: time to sign and to verify, on the agent and on the aggregator, and the memory that PyNaCl takes.

    python benchmarks/trust.py [--json FILE]

An update has 64 KB. On the agent one update takes opening a round and a receipt, and signing the update; on the
aggregator, verifying the update and sealing its receipt. Each is beside the same work without keys. Figures are medians
of turns. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
from unit import REPOSITORY, unit_environment

from edgefl.machine import Received
from edgefl.protocol import signed_update
from edgefl.protocol.signed_update import Context
from edgefl.protocol.update_header import UpdateHeader
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey, verify
from edgefl.trust.seal import read_seal, seal

BYTES = 64 * 1024
TURNS, CALLS = 9, 200
MEMORY_TURNS = 5
TARGETS = {"agent_ms": 2.0, "aggregator_ms": 0.15, "agent_rss_mb": 3.0}
ROOT, SIGNER, DEVICE = (SigningKey(letter * 32) for letter in (b"r", b"s", b"d"))
CONTEXT = Context("my-fleet", 1, "0" * 16, 1000, 999, "pi-kitchen", 1)
ROUND, RECEIPT = b'{"state":"open",' + b'"a":"' + b"x" * 1500 + b'"}', b'{"kind":"receipt","round":1000,"attempt":1}'
START = "import sys; sys.path[:0] = ['.', 'device_agent']; import edgefl_agent.agent"
USE = "from edgefl.trust.ed25519 import *; k = SigningKey(b's' * 32); assert verify(k.public, b'm', k.sign(b'm'))"
TELL = "print(open('/proc/self/smaps_rollup').read())"


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    figures = {**times(), **memory()}
    for name, value in figures.items():
        target = f"   (at most {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"{name:24} {value:8.3f}{target}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def times() -> dict[str, float]:
    """Milliseconds of the processor for one of each, medians of interleaved turns."""
    blob = UpdateHeader(600, 60, 0.5, 1000, 87654).to_bytes() + bytes(range(256)) * (BYTES // 256 - 1)
    signed = signed_update.sign(blob, CONTEXT, DEVICE)
    times = {"not_before": 0, "not_after": 2**40}
    certificate = SignerCertificate.of(SIGNER.public, federation="my-fleet", serial=1, epoch=1, **times).seal(ROOT)
    round, receipt = seal(ROUND, "f/round", SIGNER, certificate), seal(RECEIPT, "f/d/pi/inbox", SIGNER)
    message, signature = b"m" * 200, DEVICE.sign(b"m" * 200)

    def agent() -> None:
        assert read_seal(round).is_signed("f/round", SIGNER.public)
        assert read_seal(receipt).is_signed("f/d/pi/inbox", SIGNER.public)
        signed_update.sign(blob, CONTEXT, DEVICE)

    def aggregator() -> None:
        signed_update.check(signed, CONTEXT, DEVICE.public)
        seal(RECEIPT, "f/d/pi/inbox", SIGNER)

    def without() -> None:
        Received("f/round", ROUND)

    cases: dict[str, Callable[[], object]] = {
        "agent_ms": agent,
        "aggregator_ms": aggregator,
        "without_ms": without,
        "sign_ms": lambda: DEVICE.sign(message),
        "verify_ms": lambda: verify(DEVICE.public, message, signature),
        "certificate_ms": lambda: SignerCertificate.open(certificate, ROOT.public, "my-fleet"),
        "sha256_64_kb_ms": lambda: hashlib.sha256(blob).digest(),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(TURNS):
        for name, call in cases.items():
            began = time.process_time()
            for _ in range(CALLS):
                call()
            found[name].append((time.process_time() - began) / CALLS * 1e3)
    medians = {name: statistics.median(values) for name, values in found.items()}
    without_ms = medians.pop("without_ms")
    return {name: value - without_ms if name in TARGETS else value for name, value in medians.items()}


def memory() -> dict[str, float]:
    """Megabytes that an agent's process has more once it has signed and verified, medians of turns."""
    fields = {"agent_rss_mb": "Rss", "agent_private_mb": "Private_Dirty"}
    found: dict[str, list[float]] = {name: [] for name in fields}
    for _ in range(MEMORY_TURNS):
        before, after = resident(START), resident(f"{START}; {USE}")
        for name, field in fields.items():
            found[name].append((after[field] - before[field]) / 1e3)
    return {name: statistics.median(values) for name, values in found.items()}


def resident(code: str) -> dict[str, float]:
    """What smaps_rollup has of a process, in kB, after this code; with the environment of the agent's unit."""
    environment = unit_environment("device_agent/edgefl-agent.service")
    run = [sys.executable, "-c", f"{code}; {TELL}"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    words = [line.split() for line in done.stdout.splitlines() if line.endswith("kB")]
    return {line[0].rstrip(":"): float(line[1]) for line in words}


if __name__ == "__main__":
    main()
