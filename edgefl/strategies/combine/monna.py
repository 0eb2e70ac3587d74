"""MoNNA: the mean of the k − f updates nearest to that of a device that is trusted (Farhadkhani et al. 2023,
arXiv:2302.08412).

A round in which the trusted device does not report leaves the model as it is.
"""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from ..fit import Fit
from ..rule import Facts, Rule, chosen, smallest


class Monna(Rule):
    needs_names = True
    fit = Fit(needs={"keys": "without them, any device can report under the name of the trusted one"})

    def __init__(self, trusted: str) -> None:
        if not isinstance(trusted, str) or not trusted:
            raise UsageError(
                "monna starts from the update of a device that you trust: give its name, trusted=NAME, or use "
                "another strategy, such as geometric-median"
            )
        self._trusted = trusted

    def weights(self, facts: Facts) -> np.ndarray:
        k = len(facts.gram)
        if self._trusted not in facts.devices:
            return np.zeros((1, k))
        away = facts.squares[facts.devices.index(self._trusted)]
        return chosen(smallest(away, k - facts.f), k)
