"""What benchmarks/gate.py has measured at earlier commits, and which ratios have fallen since. No timing here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

LAST = 10  # measurements that a new one is held against
FALL = 0.1  # of their median


@dataclass(frozen=True)
class Measured:
    """Speeds at one commit, each a multiple of what NumPy reaches in the same run; only like processors compare."""

    commit: str
    processor: str
    isa: str
    ratios: Mapping[str, float]


def read(path: Path) -> list[Measured]:
    """One line of JSON each, the oldest first; none if there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Measured(**json.loads(line)) for line in lines if line.strip()]


def keep(path: Path, measured: Measured) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(measured)) + "\n")


def medians(history: Iterable[Measured], processor: str, isa: str) -> dict[str, float]:
    """The median of the last ten of each ratio on this kind of processor; a ratio that is new has none."""
    alike = [each for each in history if (each.processor, each.isa) == (processor, isa)]
    found: dict[str, list[float]] = {}
    for each in alike:
        for name, ratio in each.ratios.items():
            found.setdefault(name, []).append(ratio)
    return {name: statistics.median(ratios[-LAST:]) for name, ratios in found.items()}


def fallen(ratios: Mapping[str, float], usual: Mapping[str, float]) -> list[str]:
    """The names whose ratio is more than a tenth below the usual one. One that is no longer measured has fallen too."""
    return [name for name, median in usual.items() if ratios.get(name, 0.0) < (1 - FALL) * median]
