"""What ByzFL makes of seeded vectors, for tests/strategies/test_robust_oracle.py: `python byzfl_golden.py > FILE`.

Needs `pip install byzfl`, whose torchvision, seaborn and scipy are too much for every test run; the results of version
0.0.11 are in tests/golden/byzfl.json. Its parameters are set as that test sets ours.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

CASES = ((11, 17, 3), (20, 40, 4), (9, 5, 1))  # vectors, coordinates, f


def vectors(case: int) -> np.ndarray:
    """(n, d) float64 whose numbers are float32's: honest ones around a mean, and f that are far from it."""
    n, d, f = CASES[case]
    rng = np.random.default_rng(case)
    found = rng.normal(0.3, 1.0, (n, d)) * rng.uniform(0.5, 1.5, (n, 1))
    found[rng.permutation(n)[:f]] += rng.normal(0, 4.0, d)
    return found.astype(np.float32).astype(np.float64)


def rules(f: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """ByzFL's, by the spec of ours."""
    byzfl = _aggregators()

    def after(*steps: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def run(given: np.ndarray) -> np.ndarray:
            for step in steps:
                given = step(given)
            return given

        return run

    return {
        "median": byzfl.Median(),
        "trimmed-mean": byzfl.TrMean(f),
        "geometric-median:nu=0.1,iterations=3": byzfl.GeometricMedian(nu=0.1, T=3),
        "krum:neighbours=n-f-1": byzfl.Krum(f),
        "multi-krum:neighbours=n-f-1": byzfl.MultiKrum(f),
        "mda": byzfl.MDA(f),
        "meamed": byzfl.Meamed(f),
        "monna:trusted=2": byzfl.MoNNA(f, idx=2),
        "centred-clipping:tau=3.0,iterations=4": byzfl.CenteredClipping(L=4, tau=3.0),
        "trimmed-mean:before=nnm": after(byzfl.NNM(f), byzfl.TrMean(f)),
        "trimmed-mean:before=clip,clip_norm=4.0": after(byzfl.Clipping(c=4.0), byzfl.TrMean(f)),
        "meamed:before=arc": after(byzfl.ARC(f), byzfl.Meamed(f)),
        "multi-krum:before=arc+nnm,neighbours=n-f-1": after(byzfl.ARC(f), byzfl.NNM(f), byzfl.MultiKrum(f)),
        "geometric-median:before=clip+nnm,clip_norm=4.0,nu=0.1,iterations=3": after(
            byzfl.Clipping(c=4.0), byzfl.NNM(f), byzfl.GeometricMedian(nu=0.1, T=3)
        ),
        "mda:before=nnm": after(byzfl.NNM(f), byzfl.MDA(f)),
    }


@cache
def _aggregators() -> Any:
    """ByzFL's aggregators, without its package, which imports torchvision."""
    spec = importlib.util.find_spec("byzfl")
    assert spec is not None, "pip install byzfl"
    package = ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators")


def main() -> None:
    found = {
        str(case): {spec: rule(vectors(case)).tolist() for spec, rule in rules(f).items()}
        for case, (_, _, f) in enumerate(CASES)
    }
    json.dump(found, sys.stdout, indent=0)


if __name__ == "__main__":
    main()
