"""The imprint attack: what an aggregator that means ill can read out of one update. For tests and docs/policy.md.

After Fowl et al. 2022, "Robbing the Fed" (arXiv:2110.13057). Every unit of a wide first layer measures the same number
of an example, w . x, and they differ in their thresholds. An example moves the weights of all units whose threshold it
exceeds, each by the same multiple of itself. So the difference between the changes of two neighbours is made of the
examples between their thresholds; where that is one, dividing by the same difference of the biases gives its pixels.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from edgefl.core.plan import Node, Param, Plan

NEAR = 0.02  # largest error of any number of an example, whose numbers are 0 to 1, that counts as recovered


def plan(inputs: int, units: int, classes: int) -> Plan:
    """An ordinary network of two layers. What makes it an attack is its width, and its params."""
    nodes = [Node("dense", [0], [0, 1]), Node("relu", [1]), Node("dense", [2], [2, 3])]
    params = [Param("w", [inputs, units]), Param("b", [units]), Param("v", [units, classes]), Param("c", [classes])]
    return Plan([inputs], nodes, params, "cross_entropy", 3, 3)


def params(inputs: int, units: int, classes: int, like: np.ndarray) -> np.ndarray:
    """(P,) of that plan, for examples like `like` (n, inputs): thresholds are quantiles, as a normal law has them."""
    rng = np.random.default_rng(7)
    direction = rng.normal(size=inputs) / np.sqrt(inputs)
    measured = like @ direction
    law = NormalDist(float(measured.mean()), float(measured.std()))
    thresholds = np.array([law.inv_cdf((i + 0.5) / units) for i in range(units)])
    w = np.repeat(direction[:, None], units, axis=1)
    v = np.repeat(np.linspace(-1, 1, classes)[None], units, axis=0) / units
    return np.concatenate([w.ravel(), -thresholds, v.ravel(), np.zeros(classes)]).astype(np.float32)


def recover(delta: np.ndarray, inputs: int, units: int) -> np.ndarray:
    """(m, inputs) what may be examples, from one update (P,) of it."""
    w = delta[: inputs * units].reshape(inputs, units).astype(np.float64)
    b = delta[inputs * units : (inputs + 1) * units].astype(np.float64)
    dw, db = np.diff(w, axis=1, append=0), np.diff(b, append=0)
    told = np.abs(db) > 1e-3 * np.abs(db).max()
    return (dw[:, told] / db[told]).T


def share(found: np.ndarray, x: np.ndarray) -> float:
    """The share of the examples x (n, inputs) that are among `found`, each number of them within NEAR."""
    if len(found) == 0:
        return 0.0
    return float(np.mean([np.abs(found - row).max(1).min() < NEAR for row in x]))
