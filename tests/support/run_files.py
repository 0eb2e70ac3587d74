"""The runs of an experiment's folder, as `edgefl compare` has written them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgefl.experiments.results import Result


def results(folder: Path) -> dict[str, Result]:
    """By file name."""
    found = sorted((folder / "runs").glob("*.json"))
    return {path.name: msgspec.json.decode(path.read_bytes(), type=Result) for path in found}
