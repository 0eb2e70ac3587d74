"""Simulations kept as JSON files, so that a benchmark of many runs can be interrupted and goes on where it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from models import mcmahan_cnn, mlp

import edgefl
from edgefl import data

MODELS = {"2nn": (mlp, "784"), "cnn": (mcmahan_cnn, "1x28x28")}
FIELDS = ("accuracy", "bytes_up", "bytes_down", "float32_bytes", "devices")


def run(folder: Path, name: str, model: str, spec: str, *, workers: int, **arguments: Any) -> list[dict[str, Any]]:
    """`FIELDS` of each round of a simulation of `model` on MNIST (`spec`), or from its file in `folder`.

    A file with other arguments is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if path.exists() and (kept := json.loads(path.read_text()))["arguments"] == arguments:
        return list(kept["rounds"])
    print(f"{name} ...", file=sys.stderr, flush=True)
    make, shape = MODELS[model]
    history = edgefl.simulate(edgefl.load(make()), data.load(f"{spec}?shape={shape}"), workers=workers, **arguments)
    rounds = [{field: getattr(record, field) for field in FIELDS} for record in history.rounds]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"arguments": arguments, "rounds": rounds}))
    partial.replace(path)
    return rounds
