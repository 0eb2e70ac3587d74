"""Write the table in docs/strategies.md from what strategies declare: `python docs/write_strategies.py`.

The prose of the page is written by hand. A test says when the table is stale.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from edgefl.strategies import STRATEGIES, get
from edgefl.strategies.fit import FEATURES, NEEDS, Feature

PAGE = Path(__file__).with_name("strategies.md")
FIRST, LAST = "<!-- made by docs/write_strategies.py -->\n", "<!-- end of what it made -->\n"
OPTIONS = {"monna": {"trusted": "pi-01"}}  # that have no default


def table() -> str:
    """A row for each strategy, and the reasons below."""
    rows = ["| strategy | options | does not go with | needs |", "|---|---|---|---|"]
    reasons = []
    for name in STRATEGIES:
        fit = get(name, **OPTIONS.get(name, {})).fit
        rows.append(f"| `{name}` | {options(name)} | {named(fit.without, FEATURES)} | {named(fit.needs, NEEDS)} |")
        for told, known in ((fit.without, FEATURES), (fit.needs, NEEDS)):
            for why in dict.fromkeys(told.values()):
                same = {feature: reason for feature, reason in told.items() if reason == why}
                reasons.append(f"- `{name}`, {named(same, known)}: {why}.")
    return "\n".join([*rows, "", *reasons, ""])


def options(name: str) -> str:
    """The strategy's options with their defaults, as they follow a colon in `strategy.name`."""
    module, _, made = STRATEGIES[name].partition(":")
    parameters = inspect.signature(getattr(import_module(module), made)).parameters.values()
    open_ones = (None, inspect.Parameter.empty, "")
    return ", ".join(
        f"`{each.name}" + ("`" if each.default in open_ones else f"={each.default}`") for each in parameters
    )


def named(told: Mapping[str, str], known: Mapping[str, Feature]) -> str:
    return ", ".join(known[feature].column for feature in told)


def page() -> str:
    """The page with a current table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(FIRST)
    _, found, after = rest.partition(LAST)
    assert found, f"{PAGE} has no place for the table"
    return f"{before}{FIRST}\n{table()}\n{LAST}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
