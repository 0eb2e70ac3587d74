"""McMahan et al. 2017 (arXiv:1602.05629), tables 1 and 2: rounds to a test accuracy, against C, E and B.

MNIST in 100 parts: shuffled (iid), or two shards of sorted examples a device (pathological). Shakespeare: a device is a
role, or as many devices hold shuffled lines. The paper counts the rounds of the best learning rate of a grid, and so do
we, of a grid of three. The paper draws a tenth of its 1,146 roles a round; here ten roles are drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cells import Cell

FLEET: dict[str, Any] = {"devices": 100, "min_reports": 1, "codec": "raw32", "downlink": "raw32", "span": 1}
SPLITS = {"IID": "iid", "non-IID": "shards:2"}
TARGETS = {"2nn": 0.97, "cnn": 0.99, "lstm": 0.54}
# What the paper's fleets run with today's defaults: codecs both ways follow how often a device takes part.
DEFAULT_CODECS: dict[str, Any] = {"codec": "auto", "downlink": "auto", "span": "auto"}

# Table 1: model -> (E, {(C, B): (IID, non-IID)}); "all" is the paper's B of infinity, C = 0 one device a round.
TABLE_1: dict[str, tuple[int, dict[tuple[float, int | str], tuple[int | None, int | None]]]] = {
    "2nn": (1, {
        (0.0, "all"): (1455, 4278), (0.0, 10): (316, 3275),
        (0.1, "all"): (1474, 1796), (0.1, 10): (87, 664),
        (0.2, "all"): (1658, 1528), (0.2, 10): (77, 619),
        (0.5, 10): (75, 443), (1.0, 10): (70, 380),
    }),
    "cnn": (5, {
        (0.0, "all"): (387, 1181), (0.0, 10): (50, 956),
        (0.1, "all"): (339, 1100), (0.1, 10): (18, 206),
        (0.2, "all"): (337, 978), (0.2, 10): (18, 200),
        (0.5, "all"): (164, 1067), (0.5, 10): (18, 261),
        (1.0, "all"): (246, None), (1.0, 10): (16, 97),
    }),
}  # fmt: skip
# Table 2: model -> {(E, B): (IID, non-IID)}, at C = 0.1; E = 1 and B = "all" is FedSGD.
TABLE_2: dict[str, dict[tuple[int, int | str], tuple[int, int]]] = {
    "cnn": {
        (1, "all"): (626, 483), (5, "all"): (179, 1000), (1, 50): (65, 600), (20, "all"): (234, 672),
        (1, 10): (34, 350), (5, 50): (29, 334), (20, 50): (32, 426), (5, 10): (20, 229), (20, 10): (23, 173),
    },
    "lstm": {
        (1, "all"): (2488, 3906), (1, 50): (1635, 549), (5, "all"): (613, 597), (1, 10): (460, 164),
        (5, 50): (401, 152), (5, 10): (192, 41),
    },
}  # fmt: skip
# A rate that a step of so many examples learns well with, IID and non-IID, where the CNN diverges sooner.
RATES: dict[str, dict[int | str, tuple[float, float]]] = {
    "2nn": {"all": (0.4, 0.4), 10: (0.2, 0.2), 50: (0.3, 0.3)},
    "cnn": {"all": (0.4, 0.2), 10: (0.2, 0.07), 50: (0.3, 0.15)},
    "lstm": {"all": (3.0, 3.0), 10: (2.0, 2.0), 50: (3.0, 3.0)},
}
# What two cores can't do in the time, by the steps that the published number of rounds takes (report.py names them).
TOO_LONG_STEPS = {"2nn": 4_000_000, "cnn": 350_000, "lstm": 75_000}


def cells() -> list[Cell]:
    """All cells, those that the others are judged by first."""
    found = [_table_1(model, split, c, b) for model in TABLE_1 for (c, b) in TABLE_1[model][1] for split in SPLITS]
    found += [_table_2(model, split, e, b) for model in TABLE_2 for (e, b) in TABLE_2[model] for split in SPLITS]
    found = [cell for cell in found if cell.published is not None]
    return sorted([*found, *(_with_defaults(cell) for cell in found if cell.name in WITH_DEFAULTS)], key=_order)


WITH_DEFAULTS = (
    "2nn IID C=0.1 B=10", "2nn non-IID C=0.1 B=10", "cnn IID E=5 B=10", "cnn non-IID E=1 B=10", "lstm non-IID E=5 B=10",
)  # fmt: skip


def steps(cell: Cell) -> float:
    """The steps of the whole fleet until the paper's number of rounds, counting one of 600 examples as sixty of ten."""
    settings = cell.settings
    size = 74 if cell.model == "lstm" else 600
    asked = 10 if cell.model == "lstm" else max(1, round(100 * settings["fraction"]))
    return (cell.published or 0) * asked * settings["epochs"] * size / 10


def _order(cell: Cell) -> tuple[bool, float]:
    """Main cells first, then by cost."""
    name = cell.name.removesuffix(" defaults")
    return name not in WITH_DEFAULTS, steps(cell)


def _table_1(model: str, split: str, c: float, b: int | str) -> Cell:
    e, rows = TABLE_1[model]
    published = rows[c, b][list(SPLITS).index(split)]
    return _cell("mcmahan-1", model, split, f"C={c:g} B={b}", published, fraction=c or 0.01, epochs=e, batch_size=b)


def _table_2(model: str, split: str, e: int, b: int | str) -> Cell:
    published = TABLE_2[model][e, b][list(SPLITS).index(split)]
    return _cell("mcmahan-2", model, split, f"E={e} B={b}", published, fraction=0.1, epochs=e, batch_size=b)


def _cell(table: str, model: str, split: str, name: str, published: int | None, **settings: Any) -> Cell:
    fleet = dict(FLEET, partition=SPLITS[split], **settings)
    if model == "lstm":
        fleet |= {"devices": 1000, "fraction": 0.01, "partition": "natural" if split == "non-IID" else "iid"}
    rate = RATES[model][settings["batch_size"]][list(SPLITS).index(split)]
    known = published or 1
    cell = Cell(
        table, f"{model} {split} {name}", model, fleet,
        tuple({"lr": round(rate * times, 4)} for times in (0.7, 1.0, 1.4)),
        most=3 * known, short=max(10, known // 3), target=TARGETS[model], published=published,
    )  # fmt: skip
    expensive = steps(cell) > TOO_LONG_STEPS[model] / 4
    return replace(cell, seeds=(0,) if expensive else cell.seeds, tags=_tags(cell))


def _tags(cell: Cell) -> tuple[str, ...]:
    too_long = steps(cell) > TOO_LONG_STEPS[cell.model]
    return ("too long",) if too_long and cell.name not in WITH_DEFAULTS else ()


def _with_defaults(cell: Cell) -> Cell:
    """The same with the default codecs, and the learning rate that raw32 was tuned to."""
    settings = cell.settings | DEFAULT_CODECS
    return replace(cell, name=f"{cell.name} defaults", settings=settings, same_tuning_as=cell.id)
