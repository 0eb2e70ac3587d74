"""The Byzantine grid: robust strategies against attacks, with float32 updates and with compressed ones.

20 devices, 4 of which attack, MNIST, IID and dirichlet:0.3, 50 rounds of at most 60 steps of 10 examples. Attackers
know the honest updates of the round, and the strategy; the optimised attacks (opt-) choose their size by trying the
strategy (simulation/devices/attacks.py). The grid follows ByzFL's benchmark. Its figures are for other models, so no
published figure stands beside ours. The goal: after 50 rounds, mixing by neighbours and trimmed mean, or better, keep
93 % (IID) and 90 % (dirichlet:0.3) with `ecq`, where the plain mean falls below 60 % under the optimised attacks.
"""

from __future__ import annotations

from typing import Any

from cells import SEEDS, Cell

FLEET: dict[str, Any] = {
    "devices": 20, "min_reports": 11, "downlink": "raw32", "span": 1, "batch_size": 10, "epochs": 10, "max_steps": 60,
    "lr": 0.1,
}  # fmt: skip
ROUNDS = 50
SPLITS = {"IID": "iid", "dirichlet:0.3": "dirichlet:0.3"}
ATTACKS = ("none", "opt-alie", "opt-ipm", "mimic", "sign-flip")
CODECS = ("ecq", "raw32")
STRATEGIES = {
    "mean": "fedavg",
    "NNM + trimmed mean": "trimmed-mean:f=4,before=nnm",
    "clip + NNM + trimmed mean": "trimmed-mean:f=4,before=clip+nnm",
    "ARC + NNM + geometric median": "geometric-median:f=4,before=arc+nnm",
    "NNM + multi-Krum": "multi-krum:f=4,before=nnm",
    "trimmed mean": "trimmed-mean:f=4",
    "median": "median:f=4",
    "centred clipping": "centred-clipping:f=4,iterations=3",
}
MAIN = ("mean", "NNM + trimmed mean", "clip + NNM + trimmed mean")  # with three seeds


def cells() -> list[Cell]:
    """Main ones first: the mean and NNM with trimmed mean, compressed."""
    return [
        _cell(strategy, split, codec, attack)
        for codec in CODECS
        for strategy in STRATEGIES
        for split in SPLITS
        for attack in ATTACKS
    ]


def _cell(strategy: str, split: str, codec: str, attack: str) -> Cell:
    settings = FLEET | {
        "strategy": STRATEGIES[strategy], "partition": SPLITS[split], "codec": codec,
        "faults": "" if attack == "none" else f"attack:{attack}:0.2",
    }  # fmt: skip
    main = codec == "ecq" and strategy in MAIN
    return Cell(
        "byzantine", f"{strategy} {split} {codec} {attack}", "2nn", settings, tries=({},), most=ROUNDS, short=1,
        seeds=SEEDS if main else SEEDS[:1],
    )  # fmt: skip
