"""Strategies: how updates become the next model. A strategy is pre → combine → server optimizer.

    pre/       what is done to one update     staleness
    combine/   how updates become one delta   mean, normalized, fair, mixing; spilled (the base of rules that need every
                                              update); robust rules
    mix/       what is done to all updates before a robust rule   nnm, bucketing, clip, arc
    server/    how the delta moves the model  step, momentum, adaptive

To add one, write the part that is missing, one rule a file, and a preset with a line here. A strategy from outside is
named by its entry point in the group edgefl.strategies, or as "module:Class".
"""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from ..registry import Found, Seam
from .base import Site, State, Strategy, Update

STRATEGIES = {
    "fedavg": "edgefl.strategies.presets:fedavg",
    "fedavgm": "edgefl.strategies.presets:fedavgm",
    "fedsgd": "edgefl.strategies.presets:fedsgd",
    "scaffold": "edgefl.strategies.whole.scaffold:Scaffold",
    "feddyn": "edgefl.strategies.whole.feddyn:FedDyn",
    "fedcm": "edgefl.strategies.whole.fedcm:FedCM",
    "mime-lite": "edgefl.strategies.whole.mime_lite:MimeLite",
    "mifa": "edgefl.strategies.whole.mifa:Mifa",
    "fedadagrad": "edgefl.strategies.presets:fedadagrad",
    "fedadam": "edgefl.strategies.presets:fedadam",
    "fedyogi": "edgefl.strategies.presets:fedyogi",
    "fednova": "edgefl.strategies.presets:fednova",
    "qfedavg": "edgefl.strategies.presets:qfedavg",
    "fedasync": "edgefl.strategies.presets:fedasync",
    "bulyan": "edgefl.strategies.robust_presets:bulyan",
    "centred-clipping": "edgefl.strategies.robust_presets:centred_clipping",
    "geometric-median": "edgefl.strategies.robust_presets:geometric_median",
    "krum": "edgefl.strategies.robust_presets:krum",
    "mda": "edgefl.strategies.robust_presets:mda",
    "meamed": "edgefl.strategies.robust_presets:meamed",
    "median": "edgefl.strategies.robust_presets:median",
    "monna": "edgefl.strategies.robust_presets:monna",
    "multi-krum": "edgefl.strategies.robust_presets:multi_krum",
    "trimmed-mean": "edgefl.strategies.robust_presets:trimmed_mean",
    "fedper": "edgefl.strategies.personal_presets:fedper",
    "fedrep": "edgefl.strategies.personal_presets:fedrep",
    "fedbn": "edgefl.strategies.personal_presets:fedbn",
    "ditto": "edgefl.strategies.personal_presets:ditto",
    "apfl": "edgefl.strategies.personal_presets:apfl",
    "finetune": "edgefl.strategies.personal_presets:finetune",
}

SEAM = Seam("strategy", "edgefl.strategies", STRATEGIES)

__all__ = ["STRATEGIES", "Site", "State", "Strategy", "Update", "get"]


def get(strategy: str | Strategy | type[Strategy], /, **options: Any) -> Strategy:
    """The strategy of that name or class, with its options; an object is returned as it is. UsageError."""
    if isinstance(strategy, Strategy):
        if options:
            raise UsageError(f"strategy {strategy.name!r} has its options already: leave out {', '.join(options)}")
        return strategy
    if isinstance(strategy, str):
        found, name = SEAM.find(strategy), strategy
    elif isinstance(strategy, type):
        name = f"{strategy.__module__}:{strategy.__qualname__}"
        found = Found(strategy, name)
    else:
        raise UsageError(
            f"strategy is {strategy!r}: give a name, 'module:Class', a class or an object of edgefl.strategies.Strategy"
        )
    made: Strategy = SEAM.build(found, name, options, Strategy)
    made.options = made.options or options
    if not isinstance(getattr(made, "name", None), str):
        raise UsageError(f"strategy {name!r} has no name: give its class a variable `name`, a string")
    if bool(made.sides) != (type(made).broadcast is not Strategy.broadcast):
        raise UsageError(f"strategy {name!r} broadcasts side vectors, or names them, but not both: it must do both")
    return made
