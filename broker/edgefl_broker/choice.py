"""What "auto" stands for, chosen once for the life of a state folder."""

from __future__ import annotations

import msgspec

from edgefl import auto
from edgefl.core.plan import Plan
from edgefl.errors import StoreError
from edgefl.hosting.config import AggregatorConfig

from .store import AggregatorStore


def choice_of(config: AggregatorConfig, plan: Plan, store: AggregatorStore) -> auto.Choice | None:
    """The choice for `config`; None if it has no "auto".

    The first choice is kept in `store`: the devices' residuals belong to its manifest, so neither a restart, nor
    another `fraction` or `expect`, nor a newer version of this program changes it.
    """
    if not auto.wanted(config):
        return None
    kept = store.keep("auto", msgspec.json.encode(auto.choose(config, plan)).decode())
    try:
        return msgspec.json.decode(kept, type=auto.Choice)
    except msgspec.DecodeError:
        raise StoreError('the choice for "auto" in the state folder is damaged: put a backup in its place') from None
