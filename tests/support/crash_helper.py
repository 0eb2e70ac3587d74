"""A helper's daemon on a disk of its own, with a stand-in for its link, that is asked for sums with correlated noise.

The asks lie in the folder too: sealing is random, so no other process could make them again.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.daemon import HelperDaemon
from helped import (
    DEVICES,
    FEDERATION,
    LAST,
    NAME,
    ROOT,
    answer_in,
    ask_of,
    blob_of,
    keys_of,
    parts_of,
    roster_of,
    terms_of,
)
from stand_in import Link, turn

from edgefl.machine import Connected, Publish
from edgefl.masking.exchange import Answer, read_answer
from edgefl.protocol.terms import Terms
from edgefl.settings import files
from edgefl.settings.render import dump
from edgefl.trust.ed25519 import to_text
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.key_files import BOX_KEY, HELPER_CERTIFICATE, ROOT_PUBLIC, ROSTER, SIGNING_KEY, write_seed

ROUNDS = 3
SETS = (DEVICES[:3], DEVICES[1:4])
LEAVES = "/answer/leaves"  # a path that is looked at when an answer leaves, so that a trace shows it
NOISE = {"kind": "banded", "sigma": 30.0, "band": 2, "separation": 4, "rounds": 10}


def prepare(folder: Path) -> None:
    """helper.toml, the keys that its bundle would have, and the asks."""
    found, keys = keys_of(), folder / "keys"
    keys.mkdir()
    certificate = HelperCertificate.of(
        NAME, found.box_public, found.signing.public, federation=FEDERATION, serial=1, epoch=1, not_before=0,
        not_after=LAST,
    )  # fmt: skip
    (keys / ROOT_PUBLIC).write_text(to_text(ROOT.public))
    (keys / HELPER_CERTIFICATE).write_bytes(certificate.seal(ROOT))
    (keys / ROSTER).write_bytes(roster_of().seal(ROOT))
    seed = f"{NAME} 1 ".encode().ljust(32, b"b")
    write_seed(keys / BOX_KEY, seed)
    write_seed(keys / SIGNING_KEY, seed[::-1])
    (folder / "helper.toml").write_text(
        dump(
            {
                "federation": FEDERATION, "name": NAME, "state_dir": str(folder / "state"),
                "mqtt": {"url": "mqtt://127.0.0.1"}, "keys": {"dir": str(keys)}, "least": {"devices": 2},
            }
        )
    )  # fmt: skip

    for number in range(1, ROUNDS + 1):
        for which, devices in enumerate(SETS):
            (folder / f"ask-{number}-{which}").write_bytes(blob_of(ask_of(terms(number), devices)))


def terms(number: int) -> Terms:
    return terms_of(number, noise=NOISE, bits=16)


class AskedHelper:
    """A daemon that is connected; `close` before another one uses its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemon = HelperDaemon(files.load(str(folder / "helper.toml"), HelperConfig))
        self._sent: list[Publish] = []
        self._daemon.link = Link(self._tell)  # type: ignore[assignment]
        self._do = turn(self._daemon)
        for action in self._daemon.machine.begin():
            self._daemon.carry_out(action)
        self._do(Connected())

    def _tell(self, topic: str, payload: bytes) -> None:
        os.access(LEAVES, os.F_OK)
        self._sent.append(Publish(topic, payload))

    def ask(self, number: int, which: int) -> bytes:
        """The answer to an ask for the sum of one of SETS in a round, as it leaves."""
        self._sent.clear()
        for part in parts_of((self._folder / f"ask-{number}-{which}").read_bytes(), number, number - 1):
            self._do(part)
        while not self._sent:
            self._do(self._daemon._events.get(timeout=30.0))
        raw = answer_in(self._sent)
        assert raw is not None
        return raw

    @staticmethod
    def read(raw: bytes, number: int) -> Answer:
        return read_answer(raw, NAME, keys_of().signing.public, terms(number))

    def close(self) -> None:
        self._daemon._store.close()
