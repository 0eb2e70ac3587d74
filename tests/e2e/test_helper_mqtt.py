"""edgefl-helper as a process, on a real broker with TLS and the guard, with keys that `edgefl keys` has made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from brokers import eventually
from edgefl_broker.helper.store import HelperStore
from enrolled import roster, tls, unpack
from guarded import RawClient
from helped import spent_of
from keyed_fleet import KeyedFleet

from edgefl.keys import enrolment
from edgefl.masking import ring, update
from edgefl.masking.exchange import Answer, Ask, Entry, read_answer, seal_ask
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Assembler, Splitter
from edgefl.protocol.terms import Terms
from edgefl.protocol.topics import Topics
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.key_files import read_public, read_seed

NAMES = [f"pi-{n}" for n in range(1, 7)]
TOPICS = Topics("f")
HASH, PARAMS = 0xABCD, 20_000  # the answer has several parts of 64 KiB
NOISE = {"kind": "independent", "sigma": 40.0}


class Helping:
    """A fleet's helper, and an aggregator that does nothing but ask it."""

    def __init__(self, folder: Path, fleet: KeyedFleet) -> None:
        self.fleet, self.home, self.log = fleet, folder / "helper-north", folder / "helper.log"
        self.fleet.enrol(*NAMES)
        self.unpack(*enrolment.add(fleet.keys, ["north"], role="helper"))
        self.process: subprocess.Popen[bytes] | None = None
        self.vectors: dict[str, np.ndarray] = {}

    def unpack(self, bundle: Path) -> None:
        self.home.mkdir(exist_ok=True)
        unpack(bundle, self.home)

    def connect(self) -> None:
        self.client = RawClient(self.fleet.port, tls(self.fleet.keys / "aggregator", "aggregator"))
        self.client.subscribe(TOPICS.any_answer)

    def start(self) -> None:
        words = ["--set", f"state_dir={self.home / 'state'}", "--set", "mqtt.reconnect_cap_s=0.2"]
        before = self.log.read_text().count("connected") if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgefl_broker.helper", "--config", str(self.home / "helper.toml"), *words,
                 "--set", "least.devices=3", "--log-level", "debug"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
        eventually(lambda: self.log.read_text().count("connected") > before, 20.0)

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(10.0)

    def party(self) -> HelperCertificate:
        folder = self.fleet.keys / "aggregator"
        return HelperCertificate.open(
            (folder / "helper-north.json").read_bytes(), read_public(folder / "root.pub"), "f"
        )

    def terms(self, round: int = 1, **changes: Any) -> Terms:
        party = self.party()
        helpers = [{"name": "north", "epoch": party.epoch, "box": party.box, "key": party.key}]
        table = {
            "federation": "f", "run": "00112233aabbccdd", "round": round, "version": round - 1,
            "model_sha256": "ab" * 32, "manifest": "0" * 16, "params": PARAMS, "coordinates": PARAMS, "seed": 5,
            "bits": 16, "reach": 100, "grid": 0.01, "clip": 1.0, "norm2": 20_000, "least": 2, "most": 6,
            "helpers": helpers, "noise": NOISE, **changes,
        }  # fmt: skip
        return Terms.read(msgspec.json.encode({**table, **spent_of(table)}).decode())

    def ask(self, terms: Terms, names: list[str]) -> Ask:
        """Masked vectors of these devices, with the keys of their own bundles."""
        entries = []
        for name in sorted(names):
            key = SigningKey(read_seed(self.fleet.home(name) / "signing.key"))
            q = np.ones(terms.length, np.int32)
            q[: terms.coordinates] = np.random.default_rng(sum(name.encode())).integers(-99, 100, terms.coordinates)
            found = update.read(update.mask(q, terms, name, key), terms)
            self.vectors[name] = np.asarray(ring.unpack(found.packed, terms.length, terms.bits))
            entries.append(Entry(name, found.packed_sha256, found.signature, found.boxes))
        return Ask(terms.text, 1, tuple(entries))

    def send(self, ask: Ask) -> None:
        folder, terms = self.fleet.keys / "aggregator", Terms.read(ask.terms)
        signer = SigningKey(read_seed(folder / "signer.key"))
        blob = seal_ask(ask, "north", 1, signer, (folder / "signer.json").read_bytes().rstrip(b"\n"))
        self.client.messages.clear()
        place = {"federation": HASH, "round": terms.round, "version": terms.version}
        splitter = Splitter(blob, 700, kind=Kind.ASK, codec=0, **place)
        for part in range(splitter.parts):
            self.client.publish(TOPICS.ask("north", part), splitter.part(part))

    def heard(self, ask: Ask) -> bytes | None:
        """The whole answer, as soon as all its parts are there."""
        terms = Terms.read(ask.terms)
        assembler = Assembler(
            kind=Kind.ANSWER, federation=HASH, round=terms.round, version=terms.version, max_total=2**20
        )  # fmt: skip
        for topic, payload, retain in list(self.client.messages):
            part = Envelope.from_bytes(payload)
            assert TOPICS.answer_part(topic) == ("north", part.part) and not retain
            if part.round == terms.round and assembler.add(part):
                return assembler.blob()
        return None

    def answer(self, ask: Ask, patience_s: float = 20.0) -> tuple[bytes, Answer]:
        """Ask until there is an answer, as an aggregator does."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            self.send(ask)
            again_at = time.monotonic() + 2.0
            while time.monotonic() < again_at:
                if (raw := self.heard(ask)) is not None:
                    answer = read_answer(raw, "north", self.party().public, Terms.read(ask.terms))
                    if answer.set_digest == ask.set_digest:
                        return raw, answer
                    self.client.messages.clear()  # once more to an ask before, which took longer than its repetition
                time.sleep(0.01)
        pytest.fail(f"no answer:\n{self.log.read_text()}")

    def opened(self, answer: Answer, names: list[str], terms: Terms) -> np.ndarray:
        """(L,) int64: the sum of the devices' integers, and noise."""
        assert answer.groups[0] is not None
        total = sum(self.vectors[name].astype(np.uint32) for name in names)
        total = total - ring.unpack(answer.groups[0][1], terms.length, terms.bits)
        return ring.centre(total.astype(np.uint32), terms.bits)


