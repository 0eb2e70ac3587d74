"""The agent's keys: the root that it pins, and its own key, from the folder that `[keys] dir` names."""

from __future__ import annotations

from pathlib import Path

from edgefl.device.trust import Keys, Seen
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.key_files import ROOT_PUBLIC, SIGNING_KEY, read_public, read_seed
from edgefl.trust.settings import KeysConfig

OPEN = "this federation is open: messages are not verified, updates are not signed; set [keys] dir to change that"


def load_keys(config: KeysConfig, seen: Seen | None) -> Keys | None:
    """The keys, and what the device has seen; None without keys. UsageError."""
    if config.dir is None:
        return None
    folder = Path(config.dir)
    return Keys(read_public(folder / ROOT_PUBLIC), SigningKey(read_seed(folder / SIGNING_KEY)), seen)
