"""A helper of masked rounds, whole: from the parts of an ask to the answer's parts, with its disk. On Linux.

    python benchmarks/masked_helper.py [--devices N] [--params P] [--share S] [--groups G] [--noise] [--cpu N]
                                       [--json FILE]

One core. A set of N devices of P params, of which each sends a share S: certificate, roster, signatures, sealed seeds,
masks, noise, the commit, and the answer in parts. Digests stand for vectors, which a helper never sees.
The median of some rounds, and the highest resident memory of a process that has opened them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from edgefl_broker.helper.store import HelperStore

from edgefl.helper.events import JobDone, Keys, Open, SaveOpened, SaveState
from edgefl.helper.helper import Helper
from edgefl.helper.least import Least
from edgefl.helper.noise import Draw
from edgefl.machine import Connected, Publish, Received
from edgefl.masking import sealed
from edgefl.masking.exchange import Ask, Entry, seal_ask
from edgefl.masking.propose import propose
from edgefl.protocol.envelope import Kind
from edgefl.protocol.parts import DEFAULT_PART_BYTES, Splitter
from edgefl.protocol.terms import Noise, Party, Terms
from edgefl.protocol.topics import Topics
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey, to_text
from edgefl.trust.roster import Member, Roster

ROUNDS = 5
TARGET = 200  # devices of 199,210 params a second
ROOT, SIGNER, DEVICE, HELPER = (SigningKey(letter * 32) for letter in (b"r", b"s", b"d", b"h"))
PUBLIC, PRIVATE = sealed.new_box_key(b"b" * 32)
CERTIFICATE = SignerCertificate.of(
    SIGNER.public, federation="plant", serial=1, epoch=1, not_before=0, not_after=2**40
).seal(ROOT)


def terms(options: argparse.Namespace, round: int) -> Terms:
    fields = propose(options.params, 4.0, options.devices, share=options.share, bits=20)
    noise = Noise("independent", fields["norm2"] ** 0.5) if options.noise else Noise()
    fields |= {"bits": 24} if options.noise else {}
    party = Party("north", 1, to_text(PUBLIC), to_text(HELPER.public))
    made = Terms(
        "plant", "0" * 16, round, 2, "ab" * 32, "cd" * 8, seed=7, least=20, helpers=(party,), groups=options.groups,
        noise=noise, epsilon=0.1 * round if options.noise else 0.0, **fields,
    )  # fmt: skip
    return Terms.read(made.text)


def parts(own: Terms, names: list[str]) -> list[Received]:
    """What the aggregator sends."""
    entries = []
    for number, name in enumerate(names):
        boxes = (sealed.seal(number.to_bytes(32, "little"), own.digest, name, PUBLIC),)
        entry = Entry(name, number.to_bytes(32, "big"), bytes(64), boxes)
        said = sealed.statement_of(own.digest, entry.packed_sha256, entry.boxes_sha256)
        entries.append(Entry(name, entry.packed_sha256, DEVICE.sign(said), boxes))
    blob = seal_ask(Ask(own.text, 1, tuple(entries)), "north", 1, SIGNER, CERTIFICATE)
    place = {"federation": 1, "round": own.round, "version": own.version}
    splitter = Splitter(blob, DEFAULT_PART_BYTES, kind=Kind.ASK, codec=0, **place)
    topics = Topics("plant")
    return [Received(topics.ask("north", part), splitter.part(part)) for part in range(splitter.parts)]


def opened(machine: Helper, store: HelperStore, messages: list[Received]) -> tuple[float, float, int]:
    """Seconds from the first part to the last of the answer; of these in the job; bytes of the answer's parts."""
    start, job_s, size = time.perf_counter(), 0.0, 0
    actions = [action for message in messages for action in machine.step(message, 0.0)]
    while actions:
        match action := actions.pop(0):
            case Open(job):
                began = time.perf_counter()
                result = job.run(Draw(None, os.urandom))
                job_s = time.perf_counter() - began
                actions += machine.step(JobDone(job, result), 0.0)
            case SaveOpened():
                store.save(action.state, action.answer)
            case SaveState():
                store.save(action.state)
            case Publish():
                size += len(action.payload)
    assert machine.opened == machine.state.round and not machine.refused
    return time.perf_counter() - start, job_s, size


def measure(options: argparse.Namespace) -> dict[str, Any]:
    os.sched_setaffinity(0, {options.cpu})
    names = sorted(f"device-{number}" for number in range(options.devices))
    roster = Roster("plant", 1, {name: Member.of(DEVICE.public) for name in names})
    keys = Keys("north", "plant", 1, ROOT.public, PUBLIC, PRIVATE, HELPER)
    asks = [parts(terms(options, round), names) for round in range(1, ROUNDS + 1)]
    with tempfile.TemporaryDirectory() as folder:
        store = HelperStore(Path(folder))
        machine = Helper(keys, roster, Least(devices=20, answer_mb=4000.0), store.state)
        for action in machine.begin():
            if isinstance(action, SaveState):
                store.save(action.state)
        machine.step(Connected(1), 0.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = [opened(machine, store, ask) for ask in asks]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        disk = sum(file.stat().st_size for file in Path(folder).iterdir())
    seconds, job_s = statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)
    return {
        "devices": options.devices, "params": options.params, "coordinates": terms(options, 1).coordinates,
        "devices a second": options.devices / seconds, "seconds": seconds, "beside the sums": seconds - job_s,
        "ask MB": sum(len(message.payload) for message in asks[0]) / 1e6, "answer MB": found[0][2] / 1e6,
        "MB more at the highest": (peak - before) / 1024, "MB on disk": disk / 1e6,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--params", type=int, default=199_210)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = measure(options)
    for name, value in found.items():
        print(f"{name:24} {value:12.3f}{f'   at least {TARGET}' if name == 'devices a second' else ''}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
