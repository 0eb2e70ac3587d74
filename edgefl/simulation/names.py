"""Names that a simulation is given, looked up before any data are read: a mistake in one is told at once."""

from __future__ import annotations

from .. import codecs, strategies
from ..federation import Objects
from ..settings import Settings
from ..settings.spec import split
from .devices.faults import Faults
from .split import shifts
from .split.partitions import Partition

AUTO = "auto"


def check(settings: Settings, partition: str | Partition, faults: str, objects: Objects | None = None) -> None:
    """UsageError for a strategy, codec, partition or fault that there is not, or whose options it does not have. What
    is given as one of `objects` has been looked at."""
    given = objects or Objects()
    if given.strategy is None:
        name, options = split(settings.strategy.name)
        strategies.get(name, **options)
    for spec, one in ((settings.codec.name, given.codec), (settings.downlink.name, given.downlink)):
        if one is None and spec != AUTO:
            name, options = split(spec)
            codecs.get(name, **options)
    shifts.check(partition)
    Faults.parse(faults)
