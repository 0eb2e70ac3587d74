"""Tags: names that keep versions of the model from being dropped. `best` follows the best score by itself.

Where there is a test set, its scores decide; else those of devices, on the examples that they hold out. A higher
accuracy is better, and of two equal ones the lower loss; a loss without accuracy decides alone. Scores of the one kind
and of the other are never compared.
"""

from __future__ import annotations

import logging
import time
from math import inf

import numpy as np

from edgefl.errors import StoreError
from edgefl.history_record import MOVED, RoundRecord
from edgefl.hosting.versions import BEST, MOST_TAGS, TAGS, Tag, Tags, pack, unpack

from .round_rows import KEPT_RECORDS
from .store import AggregatorStore

log = logging.getLogger("edgefl.aggregator")


class TagTable:
    """`most_bytes`: of all models that are kept only for their tags. StoreError."""

    def __init__(self, store: AggregatorStore, *, tested: bool, most_bytes: float) -> None:
        self._store, self._judge, self.most_bytes = store, "test" if tested else "devices", most_bytes
        self.tags = _stored(store)
        if BEST in self.tags and self.tags[BEST].judge != self._judge:
            del self.tags[BEST]
        self._pin()
        for record in store.recent(KEPT_RECORDS):  # a commit may have been the last thing that an earlier process did
            self.learn(record)

    @property
    def best(self) -> Tag | None:
        return self.tags.get(BEST)

    def best_params(self) -> np.ndarray | None:
        """The params (P,) of the best version, if there is one and it is still kept."""
        found = None if self.best is None else self._store.models.get(self.best.version)
        return None if found is None else found[0]

    def learn(self, record: RoundRecord) -> bool:
        """A round is over; whether another version is the best now."""
        found = self._scored(record)
        best = self.best
        if found is None or (best is not None and _worth(found) <= _worth(best)):
            return False
        if found.version not in self._store.models.versions():
            return False
        self._save({**self.tags, BEST: found})
        return True

    def _scored(self, record: RoundRecord) -> Tag | None:
        if self._judge == "devices":
            found = Tag(
                record.base, record.closed_at, record.round, self._judge, record.device_accuracy, record.device_loss
            )
        elif record.state in MOVED:
            found = Tag(record.version, record.closed_at, record.round, self._judge, record.accuracy, record.loss)
        else:
            return None
        return None if found.accuracy is None and found.loss is None else found

    def name(self, name: str, version: int) -> tuple[bool, str]:
        """Give a version a name, which another one then loses; whether that was done, and what to tell the operator."""
        if version not in self._store.models.versions():
            kept = ", ".join(map(str, self._store.models.versions()))
            return False, f"version {version} is not kept: the versions are {kept}; keep_models says how many"
        if name not in self.tags and len(self.tags) >= MOST_TAGS:
            return False, f"{MOST_TAGS} tags exist: remove one with edgefl tag --remove NAME"
        tags = {**self.tags, name: Tag(version, round(time.time()))}
        taken = self._store.models.bytes_of({tag.version for tag in tags.values()})
        if taken > self.most_bytes and version not in self._store.models.pinned:
            text = f"tagged versions would take {taken / 1e6:.0f} MB, models_mb allows {self.most_bytes / 1e6:g}"
            return False, f"{text}: remove a tag with edgefl tag --remove NAME, or raise models_mb"
        self._save(tags)
        return True, f"version {version} is {name}"

    def remove(self, name: str) -> tuple[bool, str]:
        """Take a name away; its version may then be dropped like any other."""
        if name not in self.tags:
            return False, f"no tag {name!r}: tags are {', '.join(sorted(self.tags)) or 'none'}"
        version = self.tags[name].version
        self._save({key: tag for key, tag in self.tags.items() if key != name})
        return True, f"version {version} is no longer {name}"

    def _save(self, tags: dict[str, Tag]) -> None:
        self._store.write(TAGS, pack(tags))
        self.tags = tags
        self._pin()

    def _pin(self) -> None:
        self._store.models.pinned = {tag.version for tag in self.tags.values()}


def _stored(store: AggregatorStore) -> Tags:
    blob = store.read(TAGS)
    try:
        return {} if blob is None else unpack(blob)
    except StoreError as error:
        log.error("%s: versions lose their names", error)
        return {}


def _worth(tag: Tag) -> tuple[float, float]:
    return (-inf if tag.accuracy is None else tag.accuracy, -inf if tag.loss is None else -tag.loss)
