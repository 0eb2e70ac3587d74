"""State: what a helper must never forget, small and of bounded size. It is on disk before an answer leaves.

serial, signer_epoch, run    of the newest aggregator certificate, and of the run in its epoch: there is one in each
round                        the newest round that was opened in this run: older ones never are
epoch                        of our own keys
ledger                       of the noise that was added, in all runs; None before there was any
restored                     somebody holds a later answer of this epoch than we know: we came from a backup
opened                       the last rounds, each with its set; their answers are kept, and given again
ended                        the runs before it in this epoch of our keys, which never go on; the root begins each, and
                             beyond MOST_RUNS the next one needs another epoch of our keys
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..errors import StoreError
from ..privacy.ledger import Ledger

KEPT_ROUNDS = 4  # whose answers can be asked for again
MOST_RUNS = 100  # in one epoch of our keys; a run that was forgotten could be opened again


class Opened(NamedTuple):
    """A round that was opened: H and the digest of its set, both in hex."""

    round: int
    digest: str
    set_digest: str

    @classmethod
    def of(cls, round: int, digest: bytes, set_digest: bytes) -> Opened:
        return cls(round, digest.hex(), set_digest.hex())


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it; that of a new helper has its defaults."""

    serial: int = 0
    signer_epoch: int = 0
    run: str = ""
    round: int = 0
    epoch: int = 0
    ledger: Ledger | None = None
    restored: bool = False
    opened: tuple[Opened, ...] = ()
    ended: tuple[str, ...] = ()

    def in_run(self, run: str) -> State:
        """In the next epoch of the aggregator's certificate. The same run goes on: its rounds are opened once. It
        also does where there is no room for another."""
        if run == self.run or self.is_full:
            return self
        ended = (*self.ended, self.run) if self.run else self.ended
        return msgspec.structs.replace(self, run=run, round=0, opened=(), ended=ended)

    @property
    def is_full(self) -> bool:
        """Whether this epoch of our keys can have no further run."""
        return len(self.ended) + bool(self.run) >= MOST_RUNS

    def in_epoch(self, epoch: int) -> State:
        """In the next epoch of our keys: what was sealed to those before can't be opened."""
        return msgspec.structs.replace(self, epoch=epoch, restored=False, opened=(), ended=())

    @property
    def epsilon(self) -> float:
        """The highest that was ever spent, by our ledger and by what was told."""
        return 0.0 if self.ledger is None else self.ledger.epsilon

    def newest_of(self, run: str) -> int:
        """The newest round of this run that was opened; 0 of any other run than the one that goes on."""
        return self.round if run == self.run else 0

    def of_round(self, round: int) -> Opened | None:
        """What was opened of a round of this run, if its answer is kept."""
        return next((one for one in self.opened if one.round == round), None)

    def after(self, opened: Opened, ledger: Ledger | None) -> State:
        """With one more round, which is in this ledger."""
        kept = (opened, *self.opened)[:KEPT_ROUNDS]
        return msgspec.structs.replace(self, round=opened.round, ledger=ledger, opened=kept)

    def to_bytes(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_bytes(cls, raw: bytes) -> State:
        """StoreError if these are not the bytes of one: nothing may be opened by a guess."""
        try:
            return msgspec.json.decode(raw, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise StoreError("what the helper has opened can't be read: begin a new epoch of its keys") from None


msgspec.json.Decoder(State)  # described at import: see protocol/messages.py
