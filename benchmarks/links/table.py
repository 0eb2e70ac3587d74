"""How long rounds take on slow links, and how many bytes pass them, beside what would be ideal: `make slow-links`.

    PYTHONPATH=tests/support python benchmarks/links/table.py [--rounds N] [--proxy] [--only KBIT_S]

Two agents, the aggregator and mosquitto are real processes. Each agent has a link of its own: a network namespace with
a token bucket, where this user and kernel can make one, else a proxy that keeps the rate. All settings are the defaults
but the codec, `interval_s = 0`, `expect = 2`, and a deadline of an hour; the last rows have the default deadline. Exit
code 1 if a row misses its bounds. Slow rows run side by side, since they cost no processor time; the
others follow one by one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slow_links import ByNamespace, ByProxy, Row, namespaces_work, run

RATES = (9.6, 32.0, 64.0, 256.0)  # kbit/s
SIZES = (100_000, 700_000)  # bytes of a model in float32
SHARE = {"raw32": 1.35, "ecq": 0.37}  # of a model's bytes, that a first round carries, up and down
LONGEST_S = 600.0  # rounds whose ideal is longer are left out
SIDE_BY_SIDE_S = 60.0  # rows that take longer run side by side
STAGGER_S = 4.0  # between their starts


@dataclass(frozen=True)
class Case:
    kbit_s: float
    codec: str
    num_bytes: int
    deadline_s: float | None = 3600.0

    @property
    def guess_s(self) -> float:
        """About how long the first round takes at best."""
        return SHARE[self.codec] * self.num_bytes / (self.kbit_s * 125)


# With the default deadline: a round that takes a little longer than it, and one that is far below.
DEADLINE = [Case(9.6, "raw32", 300_000, None), Case(32.0, "raw32", 340_000, None)]


def cases() -> list[Case]:
    found = [Case(rate, codec, size) for rate in RATES for codec in SHARE for size in SIZES]
    return [case for case in found if case.guess_s <= LONGEST_S]


def measure(case: Case, rounds: int, by_proxy: bool, wait_s: float) -> tuple[Case, Row, list[str]]:
    time.sleep(wait_s)
    with tempfile.TemporaryDirectory(prefix="slow-links-") as folder:
        row, records = run(
            Path(folder) / "run", case.kbit_s, case.codec, case.num_bytes, rounds=rounds, deadline_s=case.deadline_s,
            make_link=ByProxy if by_proxy else ByNamespace,
        )  # fmt: skip
    print(row, flush=True)
    return case, row, [record.state for record in records]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each row, the first from a cold start")
    parser.add_argument("--proxy", action="store_true", help="keep the rate by a proxy although namespaces work")
    parser.add_argument("--only", type=float, help="rows of this rate only, in kbit/s")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    by_proxy = options.proxy or not namespaces_work()
    print("links are kept slow by", "proxies" if by_proxy else "token buckets in network namespaces", flush=True)
    wanted = [case for case in [*cases(), *DEADLINE] if options.only in (None, case.kbit_s)]
    slow = [case for case in wanted if case.guess_s > SIDE_BY_SIDE_S / 2]
    with ThreadPoolExecutor(max(1, len(slow))) as pool:
        jobs = [pool.submit(measure, c, options.rounds, by_proxy, STAGGER_S * i) for i, c in enumerate(slow)]
        found = {result[0]: result for result in (job.result() for job in jobs)}
    for case in wanted:
        if case not in slow:
            found[case] = measure(case, options.rounds, by_proxy, 0.0)
    return report([found[case] for case in wanted])


def report(results: list[tuple[Case, Row, list[str]]]) -> int:
    print("\n| kbit/s | codec | model, kB | deadline | s | ideal | ratio | kB | ideal | ratio | connections |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    bad = 0
    for case, row, states in results:
        lost = [state for state in states if state != "committed"]
        in_time = row.in_time or case.deadline_s is None
        bad += bool(lost) or not (in_time and row.in_bytes)
        marks = (["lost"] if lost else []) + ([] if in_time else ["time"]) + ([] if row.in_bytes else ["bytes"])
        print(
            f"| {row.kbit_s:g} | {row.codec} | {row.model_bytes / 1e3:.0f} | {_deadline(case)} "
            f"| {row.seconds:.1f} | {row.ideal_s:.1f} | {row.seconds / row.ideal_s:.2f}× | {row.bytes / 1e3:.1f} "
            f"| {row.ideal_bytes / 1e3:.1f} | {row.bytes / row.ideal_bytes:.2f}× | {row.connections} |"
            + (f" MISSED: {', '.join(marks)}" if marks else "")
        )
    return 1 if bad else 0


def _deadline(case: Case) -> str:
    return "default" if case.deadline_s is None else f"{case.deadline_s:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
