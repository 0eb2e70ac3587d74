"""Delivery: brings accepted models to the host, where the owner wants them as files. Part of DeviceSession; no I/O.

A model is *accepted* if the newest round that the device believes names it. The aggregator names a version only after
its commit, so gate and canaries have let it pass; where keys are on, the round is sealed, its chain of versions is
checked, and it has not expired (trust.py). What canaries judge is not named by a round, and is never delivered.

A model that the device fetches for its rounds costs nothing more. One that no round asks it to train is fetched for its
files alone, at most every `every_s` seconds, within the owner's byte budget and hours, and not while the owner pauses
the device. That fetch is the work of Participation, like any other.

Where the owner wants the ONNX file, the file's skeleton is needed too: it is fetched once, beside all work.
"""

from __future__ import annotations

from msgspec import Struct

from ...digests import sha256
from ...machine import Note
from ...protocol.envelope import Envelope
from ...protocol.manifest import Manifest, SkeletonInfo
from ...protocol.round import Round
from ...protocol.topics import SKELETON_SLOT, Topics
from .. import inbound
from ..events import Action, KeepModel, KeepSkeleton
from ..patience import Patience
from ..work import Terms
from .blob_fetch import BlobFetch

ASK_AGAIN_S = 30.0  # for parts of the skeleton that have not come
RETRY_S = 600.0  # after a skeleton that is not what the manifest says
KEEP_AGAIN_S, LONGEST_S = 60.0, 3600.0  # after files that could not be written: twice as long each time


class Wanted(Struct, frozen=True):
    """What the owner wants, and what the host has. `sha256` is that of the params in its files, and `skeleton` that of
    the skeleton it keeps; "": none. `params` are those of `sha256`, from which a fetch may start. `trains` is False if
    the device takes models and trains nothing."""

    every_s: float
    file: bool = False
    trains: bool = True
    sha256: str = ""
    params: bytes = b""
    skeleton: str = ""


class Delivery:
    """`wanted` None: the owner wants no files, and nothing here does anything."""

    def __init__(self, topics: Topics, wanted: Wanted | None, patience: Patience) -> None:
        self._topics, self.wanted, self._patience = topics, wanted, patience
        self._have = wanted.sha256 if wanted else ""
        self._skeleton = wanted.skeleton if wanted else ""
        self.not_before = 0.0  # of the next fetch for the files alone
        self._keep_at, self._again_s = 0.0, KEEP_AGAIN_S
        self._fetch: BlobFetch | None = None
        self._fetch_of: tuple[str, int] | None = None  # the skeleton, and the federation hash in its envelopes
        self._ask_at = 0.0

    def wants(self, round: Round, now: float) -> bool:
        """Whether the model of `round` is to be delivered."""
        return self.wanted is not None and round.model_sha256 != self._have and now >= self._keep_at

    def wants_fetch(self, round: Round, now: float) -> bool:
        """Whether it may be fetched for the files alone."""
        return self.wants(round, now) and now >= self.not_before

    def postpone(self, until: float) -> None:
        """The owner's limits do not allow a fetch before then."""
        self.not_before = until

    def deliver(self, manifest: Manifest, round: Round, params: bytes, now: float) -> list[Action]:
        """The model of `round` is here: have the host write its files, as soon as the skeleton is there too."""
        if self.wanted is None or not self.wants(round, now) or self._lacks_skeleton(manifest):
            return []
        if self._have:  # the last files were written
            self._again_s = KEEP_AGAIN_S
        self._have, self.not_before = round.model_sha256, now + self.wanted.every_s
        return [KeepModel(manifest, round, params)]

    def not_kept(self, now: float) -> None:
        """The host could not write the files."""
        self._have, self._keep_at = "", now + self._again_s
        self._again_s = min(2 * self._again_s, LONGEST_S)

    # The skeleton

    def _lacks_skeleton(self, manifest: Manifest) -> bool:
        info = manifest.skeleton
        return self.wanted is not None and self.wanted.file and info is not None and info.sha256 != self._skeleton

    def skeleton_size(self, terms: Terms, now: float) -> int:
        """The bytes that are to be fetched now; 0: none."""
        if not self._lacks_skeleton(terms.manifest) or now < self._ask_at or terms.manifest.skeleton is None:
            return 0
        return terms.manifest.skeleton.size

    def ask(self, terms: Terms, now: float) -> list[Action]:
        """Fetch the skeleton of this manifest, or ask again for parts that have not come."""
        info = terms.manifest.skeleton
        assert info is not None
        self._ask_at = now + ASK_AGAIN_S
        if self._fetch is None or self._fetch_of != (info.sha256, terms.hash):
            self._begin(info, terms)
        assert self._fetch is not None
        return self._fetch.ask()

    def wait(self, until: float) -> list[Action]:
        """The owner's limits do not allow that before then."""
        self._ask_at = until
        return []

    def _begin(self, info: SkeletonInfo, terms: Terms) -> None:
        part_bytes = terms.manifest.part_bytes
        self._fetch_of = info.sha256, terms.hash
        self._fetch = BlobFetch(
            self._topics, SKELETON_SLOT, federation=terms.hash, version=0, codec=0, size=info.size,
            part_bytes=part_bytes, window=self._patience.asked_at_once(part_bytes, 2),
        )  # fmt: skip

    def on_disconnected(self) -> None:
        """Subscriptions are void: at the next connection parts are asked for again."""
        if self._fetch is not None:
            self._ask_at = 0.0

    def on_part(self, part: inbound.ModelPart, now: float) -> list[Action]:
        """A part of some payload has come; ProtocolError if it is not what belongs there."""
        fetch, expected = self._fetch, self._fetch_of
        if fetch is None or expected is None or not fetch.wants(part.topic):
            return []
        envelope: Envelope | None = fetch.read(part.topic.part, part.payload)
        if envelope is None:  # an aggregator that starts has not replaced it yet
            return []
        self._ask_at = now + ASK_AGAIN_S
        out = fetch.add(envelope)
        if not fetch.ended:
            return out
        blob, self._fetch = fetch.blob(), None
        if blob is None or sha256(blob).hexdigest() != expected[0]:
            self._ask_at = now + RETRY_S
            return [*out, Note("warning", "the skeleton of the model's file is not the manifest's", "skeleton")]
        self._skeleton = expected[0]
        return [*out, KeepSkeleton(blob)]

    def wake_at(self, terms: Terms | None, round: Round | None, *, has: bool) -> float | None:
        """When it may go on; None: not before something happens."""
        if self.wanted is None or terms is None or round is None or round.manifest != terms.manifest.id:
            return None
        if self._lacks_skeleton(terms.manifest):
            return self._ask_at
        if round.model_sha256 == self._have:
            return None
        return self._keep_at if has else max(self._keep_at, self.not_before)
