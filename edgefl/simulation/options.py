"""What only a simulation needs to know, declared as settings are: the fleet that is simulated.

The defaults of simulate(), and the options of `edgefl simulate`, are made from it.
"""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Meta, Struct

from .devices.faults import HELP

MAX_WORKERS = 1024  # each is a thread, with an arena of its own


class FleetOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The fleet that is simulated."""

    devices: Annotated[int, Meta(ge=1, description="Number of devices.")] = 100
    partition: Annotated[
        str,
        Meta(
            description="How the training data is spread over the devices: iid, pathological, shards:K, labels:K, "
            "similarity:S, dirichlet:A, label-shift:A, quantity:A, unbalanced:S, windows:N or natural; with +noise:V, "
            "+gain:S, +rotate:G or +relabel:G, devices see it differently (docs/partitions.md)."
        ),
    ] = "iid"
    faults: Annotated[str, Meta(description=HELP)] = ""
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_WORKERS)] | None,
        Meta(description="Threads, or processes of agents over MQTT; without it, one for each core."),
    ] = None
    threads: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Threads that each training computes with, where models are large or few devices train at a "
            "time. There are as many fewer workers; beside a number of workers, no more threads than cores are left.",
        ),
    ] = 1
    engine: Annotated[
        Annotated[str, Meta(pattern=r"^(local|ray|ray:.+)\Z")],
        Meta(
            description="What computes the trainings: local, threads of this process; ray, workers of the Ray cluster "
            "that RAY_ADDRESS names or that runs here, or else of a new one; or ray:ADDRESS."
        ),
    ] = "local"
    resume_mb: Annotated[
        float,
        Meta(
            ge=0,
            le=1e9,
            description="Disk space, in MB, of the journal in the --out folder, from which a run that was stopped "
            "goes on with --resume; 0 writes no journal.",
        ),
    ] = 4000.0


DEFAULTS = FleetOptions()
ROUNDS = 20  # of a simulation whose settings name no number


def cores() -> int:
    """Processors of this machine."""
    return os.cpu_count() or 1


def workers_and_threads(options: FleetOptions) -> tuple[int, int]:
    """How many trainings run at once, and on how many threads each: together no more than this machine has cores,
    unless more workers than that are asked for. The results are the same for any numbers."""
    workers = options.workers or max(1, cores() // options.threads)
    return workers, max(1, min(options.threads, cores() // workers))
