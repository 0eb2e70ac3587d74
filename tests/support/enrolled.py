"""A federation's folder of keys, and readers of what is in it."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edgefl.keys import broker_files, enrolment, folder, private
from edgefl.keys.enrolment import USUAL, Terms
from edgefl.keys.federation import Federation
from edgefl.transports.endpoint import TlsConfig
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.key_files import read_public
from edgefl.trust.roster import Roster

SETTINGS = Federation(federation="f", broker="broker.example.org")
DAY_S = 86400


def unpack(bundle: Path, to: Path) -> Path:
    with tarfile.open(bundle) as tar:
        tar.extractall(to, filter="data")
    return to


def roster(keys: Path) -> Roster:
    root = read_public(keys / "aggregator" / "root.pub")
    return Roster.open((keys / "aggregator" / "roster.json").read_bytes(), root, "f")


def signer(keys: Path) -> SignerCertificate:
    root = read_public(keys / "aggregator" / "root.pub")
    return SignerCertificate.open((keys / "aggregator" / "signer.json").read_bytes(), root, "f")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def name_of(read: x509.Certificate) -> str:
    return read.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def revoked_serials(keys: Path) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl((keys / "broker" / "crl.pem").read_bytes())}


def openssl_accepts(keys: Path, path: Path, purpose: str) -> bool:
    words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-crl_check"]
    files = ["-CAfile", str(keys / "root" / "ca.crt"), "-CRLfile", str(keys / "broker" / "crl.pem"), str(path)]
    return subprocess.run([*words, *files], capture_output=True).returncode == 0


def made(
    path: Path, *names: str, at: float | None = None, terms: Terms = USUAL, guard: Path | None = None, **settings: Any
) -> Path:
    """A folder of the federation `f` at `path`, made at the time `at`, with an unpacked bundle `path/NAME` for each of
    these devices. Its mosquitto.conf finds its files in `path/broker`, and lacks the guard unless there is one."""
    with pytest.MonkeyPatch.context() as patch:
        if at is not None:
            patch.setattr(folder, "time", Clock(at))
        told = {"federation": "f", "broker": "localhost", "home": str(path / "broker"), "guard": str(guard), **settings}
        enrolment.init(path, Federation(**told))
        if names:
            for bundle in enrolment.add(path, names, terms):
                unpack(bundle, path / bundle.stem)
    if guard is None:
        conf = path / "broker" / "mosquitto.conf"
        conf.write_text(re.sub(r"^plugin.*\n", "", conf.read_text(), flags=re.MULTILINE))
    return path


class Clock:
    """Stands for the module time: it is `at`."""

    def __init__(self, at: float) -> None:
        self.time = lambda: at


def served(keys: Path) -> str:
    """The folder's mosquitto.conf, as the text that a test's broker adds to a listener of its own."""
    conf = (keys / "broker" / "mosquitto.conf").read_text()
    return re.sub(r"^(persistence|autosave|max_packet_size|memory_limit).*\n", "", conf, flags=re.MULTILINE)


def tls(home: Path, holder: str = "device") -> TlsConfig:
    """The TLS files of an unpacked bundle."""
    return TlsConfig(*(str(home / name) for name in ("ca.crt", f"{holder}.crt", f"{holder}.key")))


class Killed(BaseException):
    """What ends a command in the middle."""


def killed_at(number: int, before: bool, work, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run `work` and kill it at its write of this number; whether it was killed."""
    writes, write = iter(range(1, 10_000)), private.write_atomically

    def dying(path: Path, data: bytes, **options: int) -> None:
        last = next(writes) == number
        if last and before:
            raise Killed
        write(path, data, **options)
        if last:
            raise Killed

    with monkeypatch.context() as patch:
        for module in (private, broker_files):
            patch.setattr(module, "write_atomically", dying)
        try:
            work()
        except Killed:
            return True
    return False
