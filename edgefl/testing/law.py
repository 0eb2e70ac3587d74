"""How a law is stated: `require` raises BrokenLaw, with the law as its text, if it does not hold."""

from __future__ import annotations


class BrokenLaw(AssertionError):
    """What `check_codec` and `check_strategy` raise."""


def require(holds: bool, law: str) -> None:
    if not holds:
        raise BrokenLaw(law)
