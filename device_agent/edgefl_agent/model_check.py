"""What `edgefl-agent --check` says of [model]: whether its files can be written, and what is run afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgefl.checks.report import Finding, ok, problem, warning
from edgefl.protocol.manifest import Manifest

from . import model_files
from .model_config import ModelConfig


def look(config: ModelConfig, manifest: Manifest | str) -> Iterator[Finding]:
    """Nothing where the section is left out. UsageError if it does not fit together."""
    if config == ModelConfig():
        return
    model_files.check(config)
    wrong = [*_folders(config), *_program(config)]
    yield from wrong
    if config.file and isinstance(manifest, Manifest) and manifest.skeleton is None:
        yield warning(
            "the aggregator publishes no skeleton of this model's file, so [model] file is not written",
            "see the aggregator's log for the reason, or update an older one; params_file is written all the same",
        )
    if not wrong:
        yield ok(f"models go to {', '.join(filter(None, (config.file, config.personal_file, config.params_file)))}")


def _folders(config: ModelConfig) -> Iterator[Finding]:
    paths = (config.file, config.personal_file, config.params_file, config.plan_file)
    for folder in sorted({Path(path).parent for path in paths if path is not None}):
        if not folder.is_dir():
            yield problem(f"{folder}, where [model] writes, is no folder", "make it, and give it to the agent's user")
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield problem(f"{folder}, where [model] writes, can't be written", "give it to the agent's user")


def _program(config: ModelConfig) -> Iterator[Finding]:
    if config.command and shutil.which(config.command[0]) is None:
        yield problem(
            f"[model] command {config.command[0]!r} is no program", "give its whole path, and make it executable"
        )
