"""Violation: a promise of docs/guarantees.md is broken."""

from __future__ import annotations


class Violation(AssertionError):
    """`name` is the promise's number."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def require(kept: bool, name: str, text: str, *args: object) -> None:
    if not kept:
        raise Violation(name, text % args if args else text)
