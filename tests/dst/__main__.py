"""Many schedules on all given processes, or one with its trace: `python -m dst --seeds 1000`, `--seed 7 --trace`."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from . import masked
from .schedule import Schedule
from .world import World

CHUNK = 50


def failure(seed: int, trace: bool = False, masks: bool = False, seen: Counter[str] | None = None) -> str:
    """What went wrong in this schedule, whose rounds are masked or not; "" if nothing did. `seen` counts the losses of
    the aggregator's database (losses.py)."""
    world = World((masked.draw if masks else Schedule.draw)(seed), print if trace else None)
    try:
        world.run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if seen is not None:
            seen.update(world.losses.count)
    return ""


def failures(seeds: Iterable[int], masks: bool = False, seen: Counter[str] | None = None) -> list[tuple[int, str]]:
    return [(seed, why) for seed in seeds if (why := failure(seed, masks=masks, seen=seen))]


def _chunk(seeds: range, masks: bool) -> tuple[list[tuple[int, str]], Counter[str]]:
    seen: Counter[str] = Counter()
    return failures(seeds, masks, seen), seen


def soak(first: int, count: int, jobs: int, seen: Counter[str], masks: bool = False) -> Iterator[tuple[int, str]]:
    """Every failure among `count` schedules from seed `first` on, as they are found."""
    chunks = [range(s, min(s + CHUNK, first + count)) for s in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        for found, losses in pool.map(partial(_chunk, masks=masks), chunks):
            seen.update(losses)
            yield from found


def _commit() -> str:
    run = partial(subprocess.run, capture_output=True, text=True, cwd=Path(__file__).parent)
    return run(["git", "describe", "--always", "--dirty"]).stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(prog="dst", allow_abbrev=False, description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed, or the only one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--trace", action="store_true", help="print every event of one schedule")
    parser.add_argument("--masked", action="store_true", help="schedules whose rounds are masked")
    args = parser.parse_args()
    logging.disable()
    if args.trace or args.seeds == 1:
        why = failure(args.seed, args.trace, args.masked)
        print(f"seed {args.seed}: {why or 'nothing wrong'}")
        return bool(why)
    started, failed = time.monotonic(), 0
    seen: Counter[str] = Counter()
    for seed, why in soak(args.seed, args.seeds, args.jobs, seen, args.masked):
        failed += 1
        print(f"seed {seed} at commit {_commit()}: {why}", flush=True)
    print(f"{args.seeds} schedules, {failed} failed, {time.monotonic() - started:.0f} s", dict(seen) or "")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
