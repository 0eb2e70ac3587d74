"""Differential privacy of masked rounds: noise, what it costs, and the ledger of what was spent.

Not here: who adds the noise (the helper, or the aggregator without one), and what is masked (masking/).
"""

from typing import Annotated

from msgspec import Meta

MOST_EPSILON = 1e12  # that settings, terms, ledgers and answers of helpers can tell
Epsilon = Annotated[float, Meta(ge=0, le=MOST_EPSILON)]


def no_less(epsilon: float) -> str:
    """In six digits, rounded up: an operator may set [privacy] told to it, and what is told is to be no less."""
    text = f"{epsilon:g}"
    return text if float(text) >= epsilon else f"{epsilon * (1 + 5e-6):g}"