@pytest.fixture
def helping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helping]:
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")
    fleet = KeyedFleet(tmp_path)
    made = Helping(tmp_path, fleet)
    with fleet:
        made.connect()
        made.start()
        yield made
        made.client.close()
        if made.process is not None and made.process.poll() is None:
            made.end(signal.SIGKILL)


def test_i34_a_helper_answers_over_a_broker_and_a_kill_9_changes_no_answer(helping: Helping) -> None:
    terms = helping.terms()
    first, second = helping.ask(terms, NAMES[:3]), helping.ask(terms, NAMES[1:5])
    names = NAMES[1:5]
    raw, answer = helping.answer(second)
    assert answer.reason == "" and answer.groups[0] is not None and answer.groups[0][0] == 4
    noise = helping.opened(answer, names, terms) - sum(
        np.r_[
            np.random.default_rng(sum(name.encode())).integers(-99, 100, terms.coordinates),
            np.ones(terms.length - terms.coordinates, np.int64),
        ]
        for name in names
    )
    assert 35 < noise[: terms.coordinates].std() < 45 and not noise[terms.at_checks].any()
    assert helping.end(signal.SIGKILL) == -signal.SIGKILL
    helping.start()
    assert helping.answer(second)[0] == raw, "byte for byte, noise included"
    assert helping.answer(first)[1].reason.startswith("second: ")
    assert helping.end(signal.SIGTERM) == 0
    assert "guard: helper-north: denied" not in helping.fleet.broker.log
    assert "guard: aggregator: denied" not in helping.fleet.broker.log
    assert (helping.home / "state" / "helper.db").stat().st_mode & 0o077 == 0


