"""Fuzzes one target: `make fuzz FUZZ_TARGETS="envelope topics" FUZZ_SECONDS=600`, which builds the core for it.

The core is compiled with the sanitizers and libFuzzer's counters, and Python's bytecode is instrumented by atheris, so
coverage counts the edges of both. A finding is a crash, a sanitizer's report, an exception other than EdgeFLError, more
than a second of processor time or 64 MB of memory for one input: it ends the run, and the input is written to
build/fuzz/findings. Inputs that reach new edges stay in build/fuzz/corpus/TARGET, where the next run begins.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import atheris

import fuzz

MOST_SECONDS = 1.0  # of processor time for one input, in spite of the sanitizers
MOST_KIB = 64 * 1024  # by which one input may raise the process's peak
LONGEST = 64 * 1024


def peak() -> int:
    """The most memory that the process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=fuzz.PYTHON)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    logging.disable()
    os.fsync = lambda number: None  # the disk is not tested here
    with atheris.instrument_imports(include=["edgefl", "edgefl_agent", "edgefl_broker"]):
        module = fuzz.load(options.target)
        from edgefl.errors import EdgeFLError

        seeds = [*module.seeds(), *fuzz.kept(options.target)]
        for seed in seeds:  # what is imported on first use is instrumented too
            with suppress(EdgeFLError):
                module.run(seed)
    corpus, findings = options.folder / "corpus" / options.target, options.folder / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    mend = getattr(module, "mend", bytes)

    def one(data: bytes) -> None:
        began, before = time.process_time(), peak()
        try:
            module.run(data)
        except EdgeFLError as error:
            assert str(error), "an error that says nothing"
        spent, grown = time.process_time() - began, peak() - before
        assert spent < MOST_SECONDS, f"{spent:.1f} s for one input"
        assert grown < MOST_KIB, f"{grown} KiB for one input"

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        data = atheris.Mutate(data, longest)
        return mend(data)[:longest] if random.Random(seed).random() < 0.9 else data

    flags = {
        "max_total_time": options.seconds,
        "seed": options.seed + 1,  # 0 draws one
        "timeout": 60,
        "rss_limit_mb": 4096,
        "malloc_limit_mb": 256,
        "max_len": getattr(module, "LONGEST", LONGEST),
        "len_control": 0,
        "reload": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{findings}/{options.target}-",
    }
    sys.argv[1:] = [*(f"-{name}={value}" for name, value in flags.items()), str(corpus)]
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()


main()
