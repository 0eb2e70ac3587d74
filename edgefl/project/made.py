"""Made: what `edgefl new` has decided and written, for its README and for what it prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .model_file import Choice
from .sample import Sample
from .wanted import Wanted


@dataclass(frozen=True)
class Made:
    """`federated`: the first round learns the scaling of the columns. `guarded`: mosquitto.conf names the guard."""

    wanted: Wanted
    folder: Path
    sample: Sample
    choice: Choice
    federated: bool
    guarded: bool = False
