"""Karimireddy et al. 2020 (arXiv:1910.06378), table 3: SCAFFOLD against FedAvg, by similarity and epochs.

The paper trains logistic regression on EMNIST in 100 parts, of which 20 are asked in a round: s % of a part are drawn
at random, the others are sorted by label. An epoch is five local steps, and a cell is the number of rounds to a test
accuracy of 0.5. Ours has MNIST, ten classes instead of 62, so the target is 0.85, and figures are not the paper's. What
is compared: at 0 % FedAvg gets worse with more local steps and SCAFFOLD does not; with similarity both gain.
"""

from __future__ import annotations

from typing import Any

from cells import Cell

FLEET: dict[str, Any] = {
    "devices": 100, "fraction": 0.2, "min_reports": 1, "codec": "raw32", "downlink": "raw32", "span": 1,
    "batch_size": 120,
}  # fmt: skip
# Strategy, epochs -> rounds at a similarity of 0, 10 and 100 %; None: more than the paper's thousand.
PUBLISHED: dict[tuple[str, int], tuple[int | None, int | None, int | None]] = {
    ("scaffold", 1): (77, 62, 60), ("scaffold", 5): (152, 20, 10), ("scaffold", 10): (286, 16, 7),
    ("scaffold", 20): (266, 11, 4),
    ("fedavg", 1): (258, 74, 83), ("fedavg", 5): (428, 34, 10), ("fedavg", 10): (711, 25, 6),
    ("fedavg", 20): (None, 18, 4),
}  # fmt: skip
SIMILARITY = (0, 10, 100)
TARGET = 0.85


def cells() -> list[Cell]:
    return [_cell(*row, similarity) for row in PUBLISHED for similarity in SIMILARITY]


def _cell(strategy: str, epochs: int, similarity: int) -> Cell:
    settings = FLEET | {"epochs": epochs, "partition": f"similarity:{similarity}", "strategy": strategy}
    return Cell(
        "karimireddy", f"{strategy} {epochs} epochs {similarity} %", "logistic", settings,
        tuple({"lr": lr} for lr in (0.01, 0.03, 0.1, 0.3)), most=1000, short=300, target=TARGET,
        published=PUBLISHED[strategy, epochs][SIMILARITY.index(similarity)],
    )  # fmt: skip
