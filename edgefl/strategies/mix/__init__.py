"""Mixes: what is done to all updates of a round before a robust rule combines them. Each new row is a weighted sum of
the updates, with weights that depend on their inner products (strategies/rule.py). One step a file.

    nnm         each update becomes the mean of its nearest neighbours
    bucketing   random groups become their means
    clip        updates longer than the median are shortened to it
    arc         the longest updates are shortened, as many as f asks for
"""

from __future__ import annotations

from ..rule import Weights


class Mix(Weights):
    """A step before a rule. `fills`: its rows are means of many, so few coordinates are 0."""

    fills = False
