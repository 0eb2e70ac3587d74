"""Choices: which tensors of a file train, and which are one, where the caller decides it and not the file.

A pattern is the name of an initializer, a glob ("conv*"), or the start of a name up to a dot or slash ("conv1" for
conv1.weight).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase

from ..errors import UsageError


@dataclass(frozen=True)
class Choices:
    """Patterns, as `edgefl.load` takes them."""

    freeze: tuple[str, ...] = ()  # not trained
    train: tuple[str, ...] = ()  # trained, though the file's use of it says otherwise; wins over `freeze`
    tie: tuple[str, ...] = ()  # equal tensors are one
    untie: tuple[str, ...] = ()  # every reader has a tensor of its own
    found: set[tuple[str, str]] = field(default_factory=set, compare=False)  # (option, pattern) that matched

    @classmethod
    def of(cls, **given: object) -> Choices:
        """UsageError for what is no list of names: a text would be read as a list of its letters."""
        for option, names in given.items():
            if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
                raise UsageError(f"{option} is {names!r}: give a list of names")
        return cls(**{option: tuple(names) for option, names in given.items()})  # type: ignore[arg-type]

    def fresh(self) -> Choices:
        """The same before any tensor was looked at."""
        return Choices(self.freeze, self.train, self.tie, self.untie)

    def meaning(self, option: str, names: Iterable[str]) -> list[str]:
        """The patterns of this option that mean one of these names of a tensor."""
        return [pattern for pattern in getattr(self, option) if any(called(name, pattern) for name in names)]

    def says(self, option: str, names: Iterable[str]) -> bool:
        """Whether a pattern does, which then has matched."""
        meant = self.meaning(option, names)
        self.found.update((option, pattern) for pattern in meant)
        return bool(meant)

    def unmet(self) -> list[tuple[str, str]]:
        """The options and patterns that matched nothing."""
        options = [f.name for f in fields(self) if f.name != "found"]
        return [(name, word) for name in options for word in getattr(self, name) if (name, word) not in self.found]


def called(name: str, pattern: str) -> bool:
    """Whether a pattern means this initializer."""
    return bool(name) and (fnmatchcase(name, pattern) or name.startswith((f"{pattern}.", f"{pattern}/")))
