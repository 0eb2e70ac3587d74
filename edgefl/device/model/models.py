"""Models: the params that a device holds, and the fetch that brings it a round's. Part of Participation; no I/O."""

from __future__ import annotations

from ...protocol.round import Round
from ...protocol.topics import Topics
from ..patience import Patience
from ..shelf import Shelf
from ..work import Terms
from .fetch import ModelFetch
from .frozen import Frozen


class Models:
    """`held` has params by digest: the newest, and the anchor that deltas start from."""

    def __init__(self, topics: Topics, *, patience: Patience, shelf: Shelf, base: bytes = b"") -> None:
        self.held: dict[str, bytes] = {}
        self.frozen = Frozen(base)
        self._topics, self._patience, self._shelf = topics, patience, shelf

    def has(self, round: Round) -> bool:
        """Whether the model of `round` is here."""
        return round.frames[-1].digest in self.held

    def params(self, round: Round) -> bytes:
        """The model of `round`, which is here."""
        return self.held[round.frames[-1].digest]

    def fetch(self, round: Round, terms: Terms, reached: dict[str, bytes], now: float) -> ModelFetch | None:
        """A new fetch of the model of `round`; None if the device has it. `reached` has params that a fetch before it
        had come to."""
        if self.has(round):
            return None
        fetch = ModelFetch(
            self._topics, terms.manifest, terms.hash, round, held={**self.held, **reached}, patience=self._patience,
            now=now, shelf=self._shelf, frozen=self.frozen,
        )  # fmt: skip
        if fetch.params is None:
            return fetch
        self.keep(fetch)  # the last fetch had come that far
        return None

    def keep(self, fetch: ModelFetch) -> None:
        """The model is whole."""
        self.held = fetch.kept
        self.frozen.release()
