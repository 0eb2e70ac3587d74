"""A number with its noun, as an operator reads it. Nouns whose plural is more than an s are not for this."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """As in "1 round" and "2 rounds"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
