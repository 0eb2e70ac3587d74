"""Reads back all that was written, with the readers of the programs that will: nothing is done before that."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import data
from ..errors import UsageError
from ..hosting.config import AggregatorConfig
from ..onnx.load import load
from ..settings import files
from ..settings.reading import choices
from .wanted import Wanted

MOST = 20  # devices whose files the agent itself reads: all are written alike


def prove(wanted: Wanted, folder: Path, own: Sequence[str]) -> None:
    """UsageError, ModelError, DataError: what could not be read. `own` are the data that are on this machine."""
    config = files.load(folder / "aggregator.toml", AggregatorConfig)
    standardize = config.features.is_federated
    path, loss = folder / config.model, config.loss
    model = load(path, loss, **choices(config), dims=config.dims, standardize=standardize, adapters=config.adapters)
    for spec in own:
        data.fit_plan(data.load(spec, test_fraction=0), model.plan)
    if wanted.keys:
        from ..keys.report import report

        report(folder / "keys")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for path in _agents(wanted, folder, Path(scratch)):
            _read_by_the_agent(path)


def _agents(wanted: Wanted, folder: Path, scratch: Path) -> Iterator[Path]:
    """agent.toml of the first devices, those of bundles unpacked."""
    for device in wanted.devices[:MOST]:
        if not wanted.keys:
            yield folder / "devices" / device / "agent.toml"
            continue
        home = scratch / device
        home.mkdir(0o700)
        with tarfile.open(folder / "keys" / "devices" / f"{device}.tar") as bundle:
            for entry in bundle:  # Debian 12's Python has no filter= of extractall
                path, file = home / Path(entry.name).name, bundle.extractfile(entry)
                path.touch(entry.mode)
                path.write_bytes(b"" if file is None else file.read())
        yield home / "agent.toml"


def _read_by_the_agent(path: Path) -> None:
    """Let edgefl-agent read it, in a process of its own: the library does not know the daemons' code."""
    words = ["-m", "edgefl_agent", "plans", "--config", str(path), "--set", f"state_dir={path.parent}"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"edgefl-agent can't read {path.name}: {done.stderr.strip().removeprefix('error: ')}")
