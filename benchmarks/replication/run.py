"""Run the papers' tables, and write them beside the published figures.

    python benchmarks/replication/run.py --data FOLDER [--runs FOLDER] [--only TABLE ...] [--hours H] [--workers N]
                                         [--plan] [--all] [--report FILE.md]

FOLDER holds mnist/ and shakespeare/. Each run is one file in the folder of runs: interrupted, the suite goes on where
it was. It stops beginning runs after H hours. Cells that two cores can't do in a working day are left out, unless
--all is given; the report names them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import byzantine
import karimireddy
import mcmahan
import reddi
import report
from cells import TUNING_SEED, Cell, Runs
from models_and_data import Inputs

PAPERS = {
    "mcmahan": mcmahan.cells,
    "reddi": reddi.cells,
    "karimireddy": karimireddy.cells,
    "byzantine": byzantine.cells,
}
Task = tuple[Cell, int, int]  # which try, and which seed


def next_tasks(cells: dict[str, Cell], runs: Runs, under_way: set[tuple[str, int, int]]) -> list[Task]:
    """The runs that can begin now, in the order of the cells: tuning first, then the best try with each seed."""
    found: list[Task] = []
    for cell in cells.values():
        best = runs.best_try(cell, cells)
        wanted = [(tried, TUNING_SEED) for tried in range(len(cell.tries))] if best is None else []
        if best is not None:
            wanted = [(best, seed) for seed in cell.seeds]
        elif cell.same_tuning_as:
            wanted = []
        found += [
            (cell, tried, seed)
            for tried, seed in wanted
            if (cell.id, tried, seed) not in under_way and runs.read(cell, tried, seed) is None
        ]
    return found


def run_all(cells: dict[str, Cell], runs: Runs, *, workers: int, hours: float) -> None:
    """Run what is missing, the first cells first, in so many processes."""
    ends_at = time.monotonic() + 3600 * hours
    under_way: dict[Future[None], tuple[str, int, int]] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while True:
            free = workers - len(under_way)
            tasks = next_tasks(cells, runs, set(under_way.values()))[:free] if time.monotonic() < ends_at else []
            for cell, tried, seed in tasks:
                future = pool.submit(run_one, str(runs.folder), str(runs.inputs.folder), cell, tried, seed)
                under_way[future] = (cell.id, tried, seed)
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                under_way.pop(future)
                future.result()


def run_one(folder: str, data: str, cell: Cell, tried: int, seed: int) -> None:
    """One run, in a process of its own."""
    what = "tuning" if seed == TUNING_SEED else f"seed {seed}"
    print(f"{cell.id}: {what}, {cell.tries[tried]}", flush=True)
    kept = Runs(Path(folder), Inputs(Path(data))).run(cell, tried, seed)
    last = next((value for value in reversed(kept.accuracy) if value is not None), None)
    print(f"{cell.id}: {len(kept.accuracy)} rounds in {kept.seconds:.0f} s, accuracy {last}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("replication-runs"), metavar="FOLDER")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="TABLE", help=f"of {', '.join(PAPERS)}, or a cell's id"
    )
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plan", action="store_true", help="say what would run, and end")
    parser.add_argument("--all", action="store_true", help="also what takes two cores more than a day")
    parser.add_argument("--report", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    every = [cell for make in PAPERS.values() for cell in make()]
    chosen = {cell.id: cell for cell in every if options.all or "too long" not in cell.tags}
    if options.only:
        named = {id for id in chosen if id.startswith(tuple(options.only))}
        named |= {chosen[id].same_tuning_as for id in named if chosen[id].same_tuning_as}
        chosen = {id: cell for id, cell in chosen.items() if id in named}
    runs = Runs(options.runs, Inputs(options.data))
    if options.plan:
        for cell, tried, seed in next_tasks(chosen, runs, set()):
            print(cell.id, cell.tries[tried], "tuning" if seed == TUNING_SEED else seed)
        return
    if not options.report:
        run_all(chosen, runs, workers=options.workers, hours=options.hours)
    text = report.write(every, runs)
    if options.report:
        options.report.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