def test_i34_correlated_noise_is_the_same_after_a_kill_and_goes_on_in_the_next_round(helping: Helping) -> None:
    banded = {"kind": "banded", "sigma": 40.0, "band": 2, "separation": 2, "rounds": 8}
    for number, names in enumerate((NAMES[:3], NAMES[3:], NAMES[:4]), 1):
        terms = helping.terms(number, noise=banded)
        ask = helping.ask(terms, names)
        raw, answer = helping.answer(ask, 40.0)
        assert answer.reason == "" and answer.epsilon == pytest.approx(terms.epsilon)
        noise = helping.opened(answer, names, terms)[: terms.coordinates]
        assert noise.std() > 100.0, "more than the integers of four devices have: the noise is in it"
        assert helping.end(signal.SIGKILL) == -signal.SIGKILL
        helping.start()
        assert helping.answer(ask, 40.0)[0] == raw, "byte for byte"
        other = helping.ask(terms, NAMES)
        assert helping.answer(other, 40.0)[1].reason.startswith("second: ")
    helping.end(signal.SIGTERM)
    store = HelperStore(helping.home / "state")
    ledger, memory = store.state.ledger, store.memory()
    store.close()
    assert ledger is not None and (ledger.first, ledger.round, ledger.times) == (1, 3, 2)
    assert ledger.epsilon == pytest.approx(terms.epsilon) and memory is not None


def test_i34_killed_at_any_moment_it_opens_one_set(helping: Helping) -> None:
    """Two sets of each round, one before the kill and one after it."""
    for round, delay_s in enumerate((0.0, 0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1), 1):
        terms = helping.terms(round)
        one, other = helping.ask(terms, NAMES[:4]), helping.ask(terms, NAMES[2:])
        helping.send(one)
        time.sleep(delay_s)
        helping.end(signal.SIGKILL)
        before = helping.heard(one)
        helping.start()
        answers = [helping.answer(ask) for ask in (other, one, other)]
        sound = [not found.reason for _, found in answers]
        assert sound in ([True, False, True], [False, True, False]), [found.reason for _, found in answers]
        assert answers[0] == answers[2]
        if before is not None:
            assert answers[1][0] == before


def test_the_roster_and_the_keys_are_read_again_while_it_runs(helping: Helping) -> None:
    keys = helping.fleet.keys
    first = helping.ask(helping.terms(1), NAMES[:3])
    assert helping.answer(first)[1].reason == ""
    enrolment.revoke_names(keys, [NAMES[0]])
    (helping.home / "roster.json").write_bytes((keys / "aggregator" / "roster.json").read_bytes())
    eventually(lambda: "roster.json was replaced" in helping.log.read_text(), 5.0)
    reason = helping.answer(helping.ask(helping.terms(2), NAMES[:3]))[1].reason
    assert reason.startswith(f"revoked: {NAMES[0]}, by roster {roster(keys).serial}: ")
    old = helping.ask(helping.terms(2), NAMES[1:4])
    (bundle,) = enrolment.next_helper_epoch(keys, ["helper-north"])
    helping.unpack(bundle)
    eventually(lambda: "epoch 2 of this helper's keys has begun" in helping.log.read_text(), 5.0)
    assert helping.answer(old)[1].reason.startswith("helper: ")
    assert helping.answer(helping.ask(helping.terms(2), NAMES[1:4]))[1].reason == ""


def test_check_says_what_is_so(helping: Helping) -> None:
    words = [sys.executable, "-m", "edgefl_broker.helper", "--config", str(helping.home / "helper.toml"), "--check"]

    def check(*sets: str) -> tuple[int, str]:
        extra = [word for one in (f"state_dir={helping.home / 'state'}", *sets) for word in ("--set", one)]
        done = subprocess.run([*words, *extra], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert "it runs with" in check()[1]
    helping.end(signal.SIGTERM)
    code, text = check()
    assert code == 0, text
    assert (
        "the broker takes a subscription to edgefl/2/f/helper/helper-north/ask/+" in text and "with 6 devices" in text
    )
    code, text = check("least.devices=9")
    assert "fewer than [least] devices" in text
    (helping.home / "roster.json").unlink()
    code, text = check()
    assert code != 0 and "roster.json" in text
