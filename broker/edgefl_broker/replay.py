"""Replay: compute all rounds again from the start model and the journal of accepted updates.

Sums are integers and strategies are deterministic, so the result must be the newest model, bit for bit. A state folder
belongs to one process: stop the aggregator first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgefl import auto
from edgefl.codecs import Codec
from edgefl.core.columns import Scaling
from edgefl.core.params import params_sha256
from edgefl.errors import StoreError, UsageError
from edgefl.federation import make_manifest, make_strategy
from edgefl.history_files import HistoryFiles
from edgefl.history_record import MOVED, RoundRecord
from edgefl.hosting import command
from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files
from edgefl.strategies import Site, Strategy
from edgefl.strategies.masked import over

from .choice import choice_of, within_budget
from .journal import Journal
from .model_file import load_both
from .round_rows import KEPT_RECORDS
from .store import AggregatorStore


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 if the journal leads to the newest model, 1 if it does not, 2 for wrong use."""
    parser = command.Parser(
        prog="python -m edgefl_broker.replay",
        description="Check that the journal of accepted updates leads to the newest model, bit for bit.",
        example="python -m edgefl_broker.replay --config aggregator.toml",
    )
    add = parser.add_argument_group("the federation").add_argument
    add("--config", metavar="FILE", required=True, help="its aggregator.toml, with `journal`")
    command.add_set_option(add)
    command.add_common_options(parser, level="warning")
    options = parser.parse_args(argv)
    return command.run(options, lambda: run(files.load(options.config, AggregatorConfig, options.set)))


def run(settings: AggregatorConfig) -> None:
    """Print what the journal proves; StoreError if it does not lead to the newest model."""
    if settings.journal is None or not Path(settings.journal).exists():
        raise UsageError("there is no journal: set `journal`, and start the federation with it")
    model, _ = load_both(settings)
    store, journal = AggregatorStore(Path(settings.state_dir)), Journal(Path(settings.journal))
    try:
        model = within_budget(settings, model, store).model
        if choice := choice_of(settings, model.plan, store):
            settings = auto.apply(settings, choice)
        manifest = make_manifest(settings, settings.federation, "0" * 16, model.plan)
        strategy = over(manifest.mask, make_strategy(settings))
        strategy.prepare(Site(
            model.plan.num_params, model.plan.num_trainable, late_rounds=settings.rounds.late_window,
            devices=settings.rounds.expect,
        ))  # fmt: skip
        history = HistoryFiles(Path(settings.state_dir), settings.history_mb * 1e6)
        history.mend(store.recent(KEPT_RECORDS))
        rounds = [record for record in history.records() if record.state in MOVED]
        version, newest = store.models.newest(len(model.params))
        scaled = Scaled(Scaling.of(model.plan), newest)
        params = replay(journal, rounds, strategy, manifest.update_codec, model.params, scaled=scaled)
    finally:
        store.close()
        journal.close()
    if params.tobytes() != newest.tobytes():
        raise StoreError(f"version {version} is not what the {len(rounds)} committed rounds in the journal make")
    print(f"version {version} is, bit for bit, what {len(rounds)} rounds make of the start: {params_sha256(params)}")


class Scaled(NamedTuple):
    """A scaling that the model got from a profile is in no update: it is that of the `newest` model (P,)."""

    scaling: Scaling | None = None
    newest: np.ndarray = np.empty(0, np.float32)

    def get(self, params: np.ndarray) -> np.ndarray:
        """The model after a profile that scaled these params (P,)."""
        return self.keep(params, self.newest)

    def keep(self, params: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The params (P,) of a round that began with those `before`: no update moves the scaling."""
        return params if self.scaling is None else self.scaling.keep(params, before)


def replay(
    journal: Journal,
    rounds: Sequence[RoundRecord],
    strategy: Strategy,
    codec: Codec,
    params: np.ndarray,
    *,
    scaled: Scaled = Scaled(),  # noqa: B008
) -> np.ndarray:
    """The params (P,) after `rounds`, which each made a version; `params` (P,) are those that the first one began with.
    StoreError if a round did not begin with the params that the round before it ended with."""
    wanted = {record.restored for record in rounds}  # versions that the operator went back to later
    kept = {0: (params, strategy.state())}
    for record in rounds:
        if record.restored is not None:
            params, state = kept[record.restored]
            strategy.restore(state)
        elif record.profile:
            params = scaled.get(params)
        else:
            params = scaled.keep(_average(journal, record.round, strategy, codec, params), params)
        if record.version in wanted:
            kept[record.version] = params, strategy.state()
    return params


def _average(journal: Journal, round: int, strategy: Strategy, codec: Codec, params: np.ndarray) -> np.ndarray:
    """The params (P,) that the round made of `params`."""
    if journal.before(round) != params_sha256(params):
        raise StoreError(f"the journal has no round {round} that begins where the rounds before it end")
    strategy.shown(journal.sides(round, strategy.sides))
    strategy.start(params, round)
    for update in journal.updates(round, codec):
        strategy.add(update)
    return strategy.finish()


if __name__ == "__main__":
    sys.exit(main())
